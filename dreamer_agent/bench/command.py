"""`dreamer-agent bench`: train the runs of a benchmark, write the report, and hold it against the gate."""

from __future__ import annotations

import importlib.util
import math
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dreamer_agent.bench.benchmark import OURS, Benchmark, check_methods
from dreamer_agent.bench.finished import finished_of
from dreamer_agent.bench.jobs import Job, jobs_of
from dreamer_agent.bench.report import write_report
from dreamer_agent.bench.results import gate
from dreamer_agent.envs.catalogue import check_installed
from dreamer_agent.errors import ConfigError, RunDirectoryError, missing_extra
from dreamer_agent.interrupt import REQUEUE
from dreamer_agent.launch.local import RETRIES, launch
from dreamer_agent.launch.work import name_of
from dreamer_agent.training.run_directory import origins, provenance, same_code


def run_benchmark(
    benchmark: Benchmark, folder: Path, at_once: int = 1, only_report: bool = False, gated: bool = False,
    report: Path | None = None, seeds: Sequence[int] | None = None, tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> int:  # fmt: skip
    """Do the runs of `benchmark` below `folder` that are not finished there, then write the report to `report`.

    `tasks`, `methods` and `seeds` choose among its runs; the report has those of earlier calls, too
    (`write_report`). Without a folder of its own it lies in `folder`. Gives an exit code: 0; 1 where a run failed
    or a gate was not passed (`gated`, which judges the chosen runs alone); 75 where a signal has ended it, and
    the same call goes on.
    """
    chosen = benchmark.select(tasks, methods)
    check_benchmark(chosen, gated, not only_report)
    console = Console(highlight=False, soft_wrap=True)
    jobs = jobs_of(chosen, folder, seeds)
    if not jobs:
        raise ConfigError("No task of the benchmark can be trained by these methods: choose others.")
    if gated:
        check_fresh(jobs)
    code = 0
    if not only_report:
        try:
            runs = launch(jobs, at_once, console, RETRIES)
        except KeyboardInterrupt:  # the second one
            return REQUEUE
        for run in runs:
            if run.state == "failed":
                console.print(f"failed: {name_of(run.work)}: {run.why}", markup=False)
                code = 1
        if any(run.state == "stopped" for run in runs):
            console.print(f"stopped; what was learned is in {folder}; the same command goes on from there")
            return REQUEUE
    place = report or folder
    command = "dreamer-agent " + " ".join(shlex.quote(word) for word in _shown(sys.argv[1:]))
    write_report(benchmark, jobs, place, command)
    console.print(f"report: {place / 'report.md'}, {place / 'report.html'}")
    if gated and not _passed(console, gate(chosen.tasks, *finished_of(jobs))):
        code = 1
    return code


def check_benchmark(benchmark: Benchmark, gated: bool = False, trained: bool = True) -> None:
    """Raise a `DreamerError` for what would fail hours later: settings, methods, gates; where runs are to be
    `trained`, packages.
    """
    check_methods(benchmark.methods)
    if gated and all(task.gate is None for task in benchmark.tasks):
        raise ConfigError(f"The benchmark '{benchmark.name}' has no gates: give its tasks a `gate`.")
    for task in benchmark.tasks:
        task.config(0, benchmark.episodes)
    if trained:
        check_packages(benchmark)


def check_packages(benchmark: Benchmark) -> None:
    """Raise `MissingExtraError` where a run needs a package that is not installed: else each process would only
    start to say so.
    """
    for task in benchmark.tasks:
        methods = {method for method in benchmark.methods if task.allows(method)}
        if methods:
            check_installed(task.env)
        if methods - {OURS} and importlib.util.find_spec("stable_baselines3") is None:
            raise missing_extra("stable-baselines3", "sb3")


def check_fresh(jobs: Sequence[Job]) -> None:
    """Raise `RunDirectoryError` where other code has trained a run, if only in part: a gate is for this code."""
    here = provenance()
    for job in jobs:
        for origin in origins(job.folder) if job.method == OURS else ():
            if not same_code(origin, here):
                raise RunDirectoryError(
                    f"{job.folder} holds a run of commit {origin.get('commit')}, but the gate is for this one, "
                    f"{here['commit']}: give a new --out. Nothing was changed there."
                )


def _passed(console: Console, found: Sequence[tuple[str, float, float, bool]]) -> bool:
    """Print the gate of each task, and whether all were passed."""
    table = Table("task", "median score", "gate", "", title="gate")
    for env, least, median, passed in found:
        score = "-" if math.isnan(median) else f"{median:,.4g}"
        table.add_row(env, score, f"{least:,.4g}", "passed" if passed else "[red]not passed[/]")
    console.print(table)
    return all(passed for *_, passed in found)


def _shown(arguments: Sequence[str]) -> list[str]:
    """The arguments without folders, which lie elsewhere for the reader; of other paths the last name."""
    out, skip = [], False
    for word in arguments:
        if skip or word.startswith(("--out=", "--report=")):
            skip = False
        elif word in ("--out", "--report"):
            skip = True
        elif word != "--only-report":
            out.append(re.sub(r"(^|=)[~.]*/(?:[^ =]*/)?", r"\1", word))
    return out
