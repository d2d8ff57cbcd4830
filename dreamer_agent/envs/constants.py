"""What the constructor of an environment decided and no step changes: a state fits only where it is the same."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from dreamer_agent.envs.plain import pack

DRAWING = ("screen", "isopen", "clock", "cell_size", "window", "_np_random")  # beginnings of names
DRAWN = ("cam_", "light_", "mat_", "mesh_tex", "name", "skin_", "tex_", "vis")  # those of a MuJoCo model

Constants = dict[str, Any]


def constants(env: Any, changing: tuple[str, ...]) -> Constants:
    """The numbers that `env` has as attributes, without those `changing`, and the transitions of toy text."""
    found = {
        name: pack(value)
        for name, value in vars(env).items()
        if name not in changing and not name.startswith(DRAWING) and _is_number(value)
    }
    if isinstance(vars(env).get("P"), dict):
        found["P"] = _digest(np.array(list(_transitions(env.P)), np.float64))
    return found


def constants_of_model(model: Any) -> Constants:
    """Digests of the numbers of a MuJoCo model, but for those that only pictures depend on."""
    found = {}
    for owner, prefix in ((model, ""), (model.opt, "opt.")):
        for name in dir(owner):
            value = None if name.startswith(("_", *DRAWN)) else getattr(owner, name, None)
            if _is_number(value):
                found[f"{prefix}{name}"] = _digest(np.asarray(value))
    return found


def difference(saved: Constants, now: Constants) -> list[str]:
    """The names of the constants that are not the same, bit by bit."""
    return sorted(name for name in {*saved, *now} if not _same(saved.get(name), now.get(name)))


def _is_number(value: Any) -> bool:
    """Whether it is a number or an array of numbers or bytes, such as a map."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufS"
    return isinstance(value, bool | int | float | np.number | np.bool_)


def _transitions(table: dict[Any, Any]) -> Iterator[tuple]:
    """The rows (state, chance, next state, reward, end) of the table of a toy text."""
    for state, actions in table.items():
        for rows in actions.values():
            yield from ((state, *row) for row in rows)


def _digest(value: np.ndarray) -> str:
    return f"{value.dtype.str}{list(value.shape)} {zlib.crc32(np.ascontiguousarray(value).tobytes()):08x}"


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return False
    a, b = (np.asarray(one["scalar"] if isinstance(one, dict) else one) for one in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
