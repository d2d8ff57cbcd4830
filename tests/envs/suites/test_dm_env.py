"""The adapter of `dm_env`, with a task that needs no library."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from dreamer_agent.envs.suites.dm_env import DmEnv, space_of


def array(shape: tuple[int, ...], dtype: Any, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(shape=shape, dtype=np.dtype(dtype), **more)


class Task:
    """Gives numbers in float64 and ends at the third step with the discount that it was made with."""

    def __init__(self, discount: float):
        self.discount, self.time, self.actions = discount, 0, []

    def observation_spec(self) -> dict[str, Any]:
        return {"height": array((), float), "flag": array((2,), bool)}

    def action_spec(self) -> SimpleNamespace:
        return array((2,), float, minimum=-1.0, maximum=np.array([1.0, 3.0]))

    def reset(self) -> SimpleNamespace:
        self.time = 0
        return self.seen(None, None)

    def step(self, action: np.ndarray) -> SimpleNamespace:
        self.time += 1
        self.actions.append(action)
        return self.seen(0.5, self.discount if self.time == 3 else 1.0)

    def seen(self, reward: float | None, discount: float | None) -> SimpleNamespace:
        observation = {"height": float(self.time), "flag": np.array([True, False])}
        last = self.time == 3
        return SimpleNamespace(observation=observation, reward=reward, discount=discount, last=lambda: last)


@pytest.mark.parametrize(("discount", "ends"), [(0.0, (True, False)), (1.0, (False, True)), (0.9, (False, True))])
def test_only_a_last_step_without_discount_is_an_end(discount: float, ends: tuple[bool, bool]) -> None:
    env = DmEnv(Task(discount))
    obs, info = env.reset(seed=3)
    assert env.observation_space.contains(obs) and obs["height"].shape == () and info == {}
    steps = [env.step(np.zeros(2, np.float32)) for _ in range(3)]
    assert [step[2:4] for step in steps] == [(False, False), (False, False), ends]
    assert [step[1] for step in steps] == [0.5] * 3
    assert steps[0][0]["height"].dtype == np.float32 and env.dm.actions[0].dtype == np.float64


def test_specs_become_spaces() -> None:
    assert space_of(array((), np.int64, minimum=0, maximum=4, num_values=5)) == gym.spaces.Discrete(5)
    assert DmEnv(Task(1)).action_space == gym.spaces.Box(np.float32([-1, -1]), np.float32([1, 3]))
    assert space_of(array((2,), bool)) == gym.spaces.Box(0, 1, (2,), np.bool_)
    assert space_of(array((), np.int8)).low == -128
    assert space_of(array((3,), float)) == gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
