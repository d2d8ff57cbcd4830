"""Scores of a policy on episodes of its own, away from training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dreamer_agent.agent import Agent
from dreamer_agent.envs import VectorEnv
from dreamer_agent.nets import Params
from dreamer_agent.planning import name_of
from dreamer_agent.training.driver import Driver, mean_numbers

EVALUATION_SEED = 1_000_003  # added to the run's seed: evaluation never sees a training episode


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns and lengths of evaluation episodes, and how actions were chosen.

    `numbers` are what the environments reported of each episode (`envs.episode_numbers`), in the same order.
    """

    returns: list[float]
    lengths: list[int]
    policy: str  # "sample", "mode", or the name of a planner
    cut: int = 0  # how many of the episodes were counted before they ended
    faults: int = 0  # of the environments; each has ended an episode early
    numbers: Sequence[Mapping[str, float]] = ()

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    def summary(self) -> dict[str, Any]:
        """Plain numbers for a log; "numbers" are means over the episodes of which they were reported."""
        return {
            "policy": self.policy,
            "episodes": len(self.returns),
            "return_mean": self.mean,
            "return_std": float(np.std(self.returns)),
            "return_min": float(np.min(self.returns)),
            "return_max": float(np.max(self.returns)),
            "length_mean": float(np.mean(self.lengths)),
            "length_max": int(np.max(self.lengths)),
            "episodes_cut": self.cut,
            "faults": self.faults,
            "numbers": mean_numbers(self.numbers),
        }


class EvaluationStoppedError(Exception):
    """An evaluation that a signal has ended."""


def evaluate(
    agent: Agent, params: Params, env: VectorEnv, episodes: int, seed: int, explore: bool, max_length: int,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation:  # fmt: skip
    """Run `episodes` episodes, the same number in each environment (rounded up).

    A fixed number for each environment, rather than the first to finish, keeps short episodes from being
    counted more often. `explore` samples actions, or adds to a planner's the noise of training; else the mode, or
    what the planner chose, is taken. An episode that has not ended after
    `max_length` env steps counts as it stands; what follows it there counts as another one.
    """
    quota, faults = -(-episodes // env.num_envs), getattr(env, "faults", 0)
    driver = Driver(agent, env, seed + EVALUATION_SEED, explore)
    done: list[list[Any]] = [[] for _ in range(env.num_envs)]
    while min(map(len, done)) < quota:
        if stop():
            raise EvaluationStoppedError
        for _ in driver.rows(params):
            pass
        driver.cut(max_length)
        for episode in driver.finished():
            done[episode.env].append(episode)
    counted = [episode for row in done for episode in row[:quota]][:episodes]
    return Evaluation(
        [e.score for e in counted], [e.length for e in counted], _acting(agent, explore),
        sum(e.cut for e in counted), getattr(env, "faults", 0) - faults,
        [e.numbers for e in counted],
    )  # fmt: skip


def _acting(agent: Agent, explore: bool) -> str:
    """How actions are chosen, in a word or two."""
    if agent.planner is None:
        return ("explorer, " if agent.leader == "explorer" else "") + ("sample" if explore else "mode")
    return name_of(agent.planner) + (" with noise" if explore else "")
