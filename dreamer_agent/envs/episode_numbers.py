"""What environments report of an episode beside its return and length: numbers by name.

An environment gives them in the info of the last step of an episode, as a dict `info["episode_numbers"]`; numbers
under that key at other steps are not looked at. A flag `success` or `is_success` of that info counts as a number
"success", too. A number is one finite number or boolean of any type; beyond ±1e30 it becomes that. What is none,
and what has one of the names `TAKEN`, is left out, with one warning for each name: a log is no reason to cut an
episode.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dreamer_agent.envs.protocol import LARGEST_REWARD
from dreamer_agent.envs.spaces import as_array

NUMBERS = "episode_numbers"
FLAGS = ("success", "is_success")  # the first one that is there counts
TAKEN = ("return", "length", "count")  # what the run itself says of episodes


class Unfit(NamedTuple):
    """In place of what was reported and cannot be logged: why not, to be read after its name."""

    why: str


def numbers_of(info: Mapping[str, Any]) -> dict[str, float | Unfit]:
    """What the info of the last step of one environment reports, in types that can be sent to another process."""
    flags = [info[flag] for flag in FLAGS if info.get(flag) is not None]
    given = info.get(NUMBERS)
    if isinstance(given, Unfit):
        given = {NUMBERS: given}
    elif given is not None and not isinstance(given, Mapping):
        given = {NUMBERS: Unfit(f"is {_described(given)}, not a dict of numbers")}
    reported = {**({"success": flags[0]} if flags else {}), **(given or {})}
    return {str(name): _number(str(name), value) for name, value in reported.items()}


class EpisodeNumbers:
    """Reads the numbers of episodes from the infos of `num_envs` environments stepped together."""

    def __init__(self, num_envs: int):
        self.num_envs = num_envs
        self.warned: set[str] = set()

    def read(self, info: Any, ended: np.ndarray) -> dict[str, np.ndarray] | None:
        """Those of the environments whose episode `ended` `[E]`, as `Rows.numbers`.

        `info` is that of their last steps, in gymnasium's form for vector environments, or a list of infos.
        """
        infos, found = _by_env(info, self.num_envs), dict[str, np.ndarray]()
        for index in np.flatnonzero(ended):
            for name, value in numbers_of(infos[index]).items():
                if isinstance(value, Unfit):
                    self._warn(name, value.why)
                else:
                    found.setdefault(name, np.full(self.num_envs, np.nan))[index] = value
        return found or None

    def _warn(self, name: str, why: str) -> None:
        if name not in self.warned:
            self.warned.add(name)
            warnings.warn(
                f"What an environment reports of an episode as '{name}' is left out, since it {why}: mend its "
                f"info['{NUMBERS}'], a dict of numbers by name.",
                stacklevel=3,
            )


def _number(name: str, value: Any) -> float | Unfit:
    if isinstance(value, Unfit):
        return value
    if name in TAKEN:
        return Unfit("has a name that the run itself uses")
    array = as_array(value)
    if array is None or array.size != 1 or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        return Unfit(f"is {_described(value)}, not one finite number")
    return float(np.clip(array.astype(np.float64).item(), -LARGEST_REWARD, LARGEST_REWARD))


def _described(value: Any) -> str:
    """What kind of thing it is; the same words for the next of its kind, so that they are said once."""
    array = as_array(value)
    if isinstance(value, str | np.str_):
        return "a text"
    if array is not None and array.dtype.kind in "biuf" and array.size != 1:
        return f"an array of the shape {list(array.shape)}"
    if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
        return "NaN or infinity"
    return f"of the type {type(value).__name__}"


def _by_env(info: Any, count: int) -> list[dict[str, Any]]:
    """What concerns us of the infos of all environments, one dict for each."""
    if not isinstance(info, Mapping):  # infos one by one, as gymnasium's final_info was before 1.0
        return [dict(one or {}) for one in info]
    keys = (NUMBERS, *FLAGS)
    return _unbatched({key: info[key] for name in keys for key in (name, f"_{name}") if key in info}, count)


def _unbatched(batch: Any, count: int) -> list[Any]:
    """One tree for each environment; of a dict without what gymnasium's flags "_name" say was not given."""
    if isinstance(batch, Mapping):
        rows: list[dict[str, Any]] = [{} for _ in range(count)]
        for name, values in batch.items():
            if not (isinstance(name, str) and name[:1] == "_" and name[1:] in batch):
                given = batch.get(f"_{name}")
                if given is None or len(given) != count:
                    given = np.ones(count, bool)
                for row, value, there in zip(rows, _unbatched(values, count), given, strict=True):
                    row |= {name: value} if there else {}
        return rows
    sized = hasattr(batch, "__len__") and not isinstance(batch, str | bytes)
    if not sized or (isinstance(batch, np.ndarray) and not batch.ndim) or len(batch) != count:
        return [Unfit(f"is {_described(batch)} for {count} environments together")] * count
    return list(batch)
