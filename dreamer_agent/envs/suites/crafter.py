"""Crafter (`crafter:reward`), a game of survival seen from above."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from dreamer_agent.envs.suites.libraries import library, refuse_unknown

TASKS = ("noreward", "reward")


class CrafterEnv(gym.Env):
    """Crafter as one image `[size, size, 3]` and 17 actions; the task "noreward" pays nothing.

    A death is `terminated`; the limit of `length` steps is `truncated`. Other keyword arguments go to the game.
    Its creatures move in an order that differs from process to process: the same seed gives the same first
    picture, not the same episode.
    """

    def __init__(self, name: str = "reward", size: int = 64, length: int = 10_000, **kwargs: Any):
        refuse_unknown("crafter", name, TASKS)
        crafter = library("crafter")
        self.game = crafter.Env(size=(size, size), length=length, reward=name == "reward", seed=0, **kwargs)
        self.observation_space = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(int(self.game.action_space.n))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """A new world; its number follows from the seed and from how many came before."""
        super().reset(seed=seed)
        if seed is not None:
            self.game._seed, self.game._episode = seed, 0
        return self.game.reset(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """One step; the info counts the achievements of the episode."""
        image, reward, done, info = self.game.step(int(action))
        terminated = bool(done and info["discount"] == 0)
        return (
            image,
            float(reward),
            terminated,
            bool(done) and not terminated,
            {"achievements": dict(info["achievements"])},
        )


def tasks() -> list[str]:
    """With and without the reward."""
    return list(TASKS)
