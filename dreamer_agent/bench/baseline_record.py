"""What a baseline leaves behind: rows of metrics on the way, and the final policy on fresh episodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent.config import Config
from dreamer_agent.training.evaluate import EVALUATION_SEED, Evaluation
from dreamer_agent.training.loggers import Jsonl
from dreamer_agent.training.progress import crossed

ROW_EVERY = Config().train.log_every  # env steps


class Recorder:
    """Counts env steps and writes `metrics.jsonl`, one row for every `ROW_EVERY` of them, in `folder`.

    An env step is a step of one environment after action repeat, resets excluded. Called by stable-baselines3
    after each step of all environments, it ends the training at `budget` env steps, unless `rollout` env steps
    have just been completed there: the updates that follow them still belong to the run.
    """

    def __init__(self, folder: Path, budget: int, rollout: float = 1):
        self.budget, self.rollout = budget, rollout
        self.env_steps = self.episodes = self.written = 0
        self._file, self._since = Jsonl(folder, Config()), time.monotonic()
        self._ended: list[dict[str, Any]] = []

    def __call__(self, local: dict[str, Any], _: dict[str, Any]) -> bool:
        """The callback of `learn`, given its local variables; False ends it."""
        self.add(local["infos"])
        return self.env_steps < self.budget or self.env_steps % self.rollout == 0

    def add(self, infos: list[dict[str, Any]]) -> None:
        """The infos of one step of each environment."""
        before = self.env_steps
        self.env_steps += len(infos)
        self._ended += [info["episode"] for info in infos if "episode" in info]
        if crossed(before, self.env_steps, ROW_EVERY):
            self._write()

    def close(self) -> None:
        """Write what came after the last row."""
        if self.env_steps > self.written:
            self._write()
        self._file.close()

    def _write(self) -> None:
        row: dict[str, float] = {}
        if self._ended:
            row["episode/return"] = float(np.mean([episode["r"] for episode in self._ended]))
            row["episode/length"] = float(np.mean([episode["l"] for episode in self._ended]))
        self.episodes += len(self._ended)
        now = time.monotonic()
        row["episode/count"] = self.episodes
        row["time/env_steps_per_s"] = (self.env_steps - self.written) / max(now - self._since, 1e-9)
        self._file.write(self.env_steps, row)
        self._ended, self._since, self.written = [], now, self.env_steps


def evaluate(
    act: Callable[[Any], Any], vector: Any, episodes: int, seed: int, policy: str, max_length: int
) -> Evaluation:
    """The actions `act(obs)` on `episodes` episodes, the same number in each environment (rounded up).

    `vector` truncates episodes at `max_length` env steps, which count as cut. The seeds are those of our own
    evaluations: `seed + EVALUATION_SEED` and the ones after it, one for each environment.
    """
    vector.seed(seed + EVALUATION_SEED)
    obs = vector.reset()
    done: list[list[tuple[float, int, bool]]] = [[] for _ in range(vector.num_envs)]
    quota = -(-episodes // vector.num_envs)
    while min(map(len, done)) < quota:
        obs, _, _, infos = vector.step(act(obs))
        for row, info in zip(done, infos, strict=True):
            if "episode" in info:
                length = int(info["episode"]["l"])
                cut = bool(info["TimeLimit.truncated"]) and length == max_length
                row.append((float(info["episode"]["r"]), length, cut))
    returns, lengths, cuts = zip(*[episode for row in done for episode in row[:quota]][:episodes], strict=True)
    return Evaluation(list(returns), list(lengths), policy, sum(cuts))
