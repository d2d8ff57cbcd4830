"""Crafter (`crafter:reward`), a game of survival seen from above."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from dreamer_agent.envs.episode_numbers import NUMBERS
from dreamer_agent.envs.suites.libraries import library, refuse_unknown
from dreamer_agent.errors import ConfigError

TASKS = ("noreward", "reward")
ACHIEVEMENTS = 22
PREFIX = "achievements/"  # of their names among the numbers of an episode


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
        """One step; the info counts the achievements of the episode, the last one's also reports which."""
        image, reward, done, info = self.game.step(int(action))
        terminated = bool(done and info["discount"] == 0)
        counts = dict(info["achievements"])
        told: dict[str, Any] = {"achievements": counts}
        if done:
            told[NUMBERS] = {f"{PREFIX}{name}": int(count > 0) for name, count in counts.items()}
        return image, float(reward), terminated, bool(done) and not terminated, told


def score(numbers: Mapping[str, float]) -> float:
    """The Crafter score in percent: exp(mean(log(1 + s))) - 1 over the success rates s of all 22 achievements.

    `numbers` hold them between 0 and 1 as "achievements/NAME", beside whatever else: `summary()["numbers"]` of an
    evaluation, or "numbers" of one in a run's `evaluation.json`. Raises `ConfigError` where they are not there.
    """
    rates = [value for name, value in numbers.items() if name.startswith(PREFIX)]
    if len(rates) != ACHIEVEMENTS:
        raise ConfigError(
            f"The Crafter score needs the success rates of {ACHIEVEMENTS} achievements, named {PREFIX}NAME; got "
            f"{len(rates)}: give the numbers of episodes of crafter:reward or crafter:noreward."
        )
    return float(np.expm1(np.mean(np.log1p(100.0 * np.array(rates)))))


def score_of_run(rows: Iterable[Mapping[str, float]]) -> float:
    """The Crafter score of all training episodes in a run's rows of metrics, given from the first row on.

    A row counts by how many episodes ended since the one before. Raises `ConfigError` as `score`.
    """
    start, before, episodes = f"episode/{PREFIX}", 0.0, 0.0
    sums: dict[str, float] = {}
    for row in rows:
        ended = row.get("episode/count", before) - before
        before += ended
        means = {key.removeprefix("episode/"): row[key] for key in row if key.startswith(start)}
        if means and ended > 0:
            episodes += ended
            sums = {name: sums.get(name, 0.0) + ended * mean for name, mean in means.items()}
    return score({name: total / episodes for name, total in sums.items()})


def tasks() -> list[str]:
    """With and without the reward."""
    return list(TASKS)
