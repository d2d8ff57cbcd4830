"""What the runs of a benchmark came to, as plain data that the report is written from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent.bench.benchmark import LABELS, OURS, Benchmark, Task
from dreamer_agent.bench.jobs import Job, check, told
from dreamer_agent.bench.reference import Published, published
from dreamer_agent.bench.statistics import (
    Episodes,
    aggregate,
    episodes_of,
    mean_between,
    median_of_steps,
    profile,
    steps_to,
)
from dreamer_agent.config import flatten, to_dict
from dreamer_agent.errors import ConfigError, DreamerError
from dreamer_agent.training.metrics import read_metrics

HASHED = ("train.steps", "train.loop", "train.max_skipped", "train.updates_per_dispatch")  # of train.*
LAST = 0.05  # share of the budget whose episodes make the "last 5%"
POINTS = np.linspace(0.0, 1.5, 151)  # normalised scores of a performance profile


@dataclass(frozen=True)
class Finished:
    """One finished run."""

    job: Job
    episodes: Episodes
    content: dict[str, Any]

    def frames(self) -> np.ndarray:
        """Those at which its episodes were logged, `[G]`."""
        return self.episodes.steps * self.job.task.frames_per_step(self.job.method)


def finished_of(jobs: Sequence[Job]) -> tuple[list[Finished], list[dict[str, Any]]]:
    """The finished ones of `jobs`; of each of the others its task, method, seed, and why it does not count."""
    found, missing = [], []
    for job in jobs:
        why = "not finished"
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


def collect(
    benchmark: Benchmark, finished: Sequence[Finished], missing: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Everything the report says, from finished runs."""
    tasks = [_task(task, [one for one in finished if one.job.task == task]) for task in benchmark.tasks]
    tasks = [task for task in tasks if task["methods"]]
    return {
        "benchmark": benchmark.name,
        "title": benchmark.title or benchmark.name,
        "protocol": " ".join(benchmark.protocol.split()),
        "changed": list(benchmark.changed),
        "scale": benchmark.scale,
        "tasks": tasks,
        "aggregate": {m: found for m in benchmark.methods if (found := _aggregate(tasks, m)) is not None},
        "missing": list(missing),
    }


def overlay(finished: Sequence[Finished]) -> list[dict[str, Any]]:
    """Learning curves in the form that the field overlays: task, method, seed, xs (frames), ys (returns)."""
    return [
        {
            "task": one.job.task.overlay,
            "method": LABELS.get(one.job.method, one.job.method),
            "seed": str(one.job.seed),
            "xs": one.frames().tolist(),
            "ys": one.episodes.returns.tolist(),
        }
        for one in finished
    ]


def config_hash(task: Task) -> str:
    """The first letters of a hash over every value that learning depends on, but the seed."""
    values = flatten(to_dict(task.config(0, 1)))
    kept = {key: value for key, value in values.items() if not key.startswith("train.") or key in HASHED}
    kept.pop("seed")
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _finished(job: Job) -> Finished | None:
    evaluation = job.evaluation()
    if evaluation is None:
        return None
    rows = read_metrics(job.folder)
    episodes = episodes_of(rows)
    sampled, mode = evaluation["scores"]
    content = {
        "seed": job.seed,
        "env_steps": evaluation["env_steps"],
        "updates": evaluation["updates"],
        "score": sampled["return_mean"],
        "score_std": sampled["return_std"],
        "episodes": sampled["episodes"],
        "score_mode": mode["return_mean"],
        "last": mean_between(episodes, (1 - LAST) * job.steps, np.inf),
        "frames_to_threshold": _frames(job, episodes, job.task.threshold),
        "frames_to_goal": _frames(job, episodes, job.task.goal),
        "minutes": _minutes(rows),
        "numbers": _reported(job, rows, sampled.get("numbers", {})),
        "provenance": json.loads((job.folder / "provenance.json").read_text()),
        "settings": _settings(job),
    }
    return Finished(job, episodes, content)


def _settings(job: Job) -> str:
    """Where the settings of a run come from."""
    if job.method != OURS:
        return json.loads((job.folder / "settings.json").read_text())["hyperparameters"]["source"]
    task = job.task
    parts = [", ".join(Path(name).name for name in task.preset) or "default"]
    parts += [f"size {task.size}"] if task.size else []
    parts += [json.dumps(task.overrides)] if task.overrides else []
    return ", ".join(parts)


def _frames(job: Job, episodes: Episodes, level: float | None) -> float | None:
    steps = None if level is None else steps_to(episodes, level)
    return None if steps is None else steps * job.task.frames_per_step(job.method)


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
    """Time spent training: without start-up, compilation and evaluations, as the rows of the metrics tell it."""
    seconds, before = 0.0, 0.0
    for row in rows:
        pace = row.get("time/env_steps_per_s")
        if pace:
            seconds += (row["step"] - before) / pace
        before = row["step"]
    return seconds / 60


def _task(task: Task, finished: Sequence[Finished]) -> dict[str, Any]:
    frames = task.frames_per_step()
    methods = {}
    for name in dict.fromkeys(one.job.method for one in finished):
        runs = [one for one in finished if one.job.method == name]
        methods[name] = _method(task, runs)
    ours = [one for one in finished if one.job.method == OURS]
    config = task.config(0, 1)
    return {
        "env": task.env,
        "overlay": task.overlay,
        "config_hash": config_hash(task),
        "ratio": config.replay.ratio,
        "num_envs": config.env.num_envs,
        "frames_per_step": frames,
        "low": task.low,
        "high": task.high,
        "threshold": task.threshold,
        "goal": task.goal,
        "gate": task.gate,
        "note": task.note,
        "methods": methods,
        "beside": beside(task, [one.episodes for one in ours], min((one.job.steps for one in ours), default=0)),
    }


def _method(task: Task, runs: Sequence[Finished]) -> dict[str, Any]:
    seeds = [one.content for one in sorted(runs, key=lambda one: one.job.seed)]
    scores = np.array([one["score"] for one in seeds])
    reached = median_of_steps([one["frames_to_threshold"] for one in seeds])
    return {
        "steps": runs[0].job.steps,
        "frames_per_step": task.frames_per_step(runs[0].job.method),
        "seeds": seeds,
        "score": [float(np.median(scores)), float(scores.min()), float(scores.max())],
        "frames_to_threshold": reached,
        "normalised": None if task.threshold is None else [_normalised(task, score) for score in scores],
    }


def _normalised(task: Task, score: float) -> float:
    assert task.low is not None and task.high is not None
    return float((score - task.low) / (task.high - task.low))


def beside(task: Task, runs: Sequence[Episodes], steps: int) -> dict[str, Any] | None:
    """Published curves, and ours over the same frames, for the tenths of their budgets that our runs cover whole.

    A published mean over a tenth stands beside ours over it; a published evaluation at its end beside our
    training episodes over the last half of that tenth.
    """
    suites = task.suite.split()
    found = published(suites, task.published) if task.published else []
    if not found:
        return None
    frames = task.frames_per_step()
    return {
        "suites": suites,
        "task": task.published,
        "drawn": list(task.drawn or dict.fromkeys(one.method for one in found)),
        "published": [_beside(one, runs, frames, steps) for one in found],
    }


def _beside(one: Published, runs: Sequence[Episodes], frames: int, steps: int) -> dict[str, Any]:
    tenths = []
    for first, last, value in one.tenths():
        if last > steps * frames:
            break
        start = first if one.bins else (first + last) / 2
        ours = [mean_between(run, start / frames, last / frames) for run in runs]
        known = [x for x in ours if x is not None]
        tenths.append({"frames": [start, last], "published": value, "ours": known})
    return {
        "method": one.method, "budget": one.budget, "seeds": one.seeds, "final": one.mean, "std": one.std,
        "metric": one.metric, "final_window": one.final_window, "bins": one.bins, "curve": one.tenths(),
        "tenths": tenths, "license": one.license, "source": one.source,
    }  # fmt: skip


def _aggregate(tasks: Sequence[dict[str, Any]], method: str) -> dict[str, Any] | None:
    """Over the tasks that have a scale and runs of the method; None where there are none."""
    found = {task["env"]: task["methods"].get(method) for task in tasks}
    scores = {env: np.array(one["normalised"]) for env, one in found.items() if one and one["normalised"]}
    if not scores:
        return None
    value, low, high = profile(list(scores.values()), POINTS)
    return {
        "tasks": list(scores),
        "numbers": {name: list(estimate) for name, estimate in aggregate(list(scores.values())).items()},
        "profile": {
            "points": POINTS.tolist(),
            "share": value.tolist(),
            "low": low.tolist(),
            "high": high.tolist(),
        },
    }


def gate(content: dict[str, Any]) -> list[tuple[str, float, float, bool]]:
    """For every task with a gate: its id, the gate, our median final score, and whether that is high enough.

    A task without all of its runs has not passed; without any, its median is NaN.
    """
    short = {one["task"] for one in content["missing"] if one["method"] == OURS}
    out = []
    for task in content["tasks"]:
        if task["gate"] is not None:
            ours = task["methods"].get(OURS)
            median = ours["score"][0] if ours else float("nan")
            passed = bool(median >= task["gate"]) and task["env"] not in short
            out.append((task["env"], task["gate"], median, passed))
    return out
