"""What an environment gives is handed on exactly where it fits, and named in one sentence where it does not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dreamer_agent.envs.checked import CheckedEnv
from dreamer_agent.envs.gymnasium_adapter import GymnasiumEnv, make_vector
from dreamer_agent.envs.protocol import LARGEST_REWARD
from dreamer_agent.errors import EnvironmentFault

MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]
ACTION = spaces.Dict(
    {
        "arm": spaces.Box(np.array([-2, 0], np.float64), np.array([2, 9], np.float64), dtype=np.float64),
        "lift": spaces.Box(-4, 4, (), np.float32),
        "gear": spaces.Discrete(3, start=-1),
        "legs": spaces.Tuple([spaces.MultiDiscrete([2, 5], dtype=np.int32), spaces.MultiBinary(2)]),
    }
)
OBSERVATION = spaces.Dict(
    {
        "speed": spaces.Box(-np.inf, np.inf, (2,), np.float64),
        "height": spaces.Box(-1, 1, (), np.float32),
        "picture": spaces.Box(0, 255, (8, 9, 3), np.uint8),
        "word": spaces.Text(4, charset="abc"),
        "parts": spaces.Tuple([spaces.Discrete(5, start=3), spaces.MultiBinary((2, 2))]),
    }
)


class Everything(gym.Env):
    """Samples of large spaces; checks that its actions are exactly of its space. Episodes take `length` steps."""

    observation_space, action_space = OBSERVATION, ACTION

    def __init__(self, length: int = 3):
        self.length, self.steps = length, 0
        self.given: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observe(), {}

    def observe(self) -> Any:
        self.given.append(self.observation_space.sample())
        return self.given[-1]

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert isinstance(action, dict) and isinstance(action["legs"], tuple)
        for part, space in (
            (action["arm"], ACTION["arm"]), (action["lift"], ACTION["lift"]), (action["gear"], ACTION["gear"]),
            *zip(action["legs"], ACTION["legs"], strict=True),  # type: ignore[call-overload]
        ):  # fmt: skip
            assert part.dtype == space.dtype and part.shape == space.shape and part in space
        self.steps += 1
        return self.observe(), 1.0, self.steps >= self.length, False, {}


@pytest.mark.parametrize("mode", MODES)
def test_nested_spaces_of_every_kind_go_through_every_mode(mode: AutoresetMode) -> None:
    raw = [Everything(1), Everything(3)]
    env = GymnasiumEnv(SyncVectorEnv([lambda e=e: CheckedEnv(e) for e in raw], autoreset_mode=mode))
    for one in raw:
        one.given.clear()
    rng, seen = np.random.default_rng(0), [0, 0]
    pending = env.reset(0)
    for _ in range(8):
        for rows in pending:
            for index in (0, 1):
                if rows.mask is not None and not rows.mask[index]:
                    continue
                given = raw[index].given[seen[index]]
                seen[index] += 1
                obs = {key: value[index] for key, value in rows.obs.items()}
                np.testing.assert_array_equal(obs["speed"], given["speed"].astype(np.float32))
                np.testing.assert_array_equal(obs["height"], given["height"])
                np.testing.assert_array_equal(obs["picture"], given["picture"])
                assert "".join("_abc"[letter] for letter in obs["word"]).rstrip("_") == given["word"]
                assert obs["parts/0"] + 3 == given["parts"][0]
                np.testing.assert_array_equal(obs["parts/1"], given["parts"][1])
        actions = {
            key: rng.integers(0, spec.classes, (2, *spec.shape), np.int32)
            if spec.kind == "discrete"
            else rng.normal(size=(2, *spec.shape)).astype(np.float32)
            for key, spec in env.act_specs.items()
        }
        pending = env.step(actions)
    assert min(seen) >= 8


def test_gymnasium_accepts_what_we_wrap() -> None:
    for env in (gym.make("CartPole-v1").unwrapped, gym.make("Pendulum-v1").unwrapped, Everything()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on bounds and on calling a wrapped environment
            check_env(CheckedEnv(env), skip_render_check=True)


class Line(gym.Env):
    """Observes what it is told to; `space` is its observation space."""

    action_space: gym.Space = spaces.Discrete(2)

    def __init__(self, space: gym.Space, obs: Any, reward: Any = 0.0, length: int = 10**9, info: Any = None):
        self.observation_space, self.obs, self.reward, self.length = space, obs, reward, length
        self.info = {} if info is None else info

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self.obs, self.info

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, Any]:
        self.steps += 1
        return self.obs, self.reward, self.steps >= self.length, False, self.info


def seen_of(space: gym.Space, obs: Any) -> np.ndarray:
    (rows,) = make_vector([lambda: Line(space, obs)], 1).reset(0)
    return rows.obs["obs"][0]


@pytest.mark.parametrize(
    ("space", "obs", "expected"),
    [
        (spaces.Box(-5, 5, (2,), np.float32), np.array([0.25, 1e300]), [0.25, np.finfo(np.float32).max]),
        (spaces.Box(-5, 5, (2,), np.float32), [1, 2], [1, 2]),
        (spaces.Box(0, 255, (40,), np.uint8), np.full(40, 200, np.int64), [200] * 40),
        (spaces.Box(0, 255, (40,), np.uint8), np.full(40, 7.0), [7] * 40),
        (spaces.Discrete(4), 2.0, 2),
        (spaces.Discrete(4), True, 1),
        (spaces.MultiBinary(2), [True, False], [1, 0]),
        (spaces.Box(-np.inf, np.inf, (1,), np.float16), np.array([1e6]), [np.finfo(np.float16).max]),
    ],
)
def test_observations_of_another_type_are_taken_if_nothing_is_lost(space: Any, obs: Any, expected: Any) -> None:
    np.testing.assert_array_equal(seen_of(space, obs), expected)


NUMBER = spaces.Box(-1, 1, (1,))
FINE = np.zeros(1, np.float32)


def wrong_reset(*values: Any) -> Callable[[], gym.Env]:
    class Wrong(Line):
        def reset(self, **kwargs: Any) -> Any:
            return values

    return lambda: Wrong(NUMBER, FINE)


class Seedless(Line):
    def reset(self) -> Any:  # type: ignore[override]
        return FINE, {}


class Spaceless(Line):
    def __init__(self) -> None:
        super().__init__(NUMBER, FINE)
        self.action_space = [0, 1]  # type: ignore[assignment]


BROKEN: dict[str, tuple[Callable[[], gym.Env], str]] = {
    "fraction": (lambda: Line(spaces.Box(0, 9, (1,), np.int32), np.array([0.5])), "numbers of the type int32"),
    "wide": (lambda: Line(spaces.Box(0, 255, (1,), np.uint8), np.array([300])), "numbers of the type uint8"),
    "no_text": (lambda: Line(spaces.Text(3), 3), "should be a text, got 3"),
    "no_info": (wrong_reset(FINE, None), "the info should be a dict, got None"),
    "list_info": (lambda: Line(NUMBER, FINE, info=[1]), "the info should be a dict"),
    "seedless": (lambda: Seedless(NUMBER, FINE), "reset() should take the arguments seed and options"),
    "spaceless": (Spaceless, "action_space should be a gymnasium space, got [0, 1]"),
    "no_space": (lambda: Line(None, FINE), "observation_space should be a gymnasium space, got None"),  # type: ignore[arg-type]
    "endless_none": (lambda: Line(NUMBER, FINE, length=np.full(2, 9)), "terminated should be one finite number"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_api_is_told_in_one_sentence(name: str) -> None:
    factory, expected = BROKEN[name]
    with pytest.raises(EnvironmentFault) as caught:
        env = make_vector([factory], 1)
        env.reset(0)
        env.step({"action": np.zeros(1, np.int32)})
    message = str(caught.value)
    assert "breaks its API: " in message and expected in message
    assert "\n" not in message and message.endswith(".")


def test_an_error_inside_of_the_environment_is_its_own() -> None:
    class Failing(Line):
        def reset(self, **kwargs: Any) -> Any:
            raise TypeError("unsupported operand")

    with pytest.raises(TypeError, match="unsupported operand"):
        make_vector([lambda: Failing(NUMBER, FINE)], 1)


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (1e30, 1e30),
        (-1e30, -1e30),
        (1e300, LARGEST_REWARD),
        (-1.7e308, -LARGEST_REWARD),
        (1e-30, 1e-30),
        (2**70, 2.0**70),
        (-(10**400), -LARGEST_REWARD),
    ],
)
def test_rewards_of_any_scale(reward: float, expected: float) -> None:
    env = make_vector([lambda: Line(NUMBER, FINE, reward)], 1)
    env.reset(0)
    (rows,) = env.step({"action": np.zeros(1, np.int32)})
    assert rows.reward.dtype == np.float32
    assert rows.reward[0] == np.float32(expected)


@pytest.mark.parametrize("mode", MODES)
def test_episodes_of_one_step(mode: AutoresetMode) -> None:
    env = GymnasiumEnv(SyncVectorEnv([lambda: CheckedEnv(Line(NUMBER, FINE, 2.0, 1))] * 2, autoreset_mode=mode))
    rows = env.reset(0)
    while len(rows) < 9:
        rows += env.step({"action": np.zeros(2, np.int32)})
    for index, row in enumerate(rows):
        first = index % 2 == 0
        assert row.is_first.tolist() == [first] * 2
        assert row.is_last.tolist() == row.is_terminal.tolist() == [not first] * 2
        assert row.reward.tolist() == [0.0 if first else 2.0] * 2


def test_vector_environments_may_write_into_their_own_arrays() -> None:
    """Without copies, the next observation overwrites the one before: rows must not change afterwards."""
    space = spaces.Box(0, 255, (8, 8, 1), np.uint8)

    class Growing(Line):
        def step(self, action: Any) -> Any:
            self.obs = self.obs + 1
            return super().step(action)

    made = SyncVectorEnv(
        [lambda: Growing(space, np.zeros((8, 8, 1), np.uint8), length=2)],
        copy=False,
        autoreset_mode=AutoresetMode.DISABLED,
    )
    env = GymnasiumEnv(made)
    rows = env.reset(0)
    for _ in range(3):
        rows += env.step({"action": np.zeros(1, np.int32)})
    assert [int(row.obs["obs"].max()) for row in rows] == [0, 1, 2, 2, 3]


def test_a_vector_environment_without_last_observations_is_told_in_one_sentence() -> None:
    class Forgetful(SyncVectorEnv):
        def step(self, actions: Any) -> Any:
            *result, info = super().step(actions)
            info.pop("final_obs", None)
            return (*result, info)

    made = Forgetful([lambda: Line(NUMBER, FINE, length=1)], autoreset_mode=AutoresetMode.SAME_STEP)
    env = GymnasiumEnv(made)
    env.reset(0)
    with pytest.raises(EnvironmentFault, match=r"last observations in info\['final_obs'\]"):
        env.step({"action": np.zeros(1, np.int32)})
