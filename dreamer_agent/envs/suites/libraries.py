"""What the adapters of all libraries share: how they are imported, and what is said where a name is wrong."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from typing import Any

from dreamer_agent.errors import ConfigError, missing_extra


def library(extra: str, module: str | None = None, package: str | None = None) -> Any:
    """The module `module` of `package`, which the optional dependencies `extra` install.

    Both are called as `extra` unless given.

    Raises `MissingExtraError` where the package, or one that it needs, is not there.
    """
    try:
        return importlib.import_module(module or extra)
    except ImportError as error:
        raise missing_extra(package or extra, extra) from error


def refuse_unknown(title: str, name: str, known: Iterable[str]) -> None:
    """Raise `ConfigError` unless `name` is one of the tasks `known` of the library `title`."""
    names = sorted(known)
    if name in names:
        return
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    nearest = f" ('{close[0]}' is the nearest)" if close else ""
    raise ConfigError(f"{title} has no environment '{name}'{nearest}: choose one of {', '.join(names)}.")


def build(title: str, maker: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
    """`maker(**kwargs)` of the library; `ConfigError` where it refuses the keyword arguments."""
    try:
        return maker(**kwargs)
    except (TypeError, ValueError) as error:
        if not kwargs:
            raise
        raise ConfigError(
            f"The environment '{title}' does not take env.kwargs {kwargs}: {str(error).rstrip('.')}; correct "
            "or remove what it does not know."
        ) from error
