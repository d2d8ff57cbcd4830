"""`dreamer-agent sweep`: say what a sweep will take, run what is left of it, and report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from dreamer_agent.config import flatten, parse_override, read_yaml
from dreamer_agent.errors import ConfigError
from dreamer_agent.files import write_text
from dreamer_agent.interrupt import REQUEUE
from dreamer_agent.launch.local import RETRIES, clock, launch
from dreamer_agent.launch.slurm import launch_on_slurm
from dreamer_agent.launch.work import Work, name_of
from dreamer_agent.sweeps.plan import Plan, measured, plan
from dreamer_agent.sweeps.report import write_report
from dreamer_agent.sweeps.runs import SweepRun
from dreamer_agent.sweeps.split import as_programs
from dreamer_agent.sweeps.sweep import Sweep, load_sweep

LAUNCHERS = ("local", "vmap", "slurm")
FILE = "sweep.yaml"  # the definition beside the runs, so that `plot` finds it
LISTED = 40  # runs that a dry run lists
TOGETHER = 16  # runs of one program


def runs_of(sweep: Sweep, folder: Path) -> list[SweepRun]:
    """All runs of a sweep below `folder`; what lies there under another name keeps it."""
    there = {path.name.rpartition("-")[2]: path.name for path in folder.glob("*-*") if path.is_dir()}
    runs = []
    for setting in sweep.settings():
        name = there.get(setting.identity, setting.name)
        runs.append(SweepRun(dataclasses.replace(setting, name=name), folder))
    return runs


def run_sweep(
    path: Path, folder: Path | None = None, overrides: Sequence[str] = (), launcher: str = "local",
    at_once: int = 1, together: int = TOGETHER, dry: bool = False, only_report: bool = False,
    retries: int = RETRIES, job: Sequence[str] = (),
) -> int:  # fmt: skip
    """Do all runs of the sweep in `path` that are not finished below `folder`, then write the report there.

    `launcher` is "local" (processes, `at_once` at a time), "vmap" (what can be one program is, up to `together`
    runs; the rest as with "local") or "slurm" (a job for each; `job` has its parameters, key=value, over those of
    the file). A `dry` run only says what it would do. Gives an exit code: 0; 1 where a run failed; 75 where a
    signal has ended it, and the same call goes on.
    """
    if launcher not in LAUNCHERS:
        raise ConfigError(f"There is no launcher '{launcher}': choose {', '.join(LAUNCHERS)}.")
    sweep = load_sweep(path, overrides)
    folder = folder or Path("runs") / "sweeps" / sweep.name
    runs = runs_of(sweep, folder)
    console = Console(highlight=False, soft_wrap=True)
    if dry:
        _list(runs, console)
        console.print("timing up to four of its programs, about half a minute each ...")
        found = plan(runs, measured)
        _say(found, at_once, folder, console)
        found.check(sweep)
        return 0
    plan(runs).check(sweep)
    failed: dict[str, str] = {}
    if not only_report:
        folder.mkdir(parents=True, exist_ok=True)
        _keep_definition(path, overrides, folder)
        works: Sequence[Work] = runs
        if launcher == "vmap":
            works, said = as_programs(runs, together)
            for sentence in said:
                console.print(sentence)
        try:
            if launcher == "slurm":
                given = {**sweep.slurm, **_parameters(job)}
                states = launch_on_slurm(works, (folder / "slurm").absolute(), given, console, retries)
            else:
                states = launch(works, at_once, console, retries)
        except KeyboardInterrupt:  # the second one
            return REQUEUE
        failed = {name_of(run.work): run.why for run in states if run.state == "failed"}
        for name, why in failed.items():
            console.print(f"failed: {name}: {why}", markup=False)
        if any(run.state == "stopped" for run in states):
            learned = "" if launcher == "slurm" else f"; what was learned is in {folder}"
            console.print(f"stopped{learned}; the same command goes on from there")
            return REQUEUE
    page = write_report(sweep, runs, folder, failed=failed)
    console.print(f"report: {page}")
    return 1 if failed else 0


def report_of(
    folder: Path, x: str, group: str, compare: str | None, out: Path | None, goal: float | None = None
) -> Path:
    """The report of the sweep whose runs lie in `folder`, written to `out` or there."""
    sweep = load_sweep(folder / FILE)
    return write_report(sweep, runs_of(sweep, folder), out or folder, x, group, compare, goal=goal)


def is_sweep(folder: Path) -> bool:
    """Whether the runs of a sweep lie in `folder`."""
    return (folder / FILE).is_file()


def _parameters(texts: Sequence[str]) -> dict[str, Any]:
    """Parameters of a job, key=value; values as YAML reads them."""
    found: dict[str, Any] = {}
    for text in texts:
        found |= parse_override(text)
    return found


def _keep_definition(path: Path, overrides: Sequence[str], folder: Path) -> None:
    """The file as it is, with the overrides in its values."""
    content = read_yaml(path)
    values = flatten(content.get("values") or {})
    for text in overrides:
        values |= flatten(parse_override(text))
    if values:
        content["values"] = values
    content.setdefault("title", path.stem)
    write_text(folder / FILE, yaml.safe_dump(content, sort_keys=False))


def _list(runs: Sequence[SweepRun], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("run", "env steps", ""):
        table.add_column(column, justify="right" if column == "env steps" else "left")
    for run in runs[:LISTED]:
        done = "finished" if run.finished() else "begun" if run.folder.exists() else ""
        table.add_row(run.setting.name, f"{run.steps:,}", done)
    console.print(table)
    if len(runs) > LISTED:
        console.print(f"... and {len(runs) - LISTED} more")


def _say(found: Plan, at_once: int, folder: Path, console: Console) -> None:
    console.print(
        f"{found.runs} runs, {found.finished} finished; {found.env_steps:,} env steps left; "
        f"about {found.gb:.2f} GB in {folder}"
    )
    if found.seconds is None:
        return
    rest = "" if found.timed == found.programs else ", the others taken to be like them"
    console.print(
        f"about {clock(found.seconds)} one after another, without starts and compilation (speed of {found.timed} "
        f"of {found.programs} programs known{rest}); {at_once} at a time take at least "
        f"{clock(found.seconds / at_once)}, more where they share cores"
    )
