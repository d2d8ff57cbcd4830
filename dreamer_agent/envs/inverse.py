"""The way back: from what the networks work with to an environment's own values, and from its actions to theirs.

An environment that a model imagines needs it: it shows observations that were never encoded.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from dreamer_agent.envs.routing import LAYOUTS, Route
from dreamer_agent.errors import SpaceError

UNBOUNDED = 1e10  # a larger bound of an action counts as none


def decoded(found: Route, space: gym.Space, value: np.ndarray) -> Any:
    """Arrays `[E, *spec.shape]` as a batch of `space`'s own values; the inverse of `found.encode`.

    Numbers are rounded where the space holds integers, and brought within its bounds.
    """
    value = np.asarray(value)
    if isinstance(space, gym.spaces.Text):
        letters = ["", *sorted(space.character_set)]
        return tuple("".join(letters[index] for index in row) for row in value)
    if found.layout:
        assert isinstance(space, gym.spaces.Box)
        return _fitted(_unfolded(found.layout, space, value), space)
    if found.spec.kind == "discrete":
        value = value.astype(np.int64) + _bounds(space)[0].astype(np.int64)
    return _fitted(value, space)


def decoded_mask(key: str, space: gym.Space, value: np.ndarray | None) -> np.ndarray:
    """The mask `value` `[E, ...]` as a member of an observation; `SpaceError` for one of another form."""
    if value is None or tuple(value.shape[1:]) != space.shape:
        raise SpaceError(
            f"The observation '{key}', {space}, is a mask in a form that cannot be imagined: give masks in "
            "info['action_mask'] or by the names of the actions they belong to, and train again."
        )
    return _fitted(value, space)


def unscaled(value: np.ndarray, space: gym.Space) -> np.ndarray:
    """The inverse of `spaces.rescale`: actions `[E, ...]` of a Box as the policy's numbers."""
    assert isinstance(space, gym.spaces.Box)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    below = space.bounded_below & (low > -UNBOUNDED)
    above = space.bounded_above & (high < UNBOUNDED)
    value = np.asarray(value, np.float64)
    width = np.where(below & above, np.maximum(high - low, 1e-12), 1.0)
    out = np.where(below & above, 2 * (value - low) / width - 1, value)
    out = np.where(below & ~above, value - low - 1, out)
    out = np.where(above & ~below, value - high + 1, out)
    return np.where(below & above, np.clip(out, -1.0, 1.0), out)


def _unfolded(layout: str, space: gym.spaces.Box, value: np.ndarray) -> np.ndarray:
    """Pixels `[E, H, W, C]` with the axes and the scale of `space`."""
    order = LAYOUTS[layout]
    sides = [space.shape[axis] for axis in order]
    back = np.argsort(order)
    value = value.reshape(len(value), *sides).transpose(0, *(axis + 1 for axis in back))
    low, span = float(space.low.min()), float(space.high.max()) - float(space.low.min())
    return value if (low, span) == (0.0, 255.0) else low + value.astype(np.float64) * (span / 255)


def _fitted(value: np.ndarray, space: gym.Space) -> np.ndarray:
    """`value` within the bounds of `space`, in its type; always a copy."""
    low, high = _bounds(space)
    if np.dtype(space.dtype).kind in "biu" and value.dtype.kind == "f":
        value = np.rint(value)
    return np.clip(value, low, high).astype(space.dtype)


def _bounds(space: gym.Space) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest value of every entry."""
    if isinstance(space, gym.spaces.Box):
        return space.low, space.high
    if isinstance(space, gym.spaces.Discrete):
        return np.asarray(space.start), np.asarray(space.start + space.n - 1)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return np.asarray(space.start), space.start + space.nvec - 1
    return np.zeros(space.shape or (), np.int64), np.ones(space.shape or (), np.int64)
