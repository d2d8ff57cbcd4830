"""Records of finished runs: small files beside a report, so that it can grow over days and machines.

A record holds what the report needs of a run, without its checkpoints and replay: a report that is written later,
where the run directory is gone or for other tasks of the benchmark, still has the run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent.bench.benchmark import METHODS, Benchmark, Task
from dreamer_agent.bench.finished import Finished
from dreamer_agent.bench.identity import hash_of, same_values, values_of
from dreamer_agent.bench.jobs import Job
from dreamer_agent.files import write_text
from dreamer_agent.statistics import Episodes

FOLDER = "records"
FACTS = {
    "env_steps", "updates", "score", "score_std", "episodes", "score_mode", "minutes", "numbers", "config_hash",
    "values", "settings", "provenance",
}  # fmt: skip


def keep(runs: Sequence[Finished], report: Path) -> None:
    """Write the record of each run below the folder of the report, over an older one of the same run."""
    for one in runs:
        path = report / FOLDER / one.job.task.folder / f"{one.job.method}-{one.job.seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {
            "task": one.job.task.env,
            "method": one.job.method,
            "seed": one.job.seed,
            "facts": one.facts,
            "episodes": {name: values.tolist() for name, values in one.episodes._asdict().items()},
        }
        write_text(path, json.dumps(content) + "\n")


def recorded(benchmark: Benchmark, report: Path) -> tuple[list[Finished], list[dict[str, Any]]]:
    """The runs of `benchmark` that have a record below `report`, in order of tasks, methods and seeds.

    Then those that do not count: of each its task, method, seed, and why.
    """
    found: list[Finished] = []
    left: list[dict[str, Any]] = []
    for task in benchmark.tasks:
        here = []
        for path in sorted((report / FOLDER / task.folder).glob("*.json")):
            method, _, seed = path.stem.rpartition("-")
            try:
                one = _read(path, task, benchmark.episodes)
            except (ValueError, KeyError, TypeError, AttributeError, OSError):
                left.append({"task": task.env, "method": method, "seed": seed, "why": f"{path.name} is damaged"})
                continue
            if same_values(one.facts["values"], values_of(task, one.job.method)):
                here.append(one)
            else:
                why = "its record is one of other settings"
                left.append({"task": task.env, "method": method, "seed": one.job.seed, "why": why})
        found += sorted(here, key=lambda one: (METHODS.index(one.job.method), one.job.seed))
    return found, left


def _read(path: Path, task: Task, episodes: int) -> Finished:
    """A record; raises what a damaged one raises."""
    values = json.loads(path.read_text())
    method, seed, facts = values["method"], values["seed"], values["facts"]
    if values["task"] != task.env or method not in METHODS or not isinstance(seed, int) or facts.keys() != FACTS:
        raise ValueError("a record of something else")
    arrays = {name: np.array(values["episodes"][name], float) for name in Episodes._fields}
    if len({array.shape for array in arrays.values()}) != 1 or arrays["steps"].ndim != 1:
        raise ValueError("episodes of different numbers")
    facts["config_hash"] = hash_of(facts["values"])  # as this version has it
    return Finished(Job(task, method, seed, "", episodes), Episodes(**arrays), facts)
