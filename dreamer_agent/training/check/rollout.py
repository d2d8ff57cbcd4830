"""A short rollout of random actions: what an environment shows, pays, and gets wrong."""

from __future__ import annotations

import re
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent.envs import Rows, VectorEnv
from dreamer_agent.errors import DreamerError
from dreamer_agent.registry import in_one_line
from dreamer_agent.specs import ArraySpec, Specs, mask_key
from dreamer_agent.training.driver import env_steps

RESTARTS = 8  # after a fault the environments start anew, so that one fault does not hide the next
FAULTS = 6  # kinds of faults that are told


class Numbers:
    """Running statistics of one array of the shape `shape`, by element and over all elements."""

    def __init__(self, shape: tuple[int, ...] = (), values: int = 0):
        self.low, self.high = np.full(shape, np.inf), np.full(shape, -np.inf)
        self.seen = np.zeros(values, bool)  # which integers below `values` came up
        self.count, self.total, self.squares, self.zeros = 0, 0.0, 0.0, 0

    @classmethod
    def of(cls, spec: ArraySpec) -> Numbers:
        """For an array of this spec."""
        return cls(spec.shape, 256 if spec.kind == "image" else spec.classes)

    def add(self, batch: np.ndarray) -> None:
        """Count a batch `[n, *shape]`."""
        if not len(batch):
            return
        values = batch.astype(np.float64)
        self.low, self.high = np.minimum(self.low, values.min(0)), np.maximum(self.high, values.max(0))
        self.count += values.size
        self.total, self.squares = self.total + values.sum(), self.squares + np.square(values).sum()
        self.zeros += int((values == 0).sum())
        if len(self.seen):
            self.seen[np.unique(batch)] = True

    @property
    def min(self) -> float:
        """The smallest number."""
        return float(self.low.min())

    @property
    def max(self) -> float:
        """The largest number."""
        return float(self.high.max())

    @property
    def mean(self) -> float:
        """The mean over all elements."""
        return float(self.total / max(self.count, 1))

    @property
    def std(self) -> float:
        """The standard deviation over all elements."""
        return float(np.sqrt(max(self.squares / max(self.count, 1) - self.mean**2, 0.0)))

    @property
    def constant(self) -> int:
        """How many elements never changed."""
        return int((self.low == self.high).sum())


@dataclass
class RandomRollout:
    """What was seen: numbers by observation key, rewards, episodes, faults as sentences.

    `calls` counts calls of all environments together, `steps` the env steps among them; `kept` are the first
    steps as the replay takes them, without latents.
    """

    observations: dict[str, Numbers]
    rewards: Numbers = field(default_factory=Numbers)
    lengths: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    calls: int = 0
    steps: int = 0

    def add_fault(self, sentence: str) -> None:
        """Note a fault, unless one of its kind (equal but for numbers) is known."""
        if _kind(sentence) not in map(_kind, self.faults) and len(self.faults) < FAULTS:
            self.faults.append(sentence)


class RandomPolicy:
    """Uniform actions: numbers in [-1, 1], and choices among the legal ones."""

    def __init__(self, act_specs: Specs, seed: int = 0):
        self.act_specs, self.rng = act_specs, np.random.default_rng(seed)

    def __call__(self, obs: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """Actions `[count, *shape]` for observations `[count, ...]`."""
        return {key: self._draw(spec, obs.get(mask_key(key)), count) for key, spec in self.act_specs.items()}

    def _draw(self, spec: ArraySpec, legal: np.ndarray | None, count: int) -> np.ndarray:
        if spec.kind == "continuous":
            return self.rng.uniform(-1, 1, (count, *spec.shape)).astype(np.float32)
        if legal is None:
            return self.rng.integers(0, spec.classes, (count, *spec.shape)).astype(np.int32)
        scores = self.rng.random(legal.shape) + np.asarray(legal, bool)
        return scores.argmax(-1).astype(np.int32)


def random_rollout(
    env: VectorEnv, steps: int = 1000, seed: int = 0, keep: int = 0, seconds: float = 15.0
) -> RandomRollout:
    """About `steps` env steps of random actions, cut after `seconds`; the first `keep` calls are kept.

    Whatever the environment raises becomes a sentence in `faults`, and the environments start anew.
    """
    rollout = RandomRollout({key: Numbers.of(spec) for key, spec in env.obs_specs.items()})
    end = time.monotonic() + seconds
    for attempt in range(RESTARTS):
        try:
            _run(env, rollout, steps, seed + attempt, keep, end)
        except Exception as error:
            rollout.add_fault(sentence_of(error))
        else:
            break
    return rollout


def _run(env: VectorEnv, rollout: RandomRollout, steps: int, seed: int, keep: int, end: float) -> None:
    policy = RandomPolicy(env.act_specs, seed)
    score, length = np.zeros(env.num_envs), np.zeros(env.num_envs, int)
    pending = env.reset(seed)
    while rollout.steps < steps and time.monotonic() < end:
        for rows in pending:
            _count(rollout, rows, score, length)
            action = policy(rows.obs, env.num_envs)
            if rows.mask is None and len(rollout.kept) < keep:
                rollout.kept.append({**rows.stored(), "action": action})
        pending = env.step(action)
        rollout.calls += 1


def _count(rollout: RandomRollout, rows: Rows, score: np.ndarray, length: np.ndarray) -> None:
    """Count rows; `score` and `length` `[E]` of the episodes that run are brought up to date in place."""
    present = np.ones(len(score), bool) if rows.mask is None else rows.mask
    for key, numbers in rollout.observations.items():
        numbers.add(rows.obs[key][present])
    stepped = present & ~rows.is_first
    rollout.rewards.add(rows.reward[stepped])
    rollout.steps += env_steps(rows)
    score[present & rows.is_first], length[present & rows.is_first] = 0.0, 0
    score[stepped] += rows.reward[stepped]
    length[stepped] += 1
    for index in np.flatnonzero(present & rows.is_last):
        rollout.returns.append(float(score[index]))
        rollout.lengths.append(int(length[index]))


def sentence_of(error: Exception) -> str:
    """What an environment raised, in one sentence; for errors that are not ours with the line that raised."""
    if isinstance(error, DreamerError):
        return str(error).replace("; the run so far is kept", "")  # there is none yet
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [frame for frame in frames if not _is_library(frame.filename)] or list(frames[-1:])
    where = f", in {Path(foreign[-1].filename).name} line {foreign[-1].lineno}" if foreign else ""
    return f"The environment raised {in_one_line(error)}{where}: mend that."


def _is_library(file: str) -> bool:
    """Whether a file is ours or installed, rather than the user's."""
    ours = str(Path(__file__).parents[2])
    return (
        file.startswith((ours, "<"))
        or "site-packages" in file
        or Path(file).is_relative_to(Path(re.__file__).parents[1])
    )


def _kind(sentence: str) -> str:
    return re.sub(r"[\d.e+-]+", "#", sentence)
