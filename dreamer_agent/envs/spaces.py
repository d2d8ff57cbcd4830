"""Between gymnasium spaces and the dicts of arrays that the library works with.

A (possibly nested) space is flattened into named arrays: names join the path with "/", a space without members is
called "obs" or "action". How observations enter is in `routing`. Actions:

    Discrete                      a choice; `start` is added for the environment
    MultiDiscrete, MultiBinary    a choice for each entry; entries of unequal counts become arrays of their own
    Box                           a number for each entry, see `rescale`
    Dict, Tuple                   their members, by name or number; the environment gets its own structure back
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from dreamer_agent.envs.inverse import UNBOUNDED, decoded, decoded_mask, unscaled
from dreamer_agent.envs.routing import Route, check_box, check_not_empty, route
from dreamer_agent.errors import SpaceError
from dreamer_agent.specs import ArraySpec, Specs, is_mask

Path = tuple[str | int, ...]


class ObservationCodec:
    """Encodes batches of an observation space as named arrays `[E, *shape]`.

    `wishes` overrides the rules of `routing` by key. Members called "action_mask" are left out: they are no
    observation but the legal actions (`masks`).
    """

    def __init__(self, space: gym.Space, wishes: Mapping[str, str] | None = None):
        self.space = space
        self.paths: dict[str, Path] = {}
        self.routes: dict[str, Route] = {}
        wishes = wishes or {}
        for path, member in _members(space, ()):
            key = _key(path, "obs")
            if is_mask(key):
                continue
            if key in self.routes:
                raise SpaceError(f"The observation space has two arrays called '{key}': rename one of them.")
            self.paths[key] = path
            self.routes[key] = route(member, f"The observation '{key}'", wishes.get(key))
        if not self.routes:
            raise SpaceError(
                f"The observation space {space} holds nothing to observe: at least one array is needed."
            )
        unknown = sorted(set(wishes) - set(self.routes))
        if unknown:
            raise SpaceError(
                f"env.route names the observation '{unknown[0]}', but there are {', '.join(self.routes)}."
            )

    @property
    def specs(self) -> Specs:
        """The arrays by name."""
        return {key: found.spec for key, found in self.routes.items()}

    def encode(self, batch: Any) -> dict[str, np.ndarray]:
        """A batch of the space (arrays `[E, ...]`, nested like it) as named arrays."""
        return {key: found.encode(_get(batch, self.paths[key])) for key, found in self.routes.items()}

    def decode(self, named: Mapping[str, np.ndarray]) -> Any:
        """Named arrays `[E, *shape]` as a batch of the space, in its own structure, types and bounds.

        What was encoded comes back as it was, but for pixels that are floats; numbers beyond the bounds are
        brought to them. Masks that are members of the space are filled from `named`, too.
        """
        filled: dict[Path, Any] = {}
        for path, member in _members(self.space, ()):
            key = _key(path, "obs")
            filled[path] = (
                decoded_mask(key, member, named.get(key))
                if is_mask(key)
                else decoded(self.routes[key], member, named[key])
            )
        return _build(self.space, (), filled)


@dataclass(frozen=True)
class Choice:
    """One array of an action: where it lies in the space (`path`, and `entry` of a split MultiDiscrete)."""

    path: Path
    spec: ArraySpec
    space: gym.Space
    entry: tuple[int, ...] | None = None
    start: Any = 0


class ActionCodec:
    """Decodes named arrays `[E, *shape]` into batches of an action space."""

    def __init__(self, space: gym.Space):
        self.space = space
        self.choices: dict[str, Choice] = {}
        for path, member in _members(space, ()):
            for choice in _choices(member, path):
                key = _key((*path, *(choice.entry or ())), "action")
                if key in self.choices:
                    raise SpaceError(f"The action space has two arrays called '{key}': rename one of them.")
                self.choices[key] = choice
        if not self.choices:
            raise SpaceError(f"The action space {space} holds nothing to do: at least one array is needed.")

    @property
    def specs(self) -> Specs:
        """The arrays by name."""
        return {key: choice.spec for key, choice in self.choices.items()}

    def decode(self, actions: Mapping[str, np.ndarray]) -> Any:
        """Named arrays as a batch of the space, in its own structure, shapes and types."""
        filled: dict[Path, np.ndarray] = {}
        for key, choice in self.choices.items():
            value = np.asarray(actions[key])
            if isinstance(choice.space, gym.spaces.Box):
                value = rescale(value, choice.space)
            else:
                value = value + choice.start
            if choice.entry is None:
                filled[choice.path] = value.astype(choice.space.dtype)
                continue
            empty = np.zeros((len(value), *choice.space.shape), choice.space.dtype)  # type: ignore[misc]
            index: Any = (slice(None), *choice.entry)
            filled.setdefault(choice.path, empty)[index] = value
        return _build(self.space, (), filled)

    def encode(self, batch: Any) -> dict[str, np.ndarray]:
        """The inverse of `decode`: a batch of the space as named arrays `[E, *shape]`.

        What lies beyond two bounds is brought to them. Raises `SpaceError` for what does not fit.
        """
        out = {}
        for key, choice in self.choices.items():
            try:
                value = np.asarray(_get(batch, choice.path))
                if choice.entry is not None:
                    index: Any = (slice(None), *choice.entry)
                    value = value[index]
                box = isinstance(choice.space, gym.spaces.Box)
                value = unscaled(value, choice.space) if box else value - choice.start
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise SpaceError(
                    f"The action does not fit {self.space} ({type(error).__name__}: {error}): give one of it."
                ) from error
            out[key] = _checked_action(key, choice.spec, value)
        return out


def _checked_action(key: str, spec: ArraySpec, value: np.ndarray) -> np.ndarray:
    if value.shape[1:] != spec.shape:
        raise SpaceError(f"The action '{key}' should have the shape {spec.shape}, got {value.shape[1:]}.")
    if not np.isfinite(value).all():
        raise SpaceError(f"The action '{key}' holds NaN or infinity; expected finite numbers.")
    if spec.kind == "discrete" and value.size and (value.min() < 0 or value.max() >= spec.classes):
        wrong = value.min() if value.min() < 0 else value.max()
        raise SpaceError(f"The action '{key}' is {wrong} (counted from its lowest), outside of {spec.classes}.")
    return value.astype(spec.dtype)


def rescale(action: np.ndarray, space: gym.spaces.Box) -> np.ndarray:
    """The policy's numbers `[E, ...]`, mostly in [-1, 1], within the bounds of `space`.

    Between two finite bounds, [-1, 1] is stretched over them and what lies outside is clipped. With a single
    bound, -1 (below) or 1 (above) falls on it and the other side is open. Without bounds, or with bounds beyond
    1e10, the number is taken as it is. Integers are rounded to the nearest.
    """
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    below = space.bounded_below & (low > -UNBOUNDED)  # not isfinite: infinite bounds of integers are finite
    above = space.bounded_above & (high < UNBOUNDED)
    both = below & above
    low_, high_ = np.where(below, low, 0.0), np.where(above, high, 0.0)
    action = np.asarray(action, np.float64)
    share = (np.clip(action, -1, 1) + 1) / 2
    scaled = np.where(both, low_ * (1 - share) + high_ * share, action)
    scaled = np.where(below & ~above, low_ + np.maximum(action + 1, 0), scaled)
    scaled = np.where(above & ~below, high_ + np.minimum(action - 1, 0), scaled)
    scaled = np.clip(scaled, low, high)
    return scaled if np.issubdtype(space.dtype, np.floating) else np.rint(scaled)


def _members(space: gym.Space, path: Path) -> Iterator[tuple[Path, gym.Space]]:
    """Every space without members, with its path."""
    if isinstance(space, gym.spaces.Dict):
        for key, member in space.spaces.items():
            yield from _members(member, (*path, key))
    elif isinstance(space, gym.spaces.Tuple):
        for index, member in enumerate(space.spaces):
            yield from _members(member, (*path, index))
    else:
        yield path, space


def _choices(space: gym.Space, path: Path) -> Iterator[Choice]:
    where = f"The action '{_key(path, 'action')}'"
    if isinstance(space, gym.spaces.Box):
        check_box(space, where)
        yield Choice(path, ArraySpec("continuous", space.shape), space)
    elif isinstance(space, gym.spaces.Discrete):
        yield Choice(path, ArraySpec("discrete", (), int(space.n)), space, start=space.start)
    elif isinstance(space, gym.spaces.MultiBinary):
        check_not_empty(space, where)
        yield Choice(path, ArraySpec("discrete", tuple(space.shape), 2), space)
    elif isinstance(space, gym.spaces.MultiDiscrete):
        check_not_empty(space, where)
        counts = space.nvec
        if (counts == counts.flat[0]).all():
            yield Choice(path, ArraySpec("discrete", counts.shape, int(counts.flat[0])), space, start=space.start)
            return
        for entry in np.ndindex(counts.shape):
            spec = ArraySpec("discrete", (), int(counts[entry]))
            yield Choice(path, spec, space, entry, space.start[entry])
    else:
        raise SpaceError(
            f"{where} is a {type(space).__name__}, which a policy cannot fill: wrap the environment so that it "
            "takes Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these."
        )


def _key(path: Path, alone: str) -> str:
    return "/".join(map(str, path)) or alone


def _get(tree: Any, path: Path) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _build(space: gym.Space, path: Path, filled: dict) -> Any:
    if isinstance(space, gym.spaces.Dict):
        return {key: _build(member, (*path, key), filled) for key, member in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_build(member, (*path, i), filled) for i, member in enumerate(space.spaces))
    return filled[path]


def as_array(value: Any) -> np.ndarray | None:
    """`value` as an array; None if it is ragged."""
    try:
        return np.asarray(value)
    except ValueError:
        return None
