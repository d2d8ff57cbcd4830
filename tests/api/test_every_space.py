"""Half a dozen nested spaces from end to end: train a few updates, predict, save, load, predict the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

from dreamer_agent import Dreamer
from tests.conftest import TEST_SIZE

SMALL = [
    *TEST_SIZE, "env.num_envs=2", "replay.ratio=16", "replay.prefill=40", "train.log_every=50",
    "train.eval_envs=2",
]  # fmt: skip

# What the environment observes, what it does, and the kinds that the arrays of the observation become.
SPACES: dict[str, tuple[gym.Space, gym.Space, dict[str, str]]] = {
    "camera and speed": (
        Dict(camera=Box(0, 255, (20, 12, 3), np.uint8), speed=Box(-np.inf, np.inf, (), np.float64)),
        Dict(steer=Box(np.float32([-1, 0]), np.float32([1, 5])), gear=Discrete(3, start=-1)),
        {"camera": "image", "speed": "continuous"},
    ),
    "text and switches": (
        Tuple([Text(6, charset="abc "), MultiBinary((2, 3)), Discrete(4, start=2)]),
        MultiBinary([2, 2]),
        {"0": "discrete", "1": "discrete", "2": "discrete"},
    ),
    "channels first, without bounds": (
        Box(0, 1, (4, 10, 10), np.float32),
        Box(np.array([-np.inf, 0, -np.inf]), np.array([np.inf, np.inf, 3]), dtype=np.float64),
        {"obs": "image"},
    ),
    "deep": (
        Dict(a=Tuple([Dict(b=MultiDiscrete([3, 2], start=[1, 0])), Box(-5, 5, (2, 2), np.float16)])),
        Tuple([MultiDiscrete([2, 3], start=[0, 5]), Dict(x=Tuple([Box(-3, 7, (2,), np.int32), Discrete(2)]))]),
        {"a/0/b": "discrete", "a/1": "continuous"},
    ),
    "frames and a grid": (
        Dict(frames=Box(0, 255, (2, 9, 9, 1), np.uint8), grid=Box(0, 4, (3, 3, 2), np.int8)),
        MultiDiscrete([[2, 3], [4, 2]]),
        {"frames": "image", "grid": "discrete"},
    ),
    "large integers": (
        Tuple([Box(-(2**40), 2**40, (2,), np.int64), Box(0, 1, (3,), bool), Box(-1, 1, (1, 2, 2, 1, 2))]),
        Discrete(5, start=10),
        {"0": "continuous", "1": "discrete", "2": "continuous"},
    ),
}  # fmt: skip


class Anything(gym.Env):
    """Observes samples of its space; asserts that actions come in its own structure, types and bounds."""

    def __init__(self, observation_space: gym.Space, action_space: gym.Space):
        self.observation_space, self.action_space = observation_space, action_space
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.steps += 1
        return self.observation_space.sample(), 1.0, self.steps == 9, False, {}


def equal(a: Any, b: Any) -> bool:
    leaves = [jax.tree.leaves(x) for x in (a, b)]
    same_types = [[(np.asarray(x).dtype, np.asarray(x).shape) for x in side] for side in leaves]
    return same_types[0] == same_types[1] and all(map(np.array_equal, *leaves))


@pytest.mark.parametrize("name", SPACES)
def test_any_space_trains_predicts_saves_loads_and_predicts_the_same(name: str, tmp_path: Path) -> None:
    observed, acted, kinds = SPACES[name]

    def make() -> Anything:
        return Anything(observed, acted)

    observed.seed(0)
    seen = [observed.sample() for _ in range(3)]
    with Dreamer(make, config=SMALL, run=tmp_path / "run", quiet=True) as agent:
        agent.learn(60)
        assert agent._trainer is not None and agent._trainer.counters.updates > 2
        assert {key: spec.kind for key, spec in agent._trainer.env.obs_specs.items()} == kinds
        before, state = [], None
        for obs in seen:
            action, state = agent.predict(obs, state, deterministic=True)
            assert acted.contains(action)
            before.append(action)
        agent.save(tmp_path / "saved")
    loaded = Dreamer.load(tmp_path / "saved", env=make, quiet=True)
    state = None
    for obs, expected in zip(seen, before, strict=True):
        action, state = loaded.predict(obs, state, deterministic=True)
        assert equal(action, expected)
    assert loaded.evaluate(2).lengths == [9, 9]
