"""What our worker does with the replay: fill, sample, add."""

from __future__ import annotations

from typing import Any

import jax

from benchmarks.speed.cases import REPLAY_ENVS, REPLAY_STEPS, random_steps
from benchmarks.speed.learner import Learner
from benchmarks.speed.serve import timed
from dreamer_agent.replay import HostReplay
from dreamer_agent.training.budget import layout_of

Reply = dict[str, Any]


class Replay:
    """A replay for the agent of `learner`, filled with random steps."""

    def __init__(self, learner: Learner):
        self.learner = learner

    def fill(self) -> Reply:
        """Fill it, and serve the online queue, so that sampling draws uniformly from then on."""
        agent = self.learner.agent
        config = agent.config.replay
        self.replay = HostReplay(
            layout_of(agent), REPLAY_ENVS, REPLAY_STEPS, config.batch_size, config.batch_length
        )
        self.step = random_steps(self.learner.case)
        for _ in range(REPLAY_STEPS // REPLAY_ENVS):
            self.replay.add(self.step)
        for _ in range(REPLAY_STEPS // (config.batch_size * config.batch_length) + 1):
            self.replay.sample()
        return {"bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(self.replay.data))}

    def sample(self, seconds: float = 0.0, least: int = 1) -> Reply:
        """Milliseconds of sampling a batch."""
        return {"ms": timed(self.replay.sample, seconds, least)}

    def add(self, seconds: float = 0.0, least: int = 1) -> Reply:
        """Milliseconds of adding one step of every environment."""
        return {"ms": timed(lambda: self.replay.add(self.step), seconds, least)}
