"""The state of a gymnasium environment as plain data, wrapper by wrapper from the outside in.

An environment continues from it bit by bit, also one that was made in another process and never reset. What is
known of each class, exact classes only, stands in the tables here; where one layer is unknown, there is no state.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym

from dreamer_agent.envs.constants import Constants, constants, constants_of_model, difference
from dreamer_agent.envs.plain import pack, unpack
from dreamer_agent.envs.simulators import get_atari, get_mujoco, set_atari, set_mujoco
from dreamer_agent.errors import RunDirectoryError

State = dict[str, Any]
RANDOM = ("_np_random", "_np_random_seed")  # what gymnasium.Env.reset(seed=...) makes, in every environment

_CLASSIC, _TOY = "gymnasium.envs.classic_control", "gymnasium.envs.toy_text"
_WRAPPERS = "gymnasium.wrappers"
MUJOCO = ("goal", "goal_pos", "cylinder_pos")  # what tasks of MuJoCo keep beside the physics
_CHECKED = ("checked_reset", "checked_step", "checked_data_reuse")

# What of an object changes while it is stepped; a dot leads into a member.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "dreamer_agent.envs.checked:CheckedEnv": (),
    "dreamer_agent.envs.suites.atari:IdleStart": (),
    f"{_CLASSIC}.acrobot:AcrobotEnv": ("state",),
    f"{_CLASSIC}.cartpole:CartPoleEnv": ("state", "steps_beyond_terminated"),
    f"{_CLASSIC}.continuous_mountain_car:Continuous_MountainCarEnv": ("state",),
    f"{_CLASSIC}.mountain_car:MountainCarEnv": ("state",),
    f"{_CLASSIC}.pendulum:PendulumEnv": ("state", "last_u"),
    f"{_TOY}.blackjack:BlackjackEnv": (
        "dealer", "player", "dealer_top_card_suit", "dealer_top_card_value_str",
    ),
    f"{_TOY}.cliffwalking:CliffWalkingEnv": ("s", "lastaction"),
    f"{_TOY}.frozen_lake:FrozenLakeEnv": ("s", "lastaction"),
    f"{_TOY}.taxi:TaxiEnv": ("s", "lastaction", "fickle_step", "taxi_orientation"),
    f"{_WRAPPERS}.atari_preprocessing:AtariPreprocessing": ("obs_buffer", "lives", "game_over"),
    f"{_WRAPPERS}.common:Autoreset": ("autoreset",),
    f"{_WRAPPERS}.common:OrderEnforcing": ("_has_reset",),
    f"{_WRAPPERS}.common:PassiveEnvChecker": _CHECKED,
    f"{_WRAPPERS}.common:RecordEpisodeStatistics": ("episode_count", "episode_returns", "episode_lengths"),
    f"{_WRAPPERS}.common:TimeLimit": ("_elapsed_steps",),
    f"{_WRAPPERS}.stateful_action:RepeatAction": (),
    f"{_WRAPPERS}.stateful_action:StickyAction": (
        "last_action", "is_sticky_actions", "num_repeats", "repeats_taken",
    ),
    f"{_WRAPPERS}.stateful_observation:DelayObservation": ("observation_queue",),
    f"{_WRAPPERS}.stateful_observation:FrameStackObservation": ("obs_queue", "padding_value"),
    f"{_WRAPPERS}.stateful_observation:MaxAndSkipObservation": ("_obs_buffer",),
    f"{_WRAPPERS}.stateful_observation:NormalizeObservation": ("obs_rms.mean", "obs_rms.var", "obs_rms.count"),
    f"{_WRAPPERS}.stateful_observation:TimeAwareObservation": ("timesteps",),
    f"{_WRAPPERS}.stateful_reward:NormalizeReward": (
        "return_rms.mean", "return_rms.var", "return_rms.count", "discounted_reward",
    ),
    **{f"{_WRAPPERS}.transform_action:{name}": () for name in (
        "ClipAction", "DiscretizeAction", "RescaleAction", "TransformAction",
    )},
    **{f"{_WRAPPERS}.transform_observation:{name}": () for name in (
        "DiscretizeObservation", "DtypeObservation", "FilterObservation", "FlattenObservation",
        "GrayscaleObservation", "RescaleObservation", "ReshapeObservation", "ResizeObservation",
        "TransformObservation",
    )},
    **{f"{_WRAPPERS}.transform_reward:{name}": () for name in ("ClipReward", "TransformReward")},
}  # fmt: skip


class _Unknown(Exception):
    """Which layer cannot be captured, in a few words."""


def capture(env: gym.Env) -> State | None:
    """Everything that the steps of `env` from here on depend on, as a tree of plain data (`plain`).

    None where a layer is unknown: `uncaptured` says which.
    """
    try:
        return _capture(env)
    except _Unknown:
        return None


def uncaptured(env: gym.Env) -> str | None:
    """The first layer of `env` that cannot be captured, such as "the wrapper Noise"; None if all of it can."""
    try:
        _capture(env)
    except _Unknown as error:
        return str(error)
    return None


def restore(env: gym.Env, state: State) -> str | None:
    """Bring `env` into a state that `capture` gave, whatever it did before.

    Gives what differs where its constructor made it another one than was saved, by chance for example: nothing
    is changed then. Raises `RunDirectoryError` where the state is one of other layers than `env` has.
    """
    layers = list(_layers(env))
    names, saved = [type(layer).__name__ for layer in layers], [entry["class"] for entry in state["layers"]]
    if names != saved:
        raise RunDirectoryError(
            f"The saved state is that of {' around '.join(saved)}, but the environment is now "
            f"{' around '.join(names)}: resume with the environment that it was saved from."
        )
    for layer, entry in zip(layers, state["layers"], strict=True):
        differing = difference(entry["constants"], _constants(layer)) if "constants" in entry else []
        if differing:
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            return f"{_named(layer)} was made with another {', '.join(differing[:3])}{more}"
    for layer, entry in zip(layers, state["layers"], strict=True):
        try:
            _restore_layer(layer, entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunDirectoryError(
                f"The saved state of {_named(layer)} does not fit it ({type(error).__name__}: {error}): resume "
                "with the environment, and the versions of its packages, that it was saved from."
            ) from error
    return None


def _capture(env: gym.Env) -> State:
    return {"layers": [{"class": type(layer).__name__, **_capture_layer(layer)} for layer in _layers(env)]}


def _layers(env: gym.Env) -> Iterator[Any]:
    """`env`, and what it wraps down to the innermost, or to one that answers for all beneath it."""
    yield env
    while isinstance(env, gym.Wrapper) and not answers(env):
        env = env.env
        yield env


def answers(env: Any) -> bool:
    """Whether it has `get_state()` and `set_state(state)`; with other arguments they are no such pair."""
    return _takes(env, "get_state") and _takes(env, "set_state", None)


def _takes(env: Any, name: str, *arguments: Any) -> bool:
    if not callable(getattr(type(env), name, None)):
        return False
    try:
        inspect.signature(getattr(env, name)).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # not Python's: it does not tell
        return True
    return True


def _named(env: gym.Env) -> str:
    return f"the {'wrapper' if isinstance(env, gym.Wrapper) else 'environment'} {type(env).__name__}"


def _captured_by(env: gym.Env) -> tuple[Callable[[Any], State], Callable[[Any, State], None]] | None:
    """How to capture and restore this one layer by itself; None where it is not known."""
    name = f"{type(env).__module__}:{type(env).__qualname__}"
    if answers(env):
        return _get_own, _set_own
    if name.startswith("gymnasium.envs.mujoco.") and hasattr(env, "model"):
        return _get_mujoco, _set_mujoco
    if name == "ale_py.env:AtariEnv":
        return _get_atari, _set_atari
    if name not in ATTRIBUTES or (name.endswith("FrozenLakeEnv") and not _known_map(env)):
        return None
    return _get_attributes, _set_attributes


def _capture_layer(env: gym.Env) -> State:
    found = _captured_by(env)
    if found is None:
        raise _Unknown(_named(env))
    try:
        return {**found[0](env), "constants": _constants(env)}
    except TypeError as error:
        raise _Unknown(f"{_named(env)}, which holds a {error}") from error
    except _Unknown:
        raise
    except Exception as error:
        raise _Unknown(f"{_named(env)}, whose state gave {type(error).__name__}") from error


def _constants(env: gym.Env) -> Constants:
    """What its constructor decided, where that is known of its class."""
    found, name = _captured_by(env), f"{type(env).__module__}:{type(env).__qualname__}"
    if found == (_get_mujoco, _set_mujoco):
        return constants_of_model(env.model)  # type: ignore[attr-defined]
    if found == (_get_attributes, _set_attributes) and name.startswith((_CLASSIC, _TOY)):
        return constants(env, (*ATTRIBUTES[name], *RANDOM))
    return {}


def _restore_layer(env: gym.Env, entry: State) -> None:
    found = _captured_by(env)
    if found is None:
        raise ValueError("it is not known how to set it")
    found[1](env, entry)


def _get_attributes(env: gym.Env) -> State:
    name = f"{type(env).__module__}:{type(env).__qualname__}"
    return {"attributes": _attributes(env, ATTRIBUTES[name])}


def _set_attributes(env: gym.Env, entry: State) -> None:
    name = f"{type(env).__module__}:{type(env).__qualname__}"
    _put(env, entry["attributes"], ATTRIBUTES[name])


def _attributes(env: gym.Env, names: tuple[str, ...]) -> State:
    """Those of `names` that `env` has already, and its random generator."""
    found = {}
    for name in (*names, *RANDOM):
        *path, last = name.split(".")
        owner: Any = env
        for part in path:
            owner = getattr(owner, part)
        if last in vars(owner):
            found[name] = pack(vars(owner)[last])
    return found


def _put(env: gym.Env, saved: State, names: tuple[str, ...]) -> None:
    for name in (*names, *RANDOM):
        *path, last = name.split(".")
        owner: Any = env
        for part in path:
            owner = getattr(owner, part)
        value = unpack(saved[name]) if name in saved else None
        if name not in saved:
            vars(owner).pop(last, None)
        elif isinstance(value, deque):
            queue = getattr(owner, last)  # of a length that it was made with
            queue.clear()
            queue.extend(value)
        else:
            vars(owner)[last] = value
    if "checked_data_reuse" in names:  # gymnasium's checker would compare with a step that it has not seen
        vars(env).update(dict.fromkeys(names, True))


def _known_map(env: gym.Env) -> bool:
    """Whether a frozen lake has a map that its arguments tell; else it drew one when it was made."""
    kwargs = env.spec.kwargs if env.spec else {}
    return kwargs.get("desc") is not None or kwargs.get("map_name") is not None


def _get_own(env: Any) -> State:
    """What the environment itself gives."""
    try:
        own = env.get_state()
    except Exception as error:
        raise _Unknown(f"{_named(env)}, whose get_state() raised {type(error).__name__}") from error
    return {"own": pack(own)}


def _set_own(env: Any, entry: State) -> None:
    env.set_state(unpack(entry["own"]))


def _get_atari(env: Any) -> State:
    return {"emulator": get_atari(env), "attributes": _attributes(env, ())}


def _set_atari(env: Any, entry: State) -> None:
    set_atari(env, entry["emulator"])
    _put(env, entry["attributes"], ())


def _get_mujoco(env: Any) -> State:
    return {"physics": get_mujoco(env), "attributes": _attributes(env, MUJOCO)}


def _set_mujoco(env: Any, entry: State) -> None:
    set_mujoco(env, entry["physics"])
    _put(env, entry["attributes"], MUJOCO)
