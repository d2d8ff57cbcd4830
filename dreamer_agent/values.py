"""Frozen dataclasses as nested plain values, and back: typed changes, and sentences where one does not fit."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import yaml

from dreamer_agent.errors import ConfigError


def merged(
    config: Any, changes: Mapping[str, Any], unknown: Callable[[str, Any, str], str], prefix: str = ""
) -> Any:
    """`config`, a frozen dataclass of such, with the nested `changes` applied and checked.

    Raises `ConfigError` for a value of the wrong type, and with the words of `unknown(path, group, prefix)` for a
    key that is not there.
    """
    hints = typing.get_type_hints(type(config))
    values: dict[str, Any] = {}
    for key, value in changes.items():
        path = f"{prefix}{key}"
        if key not in hints:
            raise ConfigError(unknown(path, config, prefix))
        current = getattr(config, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise ConfigError(f"'{path}' is a group of values, got {value!r}: set one, {path}.NAME=VALUE.")
            values[key] = merged(current, value, unknown, f"{path}.")
        else:
            values[key] = checked(path, value, hints[key])
            if isinstance(current, Mapping):
                values[key] = {**current, **values[key]}
    return dataclasses.replace(config, **values)


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=value` as `{"a": {"b": value}}`; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"An override has the form key=value, such as replay.ratio=64; got '{text}'.")
    try:
        nested: Any = yaml.safe_load(value) if value else ""
    except yaml.YAMLError as error:
        raise ConfigError(f"The value of '{text}' is not plain YAML: quote it, or mend its brackets.") from error
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as nested plain values, for YAML."""
    return {entry.name: _plain(getattr(config, entry.name)) for entry in dataclasses.fields(config)}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def checked(path: str, value: Any, hint: Any) -> Any:
    """`value` as the type `hint` of the field `path`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in args:
            return value
        raise ConfigError(f"'{path}' takes one of {', '.join(map(str, args))}; got {value!r}.")
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(checked(path, item, args[0]) for item in value)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return dict(value)
    elif hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4 as a string
        except ValueError:
            pass
    elif hint is int and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            if float(value) == int(float(value)):
                return int(float(value))
        except (ValueError, OverflowError):
            pass
    elif hint in (str, bool) and isinstance(value, hint):
        return value
    expected = getattr(hint, "__name__", str(hint)) + (", written [a, b]" if origin is tuple else "")
    raise ConfigError(f"'{path}' takes a value of type {expected}; got {value!r}.")


def _plain(value: Any) -> Any:
    """`value` with dicts for dataclasses and mappings, and lists for tuples."""
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def keys_of(config: Any, prefix: str = "") -> list[str]:
    """Every key of `config`, dotted."""
    keys: list[str] = []
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            keys += keys_of(value, f"{prefix}{entry.name}.")
        else:
            keys.append(f"{prefix}{entry.name}")
    return keys


def nearest(name: str, known: list[str], first: Iterable[str] = ()) -> str:
    """ ": did you mean X or Y?" for the nearest neighbours of `name`."""
    close = list(dict.fromkeys([*first, *difflib.get_close_matches(name, known, n=3, cutoff=0.5)]))[:3]
    if close:
        return f": did you mean {' or '.join(close)}?"
    return f": known are {', '.join(known)}."
