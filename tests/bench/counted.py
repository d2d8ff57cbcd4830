"""An environment that remembers what was done to all of its copies."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

LENGTH = 10


class Counted(gym.Env):
    """Ten steps, one reward each, cut at the end; a large and a small observation, one of them in a Dict."""

    steps: ClassVar[int] = 0
    seeds: ClassVar[list[int]] = []

    observation_space = gym.spaces.Dict(
        {"large": gym.spaces.Box(-np.inf, np.inf, (2,), np.float32), "cell": gym.spaces.Discrete(3)}
    )
    action_space = gym.spaces.Box(-2, 2, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            Counted.seeds.append(seed)
        self.time = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        Counted.steps += 1
        self.time += 1
        return self.observe(), 1.0, False, self.time == LENGTH, {}

    def observe(self) -> dict[str, Any]:
        large = self.np_random.normal(1000, 100, 2).astype(np.float32)
        return {"large": large, "cell": self.time % 3}
