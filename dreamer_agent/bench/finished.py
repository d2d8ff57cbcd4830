"""What one finished run came to, read from its run directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent.bench.benchmark import OURS
from dreamer_agent.bench.identity import hash_of, held_values, values_of
from dreamer_agent.bench.jobs import Job, check
from dreamer_agent.errors import ConfigError, DreamerError
from dreamer_agent.launch.work import told
from dreamer_agent.statistics import Episodes, episodes_of, mean_between, steps_to
from dreamer_agent.training.metrics import read_metrics
from dreamer_agent.training.run_directory import ORIGIN

NOT_BEGUN = "not begun"
LAST = 0.05  # share of the budget whose episodes make the "last 5%"


@dataclass(frozen=True)
class Finished:
    """One finished run: its training episodes, and the facts of it that no scale of returns changes."""

    job: Job
    episodes: Episodes
    facts: dict[str, Any]

    @property
    def key(self) -> tuple[str, str, int]:
        """Task, method and seed."""
        return self.job.task.env, self.job.method, self.job.seed

    def frames(self) -> np.ndarray:
        """Those at which its episodes were logged, `[G]`."""
        return self.episodes.steps * self.job.task.frames_per_step(self.job.method)

    def content(self) -> dict[str, Any]:
        """What the report says of it: the facts, and what its episodes reached on the task's scale."""
        task = self.job.task
        return {
            "seed": self.job.seed,
            **{key: value for key, value in self.facts.items() if key != "values"},
            "last": mean_between(self.episodes, (1 - LAST) * self.job.steps, np.inf),
            "frames_to_threshold": self._frames_to(task.threshold),
            "frames_to_goal": self._frames_to(task.goal),
        }

    def _frames_to(self, level: float | None) -> float | None:
        steps = None if level is None else steps_to(self.episodes, level)
        return None if steps is None else steps * self.job.task.frames_per_step(self.job.method)


def finished_of(jobs: Sequence[Job]) -> tuple[list[Finished], list[dict[str, Any]]]:
    """The finished ones of `jobs`; of each of the others its task, method, seed, and why it does not count."""
    found, missing = [], []
    for job in jobs:
        why = "not finished" if job.folder.exists() else NOT_BEGUN
        try:
            check(job)
            one = _finished(job)
        except (DreamerError, OSError, ValueError, KeyError) as error:
            one, why = None, told(error).replace(f"{job.folder} ", "its folder ")
        if one is None:
            missing.append({"task": job.task.env, "method": job.method, "seed": job.seed, "why": why})
        else:
            found.append(one)
    return found, missing


def _finished(job: Job) -> Finished | None:
    evaluation = job.evaluation()
    if evaluation is None:
        return None
    rows = read_metrics(job.folder)
    values = held_values(job.folder) if job.method == OURS else values_of(job.task, job.method)
    sampled, mode = evaluation["scores"][:2]
    facts = {
        "env_steps": evaluation["env_steps"],
        "updates": evaluation["updates"],
        "score": sampled["return_mean"],
        "score_std": sampled["return_std"],
        "episodes": sampled["episodes"],
        "score_mode": mode["return_mean"],
        "minutes": _minutes(rows),
        "numbers": _reported(job, rows, sampled.get("numbers", {})),
        "config_hash": hash_of(values),
        "values": values,
        "settings": _settings(job),
        "provenance": json.loads((job.folder / ORIGIN).read_text()),
    }
    return Finished(job, episodes_of(rows), facts)


def _settings(job: Job) -> str:
    """Where the settings of a run come from."""
    if job.method != OURS:
        return json.loads((job.folder / "settings.json").read_text())["hyperparameters"]["source"]
    task = job.task
    parts = [", ".join(Path(name).name for name in task.preset) or "default"]
    parts += [f"size {task.size}"] if task.size else []
    parts += [json.dumps(task.overrides)] if task.overrides else []
    return ", ".join(parts)


def _reported(job: Job, rows: Sequence[dict[str, Any]], numbers: dict[str, float]) -> dict[str, float]:
    """What the environments reported of the evaluation's episodes; for Crafter its score over training, too."""
    if not job.task.env.startswith("crafter:") or not numbers:
        return numbers
    from dreamer_agent.envs.suites.crafter import score_of_run

    try:
        return {"Crafter score over training, %": score_of_run(rows), **numbers}
    except ConfigError:  # no training episode has ended
        return numbers


def _minutes(rows: Sequence[dict[str, Any]]) -> float:
    """Minutes of training until the last row of the metrics, from the pace that each row tells.

    With compilation, checkpoints and evaluations on the way, which happen while the pace is timed; without what
    comes before the first step (imports, making the environments and the networks, reading a checkpoint) and the
    final evaluation. Where a run was resumed, all steps since the row before count at the pace since then.
    """
    seconds, before = 0.0, 0.0
    for row in rows:
        pace = row.get("time/env_steps_per_s")
        if pace:
            seconds += (row["step"] - before) / pace
        before = row["step"]
    return seconds / 60
