"""States of environments as plain data: what goes on from one is the same bit by bit, in new environments."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces, wrappers
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.vector import SyncVectorEnv

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import VectorEnv, make_env, source_of
from dreamer_agent.envs.gymnasium_adapter import GymnasiumEnv, make_vector
from dreamer_agent.envs.jax_adapter import JaxVectorEnv
from dreamer_agent.envs.plain import pack, unpack
from dreamer_agent.envs.state import capture, restore, uncaptured
from dreamer_agent.errors import RunDirectoryError
from dreamer_agent.specs import ArraySpec
from tests.envs.jax_envs import Drift
from tests.envs.masked_envs import Picky
from tests.envs.test_resilient import assert_same, random_actions


def through_files(tree: Any) -> Any:
    """`tree` written as JSON and as arrays without objects, and read again."""
    arrays: dict[str, np.ndarray] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            assert all(type(key) is str for key in value)
            return {"dict": {key: plain(item) for key, item in value.items()}}
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, np.ndarray):
            arrays[str(len(arrays))] = value
            return {"array": str(len(arrays) - 1)}
        if isinstance(value, bytes):
            return {"bytes": base64.b64encode(value).decode()}
        assert value is None or type(value) in (bool, int, float, str), type(value)
        return value

    text, file = json.dumps(plain(tree)), io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    file.seek(0)
    loaded = np.load(file, allow_pickle=False)

    def back(value: Any) -> Any:
        if isinstance(value, list):
            return [back(item) for item in value]
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind == "dict":
            return {key: back(item) for key, item in content.items()}
        return loaded[content] if kind == "array" else base64.b64decode(content)

    return back(json.loads(text))


def in_full(value: Any) -> Any:
    """For JSON; as a text, a long array would be cut."""
    return value.tolist() if isinstance(value, np.ndarray) else str(value)


def assert_goes_on(make: Callable[[], VectorEnv], before: int = 37, after: int = 300, ends: int = 1) -> None:
    """What `make` makes goes on from a state as it would have, from one that was never reset and one that was."""
    env, rng = make(), np.random.default_rng(0)
    env.reset(11)
    assert env.why_no_state() is None
    for _ in range(before):
        env.step(random_actions(env, rng))
    state = through_files(env.get_state())
    fresh, used = make(), make()
    used.reset(999)
    for _ in range(5):
        used.step(random_actions(env, np.random.default_rng(1)))
    for other in (fresh, used):
        other.set_state(through_files(state))
    seen = 0
    for _ in range(after):
        actions = random_actions(env, rng)
        rows = env.step(actions)
        seen += int(rows[0].is_last.sum())
        for other in (fresh, used):
            assert_same(rows, other.step(actions))
    assert seen >= ends
    last = env.get_state(), fresh.get_state()
    assert json.dumps(last[0], default=in_full) == json.dumps(last[1], default=in_full)
    for one in (env, fresh, used):
        one.close()


def configured(name: str, **kwargs: Any) -> Callable[[], VectorEnv]:
    return lambda: make_env(EnvConfig(id=name, num_envs=2, kwargs=kwargs))


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("CartPole-v1", {}), ("CartPole-v1", {"max_episode_steps": 9}), ("Pendulum-v1", {}),
        ("Acrobot-v1", {"max_episode_steps": 50}), ("MountainCar-v0", {}), ("MountainCarContinuous-v0", {}),
        ("FrozenLake-v1", {}), ("Taxi-v4", {"is_rainy": True, "fickle_passenger": True}), ("Taxi-v4", {}),
        ("CliffWalking-v1", {"max_episode_steps": 30}), ("Blackjack-v1", {}),
    ],
)  # fmt: skip
def test_classics_go_on_bit_by_bit(name: str, kwargs: dict[str, Any]) -> None:
    assert_goes_on(configured(name, **kwargs), after=400 if "Mountain" not in name else 1100)


def test_environments_in_other_processes_do_too() -> None:
    assert_goes_on(lambda: make_env(EnvConfig(id="CartPole-v1", num_envs=2, processes=2)))


def test_a_borrowed_environment_does_too() -> None:
    for unchecked in (True, False):  # without gymnasium's own checker, and with it
        assert_goes_on(
            lambda off=unchecked: source_of(gym.make("CartPole-v1", disable_env_checker=off)).make(EnvConfig(), 1)
        )


# Constants, which the constructor decides


def random_lake() -> gym.Env:
    """Its holes lie where nobody comes in a few steps."""
    holes = np.random.default_rng().choice(["F", "H"], (3, 8))
    return gym.make("FrozenLake-v1", desc=["SFFFFFFF", *["F" * 8] * 4, *map("".join, holes)])


def random_gravity() -> gym.Env:
    env: Any = gym.make("CartPole-v1")
    env.unwrapped.gravity = np.random.default_rng().uniform(5, 15)
    return env


def random_bodies() -> gym.Env:
    env: Any = gym.make("Hopper-v5")
    env.unwrapped.model.body_mass[1:] *= np.random.default_rng().uniform(0.5, 2)
    env.unwrapped.model.opt.timestep *= np.random.default_rng().uniform(0.5, 1)
    return env


@pytest.mark.parametrize("processes", [0, 1], ids=["here", "elsewhere"])
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (random_lake, "the environment FrozenLakeEnv was made with another P, desc"),
        (random_gravity, "the environment CartPoleEnv was made with another gravity"),
        (random_bodies, "the environment HopperEnv was made with another body_mass, opt.timestep"),
    ],
)
def test_what_was_made_with_other_constants_is_cut(
    make: Callable[[], gym.Env], expected: str, processes: int
) -> None:
    if make is random_bodies:
        pytest.importorskip("mujoco")
    rng, action = np.random.default_rng(0), None
    first: Any = make_vector([make], 1, None, 0, processes)
    first.reset(3)
    for _ in range(3):
        action = random_actions(first, rng)
        rows = first.step(action)[0]
    state, other = through_files(first.get_state()), make_vector([make], 1, None, 0, processes)
    if not processes:
        first.set_state(state)  # it is the same
    told = f"Environment 0 does not go on as it was, its episode is cut: {expected}."
    with pytest.warns(UserWarning, match=re.escape(told)):
        other.set_state(state)
    assert other.why_no_state() is None
    if not processes:
        third: Any = make_vector([make], 1)
        third.set_state(through_files(other.get_state()))  # saved before a step was made
        assert third.step(action)[0].is_last[0]
    (cut,) = other.step(action)
    assert cut.is_last[0] and not cut.is_terminal[0] and cut.reward[0] == 0
    assert np.array_equal(cut.obs["obs"], rows.obs["obs"])
    (begun,) = other.step(action)
    assert begun.is_first[0] and other.faults == 0
    other.step(action)
    for env in (first, other):
        env.close()


def test_states_that_say_nothing_of_constants_are_taken() -> None:
    env: Any = make_vector([random_gravity], 1)
    env.reset(3)
    state = env.get_state()
    for layer in state["vector"]["envs"][0]["layers"]:
        del layer["constants"]
    other: Any = make_vector([random_gravity], 1)
    other.set_state(state)
    assert not other.step({"action": np.ones(1, np.int32)})[0].is_last[0]


MUJOCO = (
    "Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum", "InvertedPendulum",
    "Pusher", "Reacher", "Swimmer", "Walker2d",
)  # fmt: skip


@pytest.mark.parametrize("name", [*(f"{name}-v5" for name in MUJOCO), "Ant-v4", "Hopper-v4"])
def test_mujoco_goes_on_bit_by_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco")
    monkeypatch.chdir(tmp_path)  # MuJoCo may leave a log
    assert_goes_on(configured(name, max_episode_steps=120), before=133)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("ALE/Breakout-v5", {"obs_type": "ram"}), ("ALE/Pong-v5", {"frameskip": 1}),
        ("ALE/MsPacman-v5", {"frameskip": [2, 5], "obs_type": "ram"}),
    ],
)  # fmt: skip
def test_atari_goes_on_bit_by_bit(name: str, kwargs: dict[str, Any]) -> None:
    gym.register_envs(pytest.importorskip("ale_py"))
    if "frameskip" in kwargs:
        kwargs = {**kwargs, "frameskip": tuple(np.atleast_1d(kwargs["frameskip"]).tolist())}
        kwargs["frameskip"] = kwargs["frameskip"] if len(kwargs["frameskip"]) > 1 else kwargs["frameskip"][0]
    assert_goes_on(configured(name, repeat_action_probability=0.25, max_episode_steps=150, **kwargs))


def test_atari_as_dreamers_see_it_goes_on_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    gym.register_envs(pytest.importorskip("ale_py"))
    if "cv2" not in sys.modules:  # that it shrinks pictures is all that is asked of it here
        small = SimpleNamespace(
            INTER_AREA=0, resize=lambda image, size, interpolation: image[::2, ::2][: size[1]]
        )
        monkeypatch.setitem(sys.modules, "cv2", small)

    def make() -> VectorEnv:
        def one() -> gym.Env:
            env = gym.make("ALE/Breakout-v5", frameskip=1, max_episode_steps=400)
            env = wrappers.AtariPreprocessing(env, terminal_on_life_loss=True, screen_size=(80, 80))
            return wrappers.FrameStackObservation(env, 4)

        return make_vector([one], 1)

    monkeypatch.setattr(wrappers.AtariPreprocessing, "_get_obs", _shrunk)
    assert_goes_on(make, after=200)


def _shrunk(self: Any) -> np.ndarray:
    """As gymnasium's, with every second pixel in place of cv2's means."""
    np.maximum(self.obs_buffer[0], self.obs_buffer[1], out=self.obs_buffer[0])
    return self.obs_buffer[0][:160:2, ::2].copy()


def stacked() -> gym.Env:
    """Wrappers with a memory of their own, one on another."""
    env: gym.Env = gym.make("Pendulum-v1", max_episode_steps=25)
    env = wrappers.StickyAction(env, 0.3)
    env = wrappers.TimeAwareObservation(env)
    env = wrappers.NormalizeObservation(env)
    env = wrappers.NormalizeReward(env)
    env = wrappers.DelayObservation(env, 2)
    env = wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
    env = wrappers.RecordEpisodeStatistics(env)
    return wrappers.FrameStackObservation(env, 3, padding_type="zero")


def skipping() -> gym.Env:
    env: gym.Env = wrappers.MaxAndSkipObservation(gym.make("MountainCarContinuous-v0"), 2)
    env = wrappers.DtypeObservation(wrappers.ClipAction(env), np.float64)
    env = wrappers.ClipReward(wrappers.FlattenObservation(env), -1, 1)
    return wrappers.TimeLimit(wrappers.ReshapeObservation(wrappers.RepeatAction(env, 2), (2, 1)), 20)


@pytest.mark.parametrize("make", [stacked, skipping])
def test_wrappers_with_a_memory_go_on_bit_by_bit(make: Callable[[], gym.Env]) -> None:
    assert_goes_on(lambda: make_vector([make] * 2, 2))


class Wanderer(gym.Env):
    """A user's environment that gives its own state, its random numbers among it."""

    observation_space = spaces.Dict({"place": spaces.Box(-99, 99, (2,), np.float64), "word": spaces.Text(3)})
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.place, self.trail = self.np_random.normal(size=2), [(0, np.float32(0.5))]
        return self.observe(), {}

    def observe(self) -> dict[str, Any]:
        return {"place": self.place, "word": "abc"[: int(self.np_random.integers(1, 4))]}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.place = self.place + self.np_random.normal(size=2) * action
        self.trail.append((len(self.trail), np.float32(self.place[0])))
        return self.observe(), float(self.trail[-2][1]), len(self.trail) > 12, False, {}

    def get_state(self) -> dict[str, Any]:
        return {"place": self.place, "trail": self.trail, "random": self.np_random}

    def set_state(self, state: dict[str, Any]) -> None:
        self.place, self.trail, self.np_random = state["place"], state["trail"], state["random"]


def test_an_environment_of_the_users_gives_its_own_state() -> None:
    assert_goes_on(lambda: make_vector([lambda: wrappers.TimeLimit(Wanderer(), 9)] * 2, 1))


class Covering(gym.Wrapper):
    """A user's wrapper that answers for all beneath it, which nobody knows."""

    def get_state(self) -> dict[str, Any]:
        return {"random": self.unwrapped.np_random, "inside": [self.unwrapped.s, self.unwrapped.lastaction]}  # type: ignore[attr-defined]

    def set_state(self, state: dict[str, Any]) -> None:
        env: Any = self.unwrapped
        env.np_random, (env.s, env.lastaction) = state["random"], state["inside"]


def test_a_wrapper_of_the_users_answers_for_all_beneath_it() -> None:
    class Unknown(gym.Wrapper):
        pass

    def one() -> gym.Env:
        return wrappers.TimeLimit(Covering(Unknown(gym.make("FrozenLake-v1").unwrapped)), 30)

    assert_goes_on(lambda: make_vector([one], 1))


class Noise(gym.ObservationWrapper):
    def observation(self, observation: Any) -> Any:
        return observation


class Odd(Wanderer):
    def get_state(self) -> Any:
        return {"file": io.StringIO()}


class Failing(Wanderer):
    def get_state(self) -> Any:
        raise RuntimeError("not now")


class Endless(Wanderer):
    def get_state(self) -> Any:
        state: dict[str, Any] = {}
        state["itself"] = state
        return state


class Asking(Wanderer):
    def get_state(self, what: str) -> Any:  # type: ignore[override]
        return {}


class Stretching(Wanderer):
    """Its state is set as MuJoCo's environments do, which is no answer to `get_state`."""

    def set_state(self, place: Any, trail: Any) -> None:  # type: ignore[override]
        self.place, self.trail = place, trail


class MyCartPole(CartPoleEnv):
    pass


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Noise(gym.make("CartPole-v1")), "the wrapper Noise"),
        (lambda: Picky("discrete", "info", 5, 0), "the environment Picky"),
        (MyCartPole, "the environment MyCartPole"),
        (Odd, "the environment Odd, which holds a StringIO"),
        (Failing, "the environment Failing, whose get_state() raised RuntimeError"),
        (Endless, "the environment Endless, whose state gave RecursionError"),
        (Asking, "the environment Asking"),
        (Stretching, "the environment Stretching"),
        (lambda: gym.make("FrozenLake-v1", map_name=None), "the environment FrozenLakeEnv"),  # it draws a map
    ],
)
def test_what_cannot_be_captured_is_named(make: Callable[[], gym.Env], expected: str) -> None:
    env = make_vector([make], 1)
    env.reset(0)
    assert env.why_no_state() == uncaptured(env.env.envs[0]) == expected  # type: ignore[attr-defined]
    assert env.get_state() is None and capture(env.env.envs[0]) is None  # type: ignore[attr-defined]


class Masked(Wanderer):
    """Its masks are dicts with numbers as keys, as its actions are tuples."""

    action_space = spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)])
    mask: dict[Any, Any] = {0: np.array([1, 1])}  # noqa: RUF012

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        return super().reset(seed=seed)[0], {"action_mask": self.mask}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return *super().step(action[1])[:4], {"action_mask": self.mask}


def test_masks_are_part_of_the_state() -> None:
    assert_goes_on(lambda: make_vector([Masked] * 2, 1))

    class Noted(Masked):
        mask = {**Masked.mask, "note": io}  # noqa: RUF012

    env = make_vector([Noted], 1)
    env.reset(0)
    assert env.get_state() is None
    assert env.why_no_state() == "an action mask that holds a module"


def test_a_users_vector_environment_has_a_state_if_it_says_so() -> None:
    class Own(SyncVectorEnv):
        def get_state(self) -> Any:
            return {"all": [capture(env) for env in self.envs], "resets": self._autoreset_envs}

        def set_state(self, state: Any) -> None:
            for env, one in zip(self.envs, state["all"], strict=True):
                restore(env, one)
            self._autoreset_envs = state["resets"]

    makers = [partial(gym.make, "CartPole-v1", disable_env_checker=True)] * 2
    assert GymnasiumEnv(SyncVectorEnv(makers)).why_no_state() == "the vector environment SyncVectorEnv"
    assert GymnasiumEnv(SyncVectorEnv(makers)).get_state() is None
    assert_goes_on(lambda: source_of(Own(makers)).make(EnvConfig(), 2))


def test_the_state_of_another_environment_is_refused() -> None:
    cart, pendulum = (make_vector([partial(gym.make, name)] * 2, 1) for name in ("CartPole-v1", "Pendulum-v1"))
    cart.reset(0)
    state = cart.get_state()
    assert state is not None
    with pytest.raises(
        RunDirectoryError, match=r"around CartPoleEnv, but the environment is now .* PendulumEnv: "
    ):
        pendulum.set_state(state)
    with pytest.raises(RunDirectoryError, match="that of 2 environments, but there are 1"):
        make_vector([partial(gym.make, "CartPole-v1")], 1).set_state(state)
    state["vector"]["envs"][0]["layers"][-1]["attributes"]["_np_random"] = {"generator": {"dict": {}}}
    with pytest.raises(RunDirectoryError, match="state of the environment CartPoleEnv does not fit"):
        cart.set_state(state)


def test_plain_values_come_back_as_what_they_were() -> None:
    rng = np.random.Generator(np.random.MT19937(3))
    rng.random(7)
    value = {
        "a": (1, [2.5, None, True], b"\x00", 2**127), "b": np.float32(1.5), "c": np.str_("x"), "d": {"dict": {}},
        "i": {0: "x", (1, "a"): {None: 2.5}},
        "e": np.array(["ab", "c"]), "f": np.zeros((0, 3), np.int8), "g": np.float64("nan"), "h": -float("inf"),
    }  # fmt: skip
    again = unpack(through_files(pack({**value, "rng": rng})))
    assert again.pop("rng").random(3).tolist() == rng.random(3).tolist()
    assert repr(again) == repr(value) and {k: type(v) for k, v in again.items()} == {
        k: type(v) for k, v in value.items()
    }
    for wrong in ({object(): 2}, {1, 2}, object(), np.array([None]), np.random.RandomState(0), lambda: 3):
        with pytest.raises(TypeError):
            pack(wrong)
    for wrong in ({}, {"lambda": []}, {"generator": {"dict": {"bit_generator": "default_rng"}}}):
        with pytest.raises(ValueError):
            unpack(wrong)


# JAX-native environments


class Keyed:
    """Carries a random key of the new kind, a number of sixteen bits and an empty array."""

    obs_specs = {"x": ArraySpec("continuous", (2,))}  # noqa: RUF012
    act_specs = {"action": ArraySpec("discrete", (), 2)}  # noqa: RUF012
    time_limit = 9

    def reset(self, key: Any) -> tuple[Any, dict[str, Any]]:
        own = jax.random.key(jax.random.bits(key))
        return {"key": own, "half": jnp.bfloat16(0.3), "none": jnp.zeros((0, 2))}, {"x": jnp.zeros(2)}

    def step(self, key: Any, state: Any, action: dict[str, Any]) -> tuple[Any, ...]:
        own, draw = jax.random.split(state["key"])
        x = jax.random.normal(draw, (2,)) + state["half"].astype(jnp.float32)
        state = {**state, "key": own, "half": (state["half"] * 1.01).astype(jnp.bfloat16)}
        return state, {"x": x}, x[0], (x[1] > 1.5) & (action["action"] == 1), jnp.zeros((), bool)


@pytest.mark.parametrize("make", [Drift, Keyed])
def test_jax_native_environments_go_on_bit_by_bit(make: Callable[[], Any]) -> None:
    assert_goes_on(lambda: JaxVectorEnv(make(), 3), before=13, after=60)


def test_catch_goes_on_bit_by_bit() -> None:
    assert_goes_on(configured("toy:catch"), after=100)


def test_arrays_that_differ_are_named() -> None:
    env = JaxVectorEnv(Keyed(), 2)
    assert env.get_state() is None and env.why_no_state() == "environments that failed, or were not reset"
    env.reset(0)
    state = env.get_state()
    assert state is not None
    wrong = {**state["carry"], ".state['half']": np.zeros((2, 1), np.uint16)}
    with pytest.raises(RunDirectoryError, match=r"uint16 \[2, 1\] for '\.state\['half'\]', but .* uint16 \[2\]"):
        env.set_state({"carry": wrong})
    with pytest.raises(RunDirectoryError, match=r"bool \[2\] for '\.done', but these have bool \[3\]"):
        JaxVectorEnv(Keyed(), 3).set_state(state)
    with pytest.raises(RunDirectoryError, match=r"has nothing for '\.obs\['action_mask/stop'\]'"):
        JaxVectorEnv(Drift(), 2).set_state(state)
