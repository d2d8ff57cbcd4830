"""The states of simulators that are not Python's, as plain data: MuJoCo's physics and the Atari emulator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

CERTAIN = 1e-15  # a chance that is taken for none


def get_mujoco(env: Any) -> dict[str, Any]:
    """The physics of a gymnasium `MujocoEnv`.

    With everything that was calculated from it, which some tasks look at before the next step.
    """
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(env.model, kind))
    mujoco.mj_getState(env.model, env.data, state, kind)
    return {
        "state": state,
        "derived": {name: np.array(getattr(env.data, name)) for name in _fixed_arrays(env.model)},
    }


def set_mujoco(env: Any, saved: dict[str, Any]) -> None:
    """The inverse of `get_mujoco`; `ValueError` or `TypeError` where the model is another one."""
    import mujoco

    for name in _fixed_arrays(env.model):
        getattr(env.data, name)[...] = saved["derived"][name]
    mujoco.mj_setState(env.model, env.data, saved["state"], mujoco.mjtState.mjSTATE_INTEGRATION)


def _fixed_arrays(model: Any) -> list[str]:
    """The arrays of MuJoCo's data whose size does not depend on contacts; every step makes those that do."""
    import mujoco

    data = mujoco.MjData(model)
    arrays = {name: getattr(data, name, None) for name in dir(data) if not name.startswith("_")}
    return [name for name, value in arrays.items() if isinstance(value, np.ndarray) and value.size]


def get_atari(env: Any) -> dict[str, Any]:
    """The emulator of an `ale_py` environment.

    Raises `TypeError` where what it may repeat cannot be found out.
    """
    state = env.ale.cloneState(include_rng=True)
    return {"state": _bytes(env.ale), "held": _held_action(env, state)}


def set_atari(env: Any, saved: dict[str, Any]) -> None:
    """The inverse of `get_atari`."""
    from ale_py import ALEState

    _hold(env.ale, saved["held"])
    env.ale.restoreState(ALEState(saved["state"]))


def _bytes(ale: Any) -> bytes:
    return bytes(ale.cloneState(include_rng=True).__getstate__())


def _held_action(env: Any, state: Any) -> int:
    """The number of the action that sticky actions may repeat, which is no part of the emulator's state.

    The emulator goes on until something else is certainly held, once with what is held now and then with each
    action in turn: the first with which it goes the same way takes its place, with no difference from there on.
    """
    ale, frames = env.ale, _forgotten_after(env.ale)
    if not frames:
        return 0
    if env.continuous:
        raise TypeError("continuous action that it may repeat")
    wanted = [_frame(ale) for _ in range(frames)]
    for number in range(len(ale.getLegalActionSet())):
        _hold(ale, number)
        ale.restoreState(state)
        if all(_frame(ale) == after for after in wanted):
            _hold(ale, number)
            ale.restoreState(state)
            return number
    raise TypeError("held action that is none of its own")


def _frame(ale: Any) -> bytes:
    """The state after one more frame."""
    ale.act(ale.getLegalActionSet()[0])
    return _bytes(ale)


def _hold(ale: Any, number: int) -> None:
    """Let sticky actions repeat this one, whatever else it does to the emulator."""
    for _ in range(_forgotten_after(ale)):
        ale.act(ale.getLegalActionSet()[number])


def _forgotten_after(ale: Any) -> int:
    """Frames after which a new action was certainly taken; none where actions are not sticky."""
    chance = ale.getFloat("repeat_action_probability")
    if chance >= 1:
        raise TypeError("first action, which it repeats forever")
    return math.ceil(math.log(CERTAIN) / math.log(chance)) if chance else 0
