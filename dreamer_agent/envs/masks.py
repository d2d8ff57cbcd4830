"""Legal actions: masks as environments give them, and as observations of the reserved name "action_mask".

An environment tells them in `info["action_mask"]` of reset and step, or as a member "action_mask" of a Dict
observation space, in the form that `space.sample(mask)` of gymnasium takes: for Discrete an array of zeros and
ones `[n]`, for MultiDiscrete one such array for each entry (or all of them side by side), for Dict and Tuple a
mask for each member; members left out are free. For MultiBinary it is 0 or 1 where only that is legal, else 2;
or `[..., 2]`, whether zero and one are legal. Observations may also hold masks by the names of the arrays that
they belong to ("action_mask/left"), as those of JAX-native environments do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from dreamer_agent.envs.spaces import ActionCodec, Choice, as_array
from dreamer_agent.errors import EnvironmentFault
from dreamer_agent.specs import MASK, ArraySpec, is_mask, mask_key, mask_specs

Masks = dict[str, np.ndarray]


class MaskCodec:
    """Encodes masks of an action space as named arrays of zeros and ones, int32 `[E, *shape, classes]`."""

    def __init__(self, actions: ActionCodec):
        self.actions = actions
        self.specs: dict[str, ArraySpec] = mask_specs(actions.specs)

    def encode(self, masks: Sequence[Any], last: Sequence[bool] | None = None) -> Masks:
        """One raw mask for each environment; None leaves everything legal.

        Raises `EnvironmentFault` for a wrong form, or where no action is legal although the episode goes on
        (`last` is false): after the last step of an episode nothing needs to be legal.
        """
        rows = [self._one(raw) for raw in masks]
        for index, row in enumerate(rows):
            for key, legal in row.items():
                if not (last is not None and last[index]) and not legal.any(-1).all():
                    raise EnvironmentFault(
                        f"The mask '{key}' leaves no legal action although the episode goes on: end the episode, "
                        "or mend the mask."
                    )
        return {key: np.stack([row[key] for row in rows]).astype(np.int32) for key in self.specs}

    def _one(self, raw: Any) -> Masks:
        out = {}
        named = isinstance(raw, Mapping) and any(is_mask(str(name)) for name in raw)
        whole = len(self.actions.choices) == 1 and not isinstance(raw, Mapping)  # nothing to tell apart
        for key, choice in self.actions.choices.items():
            if choice.spec.kind == "discrete":
                shape = (*choice.spec.shape, choice.spec.classes)
                given = raw.get(mask_key(key)) if named else raw if whole else _member(raw, choice.path)
                out[mask_key(key)] = np.ones(shape, bool) if given is None else _legal(key, choice, given, shape)
        return out


def _member(raw: Any, path: tuple) -> Any:
    """The part of a mask that lies at `path`; None where it was left out."""
    for part in path:
        if isinstance(raw, Mapping):
            raw = raw.get(part)
        elif isinstance(raw, tuple | list | np.ndarray) and isinstance(part, int) and part < len(raw):
            raw = raw[part]
        elif raw is not None:
            raise EnvironmentFault(
                f"The action mask should be nested like the action space, with '{part}' inside; got {raw!r:.80}."
            )
    return raw


def _legal(key: str, choice: Choice, raw: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A raw mask of one member as booleans of `shape`."""
    value = _entries(choice, raw)
    if (
        value is None
        or value.shape != shape
        or value.dtype.kind not in "biuf"
        or not np.isin(value, (0, 1)).all()
    ):
        raise EnvironmentFault(
            f"The mask of the action '{key}' should hold zeros and ones of the shape {list(shape)}, "
            f"got {_describe(raw)}: mend the environment's mask."
        )
    return value.astype(bool)


def _entries(choice: Choice, raw: Any) -> np.ndarray | None:
    """The zeros and ones for one array of an action; None where the form is wrong."""
    space, array = choice.space, as_array(raw)
    if isinstance(space, gym.spaces.MultiBinary) and array is not None and array.shape == space.shape:
        return np.stack([array != 1, array != 0], -1) if np.isin(array, (0, 1, 2)).all() else None
    if not isinstance(space, gym.spaces.MultiDiscrete):
        return array
    counts = space.nvec.ravel()
    if array is not None and array.ndim == 1 and array.dtype != object and len(array) == counts.sum():
        parts: list[Any] = np.split(array, np.cumsum(counts)[:-1])
    else:
        parts = _flattened(raw, len(space.nvec.shape))
    if len(parts) != len(counts) or any(np.shape(part) != (n,) for part, n in zip(parts, counts, strict=True)):
        return None
    if choice.entry is not None:
        return np.asarray(parts[int(np.ravel_multi_index(choice.entry, space.nvec.shape))])
    return np.stack([np.asarray(part) for part in parts]).reshape(*choice.spec.shape, choice.spec.classes)


def _flattened(raw: Any, depth: int) -> list[Any]:
    """The parts of a mask that is nested `depth` times, like the entries of a MultiDiscrete."""
    if not isinstance(raw, tuple | list | np.ndarray):
        return []
    return list(raw) if depth == 1 else [part for row in raw for part in _flattened(row, depth - 1)]


def masks_in_obs(obs: Any) -> list[Any] | None:
    """The raw masks in a batch of a Dict observation, one for each environment; None if it has none."""
    found = {key: value for key, value in obs.items() if is_mask(key)} if isinstance(obs, Mapping) else {}
    if not found:
        return None
    return _unbatch(found[MASK]) if set(found) == {MASK} else _unbatch(found)


def masks_in_info(info: Mapping[str, Any], count: int) -> list[Any] | None:
    """The raw masks in the info of a gymnasium vector environment; None where no environment gave one."""
    if MASK not in info:
        return None
    present = np.asarray(info.get(f"_{MASK}", np.ones(count, bool)))
    if isinstance(info[MASK], Mapping) and not info[MASK]:
        return [None] * count  # an empty dict: nothing is masked
    rows = _unbatch(info[MASK])
    return [rows[index] if present[index] else None for index in range(count)]


def _unbatch(batch: Any) -> list[Any]:
    """A batched tree as a list of trees; None where gymnasium's flags "_name" in infos say so."""
    if isinstance(batch, Mapping):
        members = {}
        for name, value in batch.items():
            if str(name).startswith("_") and str(name)[1:] in batch:
                continue
            rows = _unbatch(value)
            flags = batch.get(f"_{name}", [True] * len(rows))
            members[name] = [row if flag else None for row, flag in zip(rows, flags, strict=True)]
        return [dict(zip(members, row, strict=True)) for row in zip(*members.values(), strict=True)]
    if isinstance(batch, tuple):
        return [tuple(row) for row in zip(*map(_unbatch, batch), strict=True)]
    return list(batch)


def _describe(raw: Any) -> str:
    array = as_array(raw)
    if array is None or array.ndim == 0:
        return f"{raw!r:.80}"
    return f"{array.dtype} of the shape {list(array.shape)}"
