"""What the runs of a benchmark came to, as plain data that the report is written from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from dreamer_agent.bench.benchmark import LABELS, METHODS, OURS, Benchmark, Task
from dreamer_agent.bench.finished import Finished
from dreamer_agent.bench.reference import NUMBERS, Published, published, published_numbers
from dreamer_agent.statistics import (
    Episodes,
    aggregate,
    mean_between,
    median_of_steps,
    profile,
)

POINTS = np.linspace(0.0, 1.5, 151)  # normalised scores of a performance profile


def collect(
    benchmark: Benchmark, finished: Sequence[Finished], missing: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Everything the report says, from finished runs."""
    tasks = [_task(task, [one for one in finished if one.job.task.env == task.env]) for task in benchmark.tasks]
    tasks = [task for task in tasks if task["methods"]]
    return {
        "benchmark": benchmark.name,
        "title": benchmark.title or benchmark.name,
        "protocol": " ".join(benchmark.protocol.split()),
        "changed": list(benchmark.changed),
        "episodes": benchmark.episodes,
        "scale": benchmark.scale,
        "tasks": tasks,
        "aggregate": {m: found for m in METHODS if (found := _aggregate(tasks, m)) is not None},
        "missing": list(missing),
    }


def not_run(benchmark: Benchmark, finished: Sequence[Finished]) -> list[dict[str, Any]]:
    """What the definition asks for and `finished` has not: task, method, the seeds there are, and of how many."""
    if not benchmark.defined:
        return []
    runs = Counter(one.key[:2] for one in finished)
    asked = [(task.env, name) for task in benchmark.tasks for name in benchmark.methods if task.allows(name)]
    return [
        {"task": env, "method": name, "seeds": runs[env, name], "of": benchmark.seeds}
        for env, name in asked
        if runs[env, name] < benchmark.seeds
    ]


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
    seeds = [one.content() for one in sorted(runs, key=lambda one: one.job.seed)]
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
        "numbers": [_number(one) for one in published_numbers(suites, task.published)],
    }


def _number(one: Published) -> dict[str, Any]:
    return {
        "name": NUMBERS[one.metric], "method": one.method, "budget": one.budget, "value": one.mean,
        "std": one.std, "license": one.license, "source": one.source,
    }  # fmt: skip


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
        "frames": [found[env]["steps"] * found[env]["frames_per_step"] for env in scores],
        "numbers": {name: list(estimate) for name, estimate in aggregate(list(scores.values())).items()},
        "profile": {
            "points": POINTS.tolist(),
            "share": value.tolist(),
            "low": low.tolist(),
            "high": high.tolist(),
        },
    }


def gate(
    tasks: Sequence[Task], finished: Sequence[Finished], missing: Sequence[dict[str, Any]]
) -> list[tuple[str, float, float, bool]]:
    """For every task with a gate: its id, the gate, our median final score, and whether that is high enough.

    Judged are the runs of ours among `finished`. A task that has one of ours in `missing` has not passed; without
    any finished run its median is NaN.
    """
    short = {one["task"] for one in missing if one["method"] == OURS}
    out = []
    for task in tasks:
        if task.gate is not None:
            scores = [one.facts["score"] for one in finished if one.key[:2] == (task.env, OURS)]
            median = float(np.median(scores)) if scores else float("nan")
            out.append((task.env, task.gate, median, bool(median >= task.gate) and task.env not in short))
    return out
