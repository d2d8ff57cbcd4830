"""Between gymnasium spaces and the dicts of arrays that the library works with.

A `SpaceCodec` flattens one (possibly nested) space into named arrays and back. Names join the path with
"/"; a space without structure is called "obs" or "action". How each space enters:

    Box, uint8, three axes        an image [height, width, channels]
    other Box                     continuous float32, of any rank
    Discrete, MultiDiscrete,      integers from zero (`start` is taken off); MultiDiscrete with unequal
    MultiBinary                   classes becomes one array for each entry
    Dict, Tuple                   their members, by name or number

A continuous action of the policy lies in [-1, 1] and is rescaled to the bounds of its Box where both are
finite, clipped before. An entry without bounds takes the policy's number as it is; one with a single bound
is clipped at it. Boxes of integers get the nearest one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from dreamer_agent.errors import SpaceError
from dreamer_agent.specs import ArraySpec, Specs


@dataclass(frozen=True)
class Leaf:
    """One array of a space: where it lies (`path`, and `entry` of a split MultiDiscrete) and what it is."""

    path: tuple[str | int, ...]
    spec: ArraySpec
    space: gym.Space
    entry: int | None = None
    start: Any = 0


class SpaceCodec:
    """Encodes observations of a space, or decodes actions into it; arrays have a leading axis `[E]`."""

    def __init__(self, space: gym.Space, role: str, actions: bool = False):
        self.space, self.actions = space, actions
        self.leaves: dict[str, Leaf] = {}
        for leaf in _leaves(space, (), role, actions):
            key = _name(leaf, role)
            if key in self.leaves:
                raise SpaceError(f"The {role} space has two arrays called '{key}': rename one of them.")
            self.leaves[key] = leaf
        if not self.leaves:
            raise SpaceError(f"The {role} space {space} holds nothing: at least one array is needed.")

    @property
    def specs(self) -> Specs:
        """The arrays by name."""
        return {key: leaf.spec for key, leaf in self.leaves.items()}

    def encode(self, batch: Any) -> dict[str, np.ndarray]:
        """A batch of the space (arrays `[E, ...]`, nested like it) as named arrays."""
        out = {}
        for key, leaf in self.leaves.items():
            value = np.asarray(_get(batch, leaf.path))
            if leaf.spec.kind == "discrete":
                value = value - leaf.start
            if leaf.entry is not None:
                value = value[:, leaf.entry]
            out[key] = value.astype(leaf.spec.dtype)
        return out

    def decode(self, actions: dict[str, np.ndarray]) -> Any:
        """Named arrays `[E, ...]` as a batch of the space, in its own structure and types."""
        filled: dict[tuple[str | int, ...], np.ndarray] = {}
        for key, leaf in self.leaves.items():
            value = np.asarray(actions[key])
            if isinstance(leaf.space, gym.spaces.Box):
                value = rescale(value, leaf.space)
            elif leaf.entry is not None:
                empty = np.zeros((len(value), *leaf.space.shape), leaf.space.dtype)  # type: ignore[misc]
                filled.setdefault(leaf.path, empty)[:, leaf.entry] = value + leaf.start
                continue
            else:
                value = value + leaf.start
            filled[leaf.path] = value.astype(leaf.space.dtype)
        return _build(self.space, (), filled)


def rescale(action: np.ndarray, space: gym.spaces.Box) -> np.ndarray:
    """The policy's numbers `[E, ...]` in the bounds of `space` (see the module's rule)."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    bounded = space.bounded_below & space.bounded_above  # not isfinite: infinite bounds of integers are finite
    low_, high_ = np.where(bounded, low, 0.0), np.where(bounded, high, 0.0)
    share = (np.clip(action, -1, 1) + 1) / 2
    scaled = low_ * (1 - share) + high_ * share
    clipped = np.clip(np.where(bounded, scaled, action), low, high)
    return clipped if np.issubdtype(space.dtype, np.floating) else np.rint(clipped)


def _leaves(space: gym.Space, path: tuple[str | int, ...], role: str, actions: bool) -> Iterator[Leaf]:
    if isinstance(space, gym.spaces.Dict):
        for key, member in space.spaces.items():
            yield from _leaves(member, (*path, key), role, actions)
    elif isinstance(space, gym.spaces.Tuple):
        for index, member in enumerate(space.spaces):
            yield from _leaves(member, (*path, index), role, actions)
    elif isinstance(space, gym.spaces.Box):
        yield Leaf(path, _box_spec(space, path, role, actions), space)
    elif isinstance(space, gym.spaces.Discrete):
        yield Leaf(path, ArraySpec("discrete", (), int(space.n)), space, start=space.start)
    elif isinstance(space, gym.spaces.MultiBinary):
        _check_not_empty(space, path, role)
        yield Leaf(path, ArraySpec("discrete", space.shape, 2), space)
    elif isinstance(space, gym.spaces.MultiDiscrete):
        yield from _multi_discrete(space, path, role)
    else:
        raise SpaceError(
            f"The {role} space{_at(path)} is a {type(space).__name__}, which cannot be encoded: wrap the "
            "environment so that it gives Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these."
        )


def _multi_discrete(space: gym.spaces.MultiDiscrete, path: tuple[str | int, ...], role: str) -> Iterator[Leaf]:
    _check_not_empty(space, path, role)
    classes = space.nvec
    if len(set(classes.ravel().tolist())) == 1:
        yield Leaf(path, ArraySpec("discrete", classes.shape, int(classes.flat[0])), space, start=space.start)
    elif classes.ndim == 1:
        for index, count in enumerate(classes):
            spec = ArraySpec("discrete", (), int(count))
            yield Leaf(path, spec, space, entry=index, start=space.start[index])
    else:
        raise SpaceError(
            f"The {role} space{_at(path)} is a MultiDiscrete of shape {classes.shape} with unequal classes: "
            "flatten it to one axis in a wrapper."
        )


def _box_spec(space: gym.spaces.Box, path: tuple[str | int, ...], role: str, actions: bool) -> ArraySpec:
    if not (np.issubdtype(space.dtype, np.number) or space.dtype == bool):
        raise SpaceError(f"The {role} space{_at(path)} has the type {space.dtype}; expected numbers.")
    _check_not_empty(space, path, role)
    if np.any(space.low > space.high):
        raise SpaceError(f"The {role} space{_at(path)} has a lower bound above its upper bound: swap them.")
    if space.dtype == np.uint8 and len(space.shape) == 3 and not actions:
        return ArraySpec("image", space.shape)
    return ArraySpec("continuous", space.shape)


def _check_not_empty(space: gym.Space, path: tuple[str | int, ...], role: str) -> None:
    if 0 in space.shape:  # type: ignore[operator]
        raise SpaceError(f"The {role} space{_at(path)} has the empty shape {space.shape}: remove it.")


def _name(leaf: Leaf, role: str) -> str:
    parts = [*leaf.path, *([] if leaf.entry is None else [leaf.entry])]
    return "/".join(map(str, parts)) or {"observation": "obs"}.get(role, role)


def _at(path: tuple[str | int, ...]) -> str:
    return f" at '{'/'.join(map(str, path))}'" if path else ""


def _get(tree: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _build(space: gym.Space, path: tuple[str | int, ...], filled: dict) -> Any:
    if isinstance(space, gym.spaces.Dict):
        return {key: _build(member, (*path, key), filled) for key, member in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_build(member, (*path, i), filled) for i, member in enumerate(space.spaces))
    return filled[path]
