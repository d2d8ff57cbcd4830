"""`dreamer-agent sweep`: say what a sweep will take, run what is left of it, and report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from dreamer_agent.config import read_yaml
from dreamer_agent.errors import ConfigError
from dreamer_agent.files import write_text
from dreamer_agent.interrupt import REQUEUE
from dreamer_agent.launch.local import RETRIES, Run, clock, launch
from dreamer_agent.launch.ray import launch_on_ray
from dreamer_agent.launch.ray_cluster import Options
from dreamer_agent.launch.slurm import launch_on_slurm
from dreamer_agent.launch.work import Work, mark_of, name_of, stopped_early
from dreamer_agent.sweeps.on_ray import asked, merged
from dreamer_agent.sweeps.plan import Plan, measured, plan
from dreamer_agent.sweeps.report import write_report
from dreamer_agent.sweeps.runs import SweepRun, check_steps, runs_of
from dreamer_agent.sweeps.split import as_programs
from dreamer_agent.sweeps.sweep import Sweep, load_sweep
from dreamer_agent.values import flatten, parse_override

LAUNCHERS = ("local", "vmap", "slurm", "ray")
FILE = "sweep.yaml"  # the definition beside the runs, so that `plot` finds it
FAILED = "failed.json"  # names of the runs that failed, and why, for a page that is written again
LISTED = 40  # runs that a dry run lists
TOGETHER = 16  # runs of one program


def run_sweep(
    path: Path, folder: Path | None = None, overrides: Sequence[str] = (), launcher: str = "local",
    at_once: int = 1, together: int = TOGETHER, dry: bool = False, only_report: bool = False,
    retries: int = RETRIES, job: Sequence[str] = (),
) -> int:  # fmt: skip
    """Do all runs of the sweep in `path` that are not finished below `folder`, then write the report there.

    `launcher` is "local" (processes, `at_once` at a time), "vmap" (what can be one program is, up to `together`
    runs; the rest as with "local"), "slurm" (a job for each) or "ray" (a trial for each); for these two `job` has
    parameters, key=value, over those of the file. A `dry` run only says what it would do. Gives an exit code: 0;
    1 where a run failed; 75 where a signal has ended it, and the same call goes on.
    """
    if launcher not in LAUNCHERS:
        raise ConfigError(f"There is no launcher '{launcher}': choose {', '.join(LAUNCHERS)}.")
    sweep = load_sweep(path, overrides)
    folder = folder or Path("runs") / "sweeps" / sweep.name
    runs = runs_of(sweep, folder)
    _check_folder(sweep, runs, folder)
    given = merged(getattr(sweep, launcher, {}), _parameters(job))
    options, search = asked(sweep, runs, folder, given) if launcher == "ray" else (Options(), None)
    planned = search.largest() if search else runs
    if not only_report:
        check_steps(runs)
    console = Console(highlight=False, soft_wrap=True)
    if dry:
        _list(runs, console)
        if launcher == "vmap":
            _as_programs(runs, together, console)
        if search:
            console.print(f"and those of {search.left()} points that Optuna is to suggest")
        console.print("timing up to four of its programs, about half a minute each ...")
        found = plan(planned, measured)
        _say(found, launcher, at_once, folder, console)
        found.check(sweep)
        return 0
    plan(planned).check(sweep)
    states: list[Run] = []
    if not only_report:
        folder.mkdir(parents=True, exist_ok=True)
        _keep_definition(path, overrides, folder)
        (folder / FAILED).unlink(missing_ok=True)  # all of them are tried again
        if options.asha is None:  # nobody stops them now: they go on
            for one in runs:
                mark_of(one).unlink(missing_ok=True)
        try:
            if launcher == "slurm":
                states = launch_on_slurm(runs, (folder / "slurm").absolute(), given, console, retries)
            elif launcher == "ray":
                states = launch_on_ray(runs, folder / "ray", options, console, retries, search)
            else:
                works = _as_programs(runs, together, console) if launcher == "vmap" else runs
                states = launch(works, at_once, console, retries)
        except KeyboardInterrupt:  # the second one
            return REQUEUE
    failed = {name_of(run.work): run.why for run in states if run.state == "failed"}
    _tell(states, failed, console)
    if failed:
        write_text(folder / FAILED, json.dumps(failed, indent=1) + "\n")
    if any(run.state == "stopped" for run in states):
        learned = "" if launcher == "slurm" else f"; what was learned is in {folder}"
        console.print(f"stopped{learned}; the same command goes on from there")
        return REQUEUE
    page = write_report(sweep, runs_of(sweep, folder), folder, failed=_failed_in(folder))
    console.print(f"report: {page}")
    return 1 if failed else 0


def report_of(
    folder: Path, x: str, group: str, compare: str | None, out: Path | None, goal: float | None = None
) -> Path:
    """The report of the sweep whose runs lie in `folder`, written to `out` or there."""
    sweep = load_sweep(folder / FILE)
    failed = _failed_in(folder)
    return write_report(sweep, runs_of(sweep, folder), out or folder, x, group, compare, failed, goal)


def is_sweep(folder: Path) -> bool:
    """Whether the runs of a sweep lie in `folder`."""
    return (folder / FILE).is_file()


def _as_programs(runs: Sequence[SweepRun], together: int, console: Console) -> Sequence[Work]:
    works, said = as_programs(runs, together)
    for sentence in said:
        console.print(sentence)
    return works


def _tell(states: Sequence[Run], failed: Mapping[str, str], console: Console) -> None:
    """Name the runs that failed, and count those that are not complete."""
    for name, why in failed.items():
        console.print(f"failed: {name}: {why}", markup=False)
    early = sum(run.state == "stopped early" for run in states)
    if early:
        console.print(f"stopped early: {early} of {len(states)} runs; without asha they go on")


def _parameters(texts: Sequence[str]) -> dict[str, Any]:
    """Parameters of a job, key=value; values as YAML reads them."""
    found: dict[str, Any] = {}
    for text in texts:
        found = merged(found, parse_override(text))
    return found


def _check_folder(sweep: Sweep, runs: Sequence[SweepRun], folder: Path) -> None:
    """Raise `ConfigError` where `folder` has the runs of another sweep: one of another title, not just a part."""
    if not is_sweep(folder):
        return
    held = " ".join(str(read_yaml(folder / FILE).get("title")).split())
    title, names = sweep.title or sweep.name, {run.folder.name for run in runs}
    others = sorted({path.parent.name for path in folder.glob("*-*/config.yaml")} - names)
    if others and held != title:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise ConfigError(
            f"{folder} holds runs of the sweep '{held}' that '{title}' does not have ({others[0]}{more}): give "
            f"another --out, or the title '{held}' if it is the same sweep."
        )


def _keep_definition(path: Path, overrides: Sequence[str], folder: Path) -> None:
    """The file as it is, with the overrides in its values."""
    content = read_yaml(path)
    values = flatten(content.get("values") or {})
    for text in overrides:
        values |= flatten(parse_override(text))
    if values:
        content["values"] = values
    content["title"] = content.get("title") or path.stem
    write_text(folder / FILE, yaml.safe_dump(content, sort_keys=False))


def _failed_in(folder: Path) -> dict[str, str]:
    """Which runs failed when they were last tried, and why."""
    path = folder / FAILED
    return json.loads(path.read_text()) if path.is_file() else {}


def _list(runs: Sequence[SweepRun], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("run", "env steps", ""):
        table.add_column(column, justify="right" if column == "env steps" else "left")
    for run in runs[:LISTED]:
        begun = "stopped early" if stopped_early(run) else "begun" if run.folder.exists() else ""
        done = "finished" if run.finished() else begun
        table.add_row(run.setting.name, f"{run.steps:,}", done)
    console.print(table)
    if len(runs) > LISTED:
        console.print(f"... and {len(runs) - LISTED} more")


def _say(found: Plan, launcher: str, at_once: int, folder: Path, console: Console) -> None:
    console.print(
        f"{found.runs} runs, {found.finished} finished; {found.env_steps:,} env steps left; "
        f"about {found.gb:.2f} GB in {folder}"
    )
    if found.seconds is None:
        return
    rest = "" if found.timed == found.programs else ", the others taken to be like them"
    at_once = min(at_once, found.runs - found.finished)
    least = clock(found.seconds / at_once)
    together = {
        "local": f"; {at_once} at a time take at least {least}, more where they share cores",
        "vmap": "; how long those of one program take together was not timed",
    }
    console.print(
        f"about {clock(found.seconds)} one after another, without starts and compilation (speed of {found.timed} "
        f"of {found.programs} programs known{rest}){together.get(launcher, '')}"
    )
