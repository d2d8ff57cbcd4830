"""Axes of a sweep, and the points that they span: dotted keys of the configuration and their values."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dreamer_agent.errors import ConfigError
from dreamer_agent.values import flatten

Point = dict[str, Any]


def points_of(axes: Sequence[Any]) -> list[Point]:
    """The product of all axes, the last one varying fastest; one empty point without axes.

    An axis is a mapping with one entry:

        grid:   {replay.ratio: [32, 64], size: [nano, tiny]}     # every combination
        zip:    {replay.batch_size: [4, 8], replay.ratio: [32, 64]}   # first with first, second with second
        list:   [{}, {model.unimix: 0}]                          # as they stand
        random: {samples: 20, seed: 0, values: {optimizer.learning_rate: {loguniform: [1e-5, 1e-3]}}}

    Keys of a point are dotted, however they were written. Raises `ConfigError` for what is none of these, and
    where two axes set the same key.
    """
    out: list[Point] = [{}]
    taken: set[str] = set()
    for number, axis in enumerate(axes, 1):
        points = _axis(number, axis)
        keys = {key for point in points for key in point}
        if keys & taken:
            raise ConfigError(
                f"Axis {number} of the sweep sets {min(keys & taken)}, which an axis before it sets, too."
            )
        taken |= keys
        out = [{**old, **new} for old, new in itertools.product(out, points)]
    return out


def _axis(number: int, axis: Any) -> list[Point]:
    if not isinstance(axis, Mapping) or len(axis) != 1:
        raise ConfigError(
            f"Axis {number} of the sweep is {axis!r}: write one of {', '.join(KINDS)}, with values."
        )
    (kind, content), *_ = axis.items()
    if kind not in KINDS:
        raise ConfigError(f"Axis {number} of the sweep is of the kind '{kind}': choose {', '.join(KINDS)}.")
    points = [flatten(point) for point in KINDS[kind](f"The {kind} of axis {number}", content)]
    if not points:
        raise ConfigError(f"The {kind} of axis {number} is empty: give it values, or leave it out.")
    return points


def _grid(name: str, content: Any) -> list[Point]:
    values = _lists(name, content)
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def _zip(name: str, content: Any) -> list[Point]:
    values = _lists(name, content)
    lengths = {key: len(one) for key, one in values.items()}
    if len(set(lengths.values())) != 1:
        told = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise ConfigError(f"{name} needs lists of one length: {told} values.")
    return [dict(zip(values, chosen, strict=True)) for chosen in zip(*values.values(), strict=True)]


def _list(name: str, content: Any) -> list[Point]:
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise ConfigError(f"{name} is {content!r}: write a list of points, each with its keys and values.")
    for point in content:
        if not isinstance(point, Mapping):
            raise ConfigError(f"{name} holds {point!r}: a point has keys and values ({{}} changes nothing).")
    return [dict(point) for point in content]


def _random(name: str, content: Any) -> list[Point]:
    """Each key has random numbers of its own, so that more samples or keys leave those before as they were.

    `found` are further points, of a search (`sweeps/found.py`).
    """
    if not isinstance(content, Mapping) or set(content) - {"samples", "seed", "values", "found"}:
        raise ConfigError(f"{name} is {content!r}: it has `samples`, `values` and, if you like, a `seed`.")
    samples, seed, values = content.get("samples"), content.get("seed", 0), content.get("values")
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        raise ConfigError(f"{name} has samples={samples!r}: give a whole number from 1 on.")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ConfigError(f"{name} has seed={seed!r}: give a whole number from 0 on.")
    if not isinstance(values, Mapping) or not values:
        raise ConfigError(f"{name} has no values: give each key a distribution, {{loguniform: [1e-5, 1e-3]}}.")
    drawn = {}
    for key, given in values.items():
        rng = np.random.default_rng([seed, zlib.crc32(str(key).encode())])
        drawn[key] = _draw(f"{name}, {key},", given, rng, samples)
    points = [dict(zip(drawn, chosen, strict=True)) for chosen in zip(*drawn.values(), strict=True)]
    return [*points, *map(dict, content.get("found", ()))]


def _draw(name: str, given: Any, rng: np.random.Generator, samples: int) -> Iterable[Any]:
    if not isinstance(given, Mapping) or len(given) != 1 or next(iter(given)) not in (*RANGES, "choice"):
        raise ConfigError(f"{name} is {given!r}: write one of {', '.join(RANGES)} or choice, with a list.")
    (kind, numbers), *_ = given.items()
    if kind == "choice":
        if not isinstance(numbers, Sequence) or isinstance(numbers, str) or not numbers:
            raise ConfigError(f"{name} chooses from {numbers!r}: give a list.")
        return [numbers[index] for index in rng.integers(0, len(numbers), samples)]
    try:
        low, high = (float(number) for number in numbers)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} has {kind}: {numbers!r}: give the least and the largest, [1, 10].") from None
    if not np.isfinite(high - low) or not low < high or (kind == "loguniform" and low <= 0):
        positive = ", both above 0" if kind == "loguniform" else ""
        raise ConfigError(f"{name} has {kind}: {numbers!r}: the first should be less than the second{positive}.")
    return [RANGES[kind](rng, low, high) for _ in range(samples)]


def _loguniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _lists(name: str, content: Any) -> dict[str, list[Any]]:
    if not isinstance(content, Mapping) or not content:
        raise ConfigError(f"{name} is {content!r}: write keys, each with a list of values.")
    for key, values in content.items():
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise ConfigError(f"{name} has {key}: {values!r}: give a list of values.")
    return {key: list(values) for key, values in content.items()}


KINDS: dict[str, Callable[[str, Any], list[Point]]] = {
    "grid": _grid, "zip": _zip, "list": _list, "random": _random,
}  # fmt: skip
RANGES: dict[str, Callable[[np.random.Generator, float, float], Any]] = {
    "uniform": lambda rng, low, high: float(rng.uniform(low, high)),
    "loguniform": _loguniform,
    "integers": lambda rng, low, high: int(rng.integers(int(low), int(high), endpoint=True)),
}
