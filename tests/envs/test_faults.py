"""Environments that break their API or cannot be made: each fault is one sentence that names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import SUITES, make_env
from dreamer_agent.envs.gymnasium_adapter import GymnasiumEnv, make_vector
from dreamer_agent.errors import ConfigError, EnvironmentFault, SpaceError
from tests.envs.test_gymnasium_adapter import Counting

NAN = float("nan")


class Broken(Counting):
    """Hands out `obs`, `reward` or `result` in place of the right one from step `since` on."""

    def __init__(self, kind: str = "box", since: int = 2, **wrong: Any):
        super().__init__([(9, "end")], kind)
        self.wrong, self.since = wrong, since

    def reset(self, **kwargs: Any) -> Any:
        obs, info = super().reset(**kwargs)
        return self.wrong["reset"](obs, info) if "reset" in self.wrong else (obs, info)

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        if self.steps >= self.since:
            obs, reward = self.wrong.get("obs", obs), self.wrong.get("reward", reward)
            if "step" in self.wrong:
                return self.wrong["step"](obs, reward, terminated, info)
        return obs, reward, terminated, truncated, info


def fault_of(run: Callable[[], Any], name: str) -> str:
    with pytest.raises(EnvironmentFault) as caught:
        run()
    message = str(caught.value)
    assert message.startswith(f"The environment {name} breaks its API: ")
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 400
    return message


WRONG = {
    "nan": ({"obs": np.array([0, NAN], np.float32)}, "step() should hold finite numbers, got [ 0. nan]"),
    "infinity": ({"obs": np.array([0, np.inf], np.float32)}, "step() should hold finite numbers"),
    "longer": ({"obs": np.zeros(3, np.float32)}, "should have the shape (2,) of its space, got shape (3,)"),
    "scalar": ({"obs": 1.0}, "should have the shape (2,) of its space, got shape ()"),
    "no_obs": ({"obs": None}, "should have the shape (2,) of its space, got shape ()"),
    "ragged": ({"obs": [[1, 2], [3]]}, "should have the shape (2,) of its space, got [[1, 2], [3]]"),
    "words": ({"obs": np.array(["a", "b"])}, "should hold numbers"),
    "complex": ({"obs": np.array([1j, 0])}, "should hold numbers"),
    "no_reward": ({"reward": None}, "the reward should be one finite number, got None"),
    "string": ({"reward": "1.0"}, "the reward should be one finite number, got 1.0"),
    "rewards": ({"reward": np.array([1.0, 2.0])}, "the reward should be one finite number, got [1. 2.]"),
    "ragged_rewards": ({"reward": [[1], [1, 2]]}, "the reward should be one finite number"),
    "empty_reward": ({"reward": np.zeros(0)}, "the reward should be one finite number, got []"),
    "nan_reward": ({"reward": NAN}, "the reward should be one finite number, got nan"),
    "infinite_reward": ({"reward": -np.inf}, "the reward should be one finite number, got -inf"),
    "four_values": (
        {"step": lambda *values: values},
        "should return (observation, reward, terminated, truncated",
    ),
    "bare_reset": ({"reset": lambda obs, info: obs}, "reset() should return (observation, info), got [0. 0.]"),
    "nan_at_reset": ({"reset": lambda obs, info: (obs * NAN, info)}, "reset() should hold finite numbers"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("repeat", [1, 3])
def test_a_broken_environment_is_named_in_one_sentence(name: str, repeat: int) -> None:
    wrong, expected = WRONG[name]

    def run() -> None:
        env = make_vector([lambda: Counting([(9, "end")]), lambda: Broken(**wrong)], repeat)
        env.reset(0)
        for _ in range(2):
            env.step({"action": np.zeros(2, np.int32)})

    assert expected in fault_of(run, "Broken")


@pytest.mark.parametrize(
    ("kind", "obs", "lacking"),
    [
        ("dict", {"inner": {}, "steps": np.int64(0)}, "lacks 'inner/count'"),
        ("dict", {"steps": np.int64(0)}, "lacks 'inner'"),
        ("dict", np.zeros(2), "lacks 'inner'"),
        ("tuple", (np.zeros(2, np.float32),), "lacks '1'"),
        ("tuple", None, "lacks '0'"),
    ],
)
def test_a_missing_part_of_an_observation_is_named(kind: str, obs: Any, lacking: str) -> None:
    env = make_vector([lambda: Broken(kind, obs=obs)], 1)
    env.reset(0)
    env.step({"action": np.zeros(1, np.int32)})
    assert lacking in fault_of(lambda: env.step({"action": np.zeros(1, np.int32)}), "Broken")


def test_a_nested_observation_is_named_by_its_path() -> None:
    env = make_vector([lambda: Broken("dict", obs={"inner": {"count": np.full(2, NAN)}, "steps": 1})], 1)
    env.reset(0)
    env.step({"action": np.zeros(1, np.int32)})
    message = fault_of(lambda: env.step({"action": np.zeros(1, np.int32)}), "Broken")
    assert "the observation 'inner/count' of step() should hold finite numbers" in message


@pytest.mark.parametrize("reward", [1, True, np.float64(1), np.array([1.0]), np.array(1, np.int8), jnp.ones(())])
def test_rewards_may_be_any_one_number(reward: Any) -> None:
    env = make_vector([lambda: Broken(reward=reward, since=1)], 1)
    env.reset(0)
    action = {"action": np.zeros(1, np.int32)}
    rewards = [env.step(action)[0].reward for _ in range(3)]
    assert [r.tolist() for r in rewards] == [[1.0], [1.0], [1.0]]


def test_an_observation_outside_of_its_bounds_is_no_fault() -> None:
    env = make_vector([lambda: Broken(obs=np.array([-5000, 5000], np.float32))], 1)
    env.reset(0)
    env.step({"action": np.zeros(1, np.int32)})
    (rows,) = env.step({"action": np.zeros(1, np.int32)})
    assert rows.obs["obs"].tolist() == [[-5000, 5000]]


@pytest.fixture
def registered() -> Any:
    """A broken environment under an id, as a user would register it."""
    gym.register("test_suite/Broken-v0", entry_point=Broken)
    yield "test_suite/Broken-v0"
    del gym.registry["test_suite/Broken-v0"]


@pytest.mark.parametrize("name", ["nan", "longer", "no_reward", "rewards", "four_values", "bare_reset"])
def test_a_registered_environment_is_named_by_its_id(registered: str, name: str) -> None:
    wrong, expected = WRONG[name]

    def run() -> None:
        env = make_env(EnvConfig(id=registered, num_envs=1, kwargs={"since": 1, **wrong}))
        env.reset(0)
        env.step({"action": np.zeros(1, np.int32)})

    assert expected in fault_of(run, registered)


def test_the_checks_of_gymnasium_do_not_come_before_ours(registered: str) -> None:
    kwargs = {"kind": "dict", "reset": lambda obs, info: (None, info)}
    config = EnvConfig(id=registered, num_envs=1, kwargs=kwargs)
    assert "lacks 'inner'" in fault_of(lambda: make_env(config).reset(0), registered)


def test_vector_environments_that_were_not_checked_give_no_nan() -> None:
    """A user's own vector environment comes without our wrapper inside."""
    for wrong in ({"obs": np.array([0, NAN], np.float32)}, {"reward": NAN}):
        env = GymnasiumEnv(SyncVectorEnv([lambda w=wrong: Broken(**w)]))
        env.reset(0)
        env.step({"action": np.zeros(1, np.int32)})
        with pytest.raises(EnvironmentFault, match="finite"):
            env.step({"action": np.zeros(1, np.int32)})


@pytest.mark.parametrize(
    "name",
    ["CartPol-v1", "CartPole-v99", "no_such_module:Thing-v0", "toyy:catch", "nowhere/Thing-v0", "not an id!"],
)
def test_an_unknown_environment_is_a_configuration_error(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_env(EnvConfig(id=name))
    message = str(caught.value)
    assert message.startswith(f"There is no environment '{name}': ")
    assert ", ".join(sorted(SUITES)) in message and {"minigrid", "toy"} <= set(SUITES)
    assert "\n" not in message


@pytest.mark.parametrize("name", ["toy:chess", "gymnax:Chess-v0"])
def test_an_unknown_task_of_a_suite_is_a_configuration_error(name: str) -> None:
    if name.startswith("gymnax"):
        pytest.importorskip("gymnax")
    with pytest.raises(ConfigError, match=name.partition(":")[2]):
        make_env(EnvConfig(id=name))


def test_a_space_that_cannot_be_encoded_is_told_at_the_start() -> None:
    class Speaking(Counting):
        def __init__(self) -> None:
            super().__init__([(2, "end")])
            self.observation_space = spaces.Dict({"graph": spaces.Graph(spaces.Box(0, 1, (2,)), None)})

    with pytest.raises(SpaceError, match="The observation 'graph' is a Graph"):
        make_vector([Speaking], 1)
