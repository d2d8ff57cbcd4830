"""Plugs: what is found by its name, and may come from outside the package.

A factory gets its name by a decorator, `@registry.register("name")`, or by a Python entry point of an installed
package, in the group `dreamer_agent.encoders`, `dreamer_agent.suites`, `dreamer_agent.planners` or
`dreamer_agent.loggers`. An entry point is loaded when its name is asked for, not before.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Callable, ItemsView, Iterable, Iterator
from importlib.metadata import EntryPoint
from typing import Any, Generic, TypeVar

from dreamer_agent.errors import ConfigError

T = TypeVar("T", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Factories of one kind ("encoder", "suite", "planner" or "logger") by name. Iterating gives them sorted."""

    def __init__(self, kind: str):
        self.kind = kind
        self.group = f"dreamer_agent.{kind}s"  # of the entry points
        self._factories: dict[str, T] = {}

    def register(self, name: str, *, replace: bool = False) -> Callable[[T], T]:
        """A decorator that registers a factory under `name`.

        Raises `ConfigError` where another factory has the name, unless `replace` is set. The same factory defined
        again (a cell of a notebook, a reloaded module) is not another one.
        """

        def decorate(factory: T) -> T:
            taken = self._factories.get(name)
            if taken is not None and not replace and not _is_same(taken, factory):
                raise ConfigError(
                    f"The {self.kind} '{name}' is registered already, by {taken.__module__}: "
                    "choose another name, or register it with replace=True."
                )
            self._factories[name] = factory
            return factory

        return decorate

    def get(self, name: str) -> T:
        """The factory called `name`, from an entry point if none is registered.

        Raises `ConfigError` for an unknown name, and for an entry point that cannot be loaded.
        """
        if name not in self._factories:
            self._factories[name] = self._load(name)
        return self._factories[name]

    def names(self) -> list[str]:
        """The sorted names of what is registered and of the entry points, which are not loaded."""
        return sorted({*self._factories, *(point.name for point in self._entry_points())})

    def items(self) -> ItemsView[str, T]:
        """Names and factories of what is registered or was loaded so far."""
        return self._factories.items()

    def describe(self, name: str) -> str:
        """The first line of a factory's docstring; for an entry point, which is not loaded, its package."""
        if name in self._factories:
            return (self._factories[name].__doc__ or "").strip().partition("\n")[0]
        return f"From the package {_package_of(self._find(name))}."

    def pop(self, name: str) -> T:
        """Forget what is registered under `name`, and give it. Raises `KeyError` where nothing is."""
        return self._factories.pop(name)

    def __contains__(self, name: object) -> bool:
        return name in self._factories or any(point.name == name for point in self._entry_points())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _entry_points(self) -> Iterable[EntryPoint]:
        return importlib.metadata.entry_points(group=self.group)

    def _find(self, name: str) -> EntryPoint:
        """The entry point called `name`; two that lead to different objects are an error."""
        found = {point.value: point for point in self._entry_points() if point.name == name}
        if not found:
            raise ConfigError(self._unknown(name))
        if len(found) > 1:
            packages = " and ".join(sorted(_package_of(point) for point in found.values()))
            raise ConfigError(
                f"The {self.kind} '{name}' is offered by more than one package, {packages}: "
                "uninstall all but one."
            )
        return next(iter(found.values()))

    def _load(self, name: str) -> T:
        point = self._find(name)
        package = _package_of(point)
        try:
            factory = point.load()
        except Exception as error:
            raise ConfigError(
                f"The {self.kind} '{name}' of the package {package} cannot be imported from '{point.value}' "
                f"({in_one_line(error)}): mend or reinstall {package}, or choose another {self.kind}."
            ) from error
        if not callable(factory):
            raise ConfigError(
                f"The {self.kind} '{name}' of the package {package} should be a function that makes one, but "
                f"'{point.value}' is {factory!r}: correct the entry point of {package}."
            )
        return factory

    def _unknown(self, name: str) -> str:
        names = self.names()
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        nearest = f" ('{close[0]}' is the nearest)" if close else ""
        return (
            f"Unknown {self.kind} '{name}': known are {', '.join(names) or 'none'}{nearest}; name the module "
            f"that registers it by plugins=[MODULE], or register it with dreamer_agent.register_{self.kind}."
        )


def import_plugins(names: Iterable[str]) -> None:
    """Import the modules `names`, so that they register what they have.

    They are looked for in the current folder too, as with `python -m`. Raises `ConfigError` for a module that is
    missing or that fails.
    """
    importlib.invalidate_caches()  # a module may have been written a moment ago, from a notebook
    for name in names:
        if not {"", os.getcwd()} & set(sys.path):
            sys.path.insert(0, os.getcwd())
        try:
            importlib.import_module(name)
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
                reason = (
                    f"There is no module '{name}', which plugins names: write it as `import` takes it "
                    "(no path, no .py), and start in its folder or install it."
                )
            else:
                reason = (
                    f"The module '{name}', which plugins names, fails when it is imported "
                    f"({in_one_line(error)}): mend it, or leave it out of plugins."
                )
            raise ConfigError(reason) from error


def in_one_line(error: BaseException) -> str:
    """Type and message of `error` without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(" :.")


def _package_of(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.module


def _is_same(one: Any, other: Any) -> bool:
    """Whether `other` is `one` defined again: in a notebook, by a reload, in a script that is also imported.

    Nested functions and lambdas share their names with their siblings, so only identity counts for them.
    """
    if one is other:
        return True
    name = getattr(one, "__qualname__", "<")
    if "<" in name or getattr(other, "__qualname__", None) != name:
        return False
    file = _file_of(one)
    return one.__module__ == other.__module__ or (file is not None and file == _file_of(other))


def _file_of(factory: Any) -> str | None:
    """The source file of a function or class."""
    code = getattr(factory, "__code__", None)
    return code.co_filename if code else getattr(sys.modules.get(factory.__module__), "__file__", None)
