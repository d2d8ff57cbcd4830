"""What the adapters of JAX-native libraries share."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from dreamer_agent.errors import ConfigError, missing_extra

NO_LIMIT = 2**30  # steps; as an int32 it is beyond every episode


def library(name: str, module: str | None = None) -> Any:
    """The module `module` (`name` unless given) of the package `name`, whose extra has the same name.

    Raises `MissingExtraError` where the package, or one that it needs, is not installed.
    """
    try:
        return importlib.import_module(module or name)
    except ImportError as error:
        raise missing_extra(name, name) from error


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


def settled(state: Any, types: Any = None) -> Any:
    """`state` as arrays of strong types, of the dtypes of `types` (a tree of the same structure) where given.

    Libraries start from Python numbers and calculate with arrays: without this, the state that `step` returns
    would differ from that of `reset`, so that `step` compiled twice and a scan refused to carry it.
    """
    arrays = jax.tree.map(jnp.asarray, state)
    return jax.tree.map(lambda x, t: x.astype(jnp.asarray(t).dtype), arrays, arrays if types is None else types)


def pixels(image: Any) -> Any:
    """Floats in [0, 1] as uint8 pixels, rounded to the nearest."""
    return jnp.round(jnp.clip(image, 0, 1) * 255).astype(jnp.uint8)
