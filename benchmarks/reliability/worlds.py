"""Small environments: one that can be captured by its own pair of methods, one that cannot."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Secret(gym.Env):
    """A random walk between two walls, with a state that nobody is told."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.place, self.time = 0.0, 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.place += int(action) - 1 + float(self.np_random.normal(0, 0.5))
        self.time += 1
        return self._see(), -abs(self.place), abs(self.place) > 5, self.time >= 40, {}

    def _see(self) -> np.ndarray:
        return np.array([self.place, self.time / 40], np.float32)


class Walk(Secret):
    """The same, as data on request."""

    def get_state(self) -> dict[str, Any]:
        return {"place": self.place, "time": self.time, "rng": self.np_random.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        self.place, self.time = state["place"], state["time"]
        self.np_random.bit_generator.state = state["rng"]
