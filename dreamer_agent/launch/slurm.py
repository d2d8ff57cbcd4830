"""Runs as jobs of Slurm, by submitit: an array of them, requeued where they are preempted or out of time."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from dreamer_agent.errors import ConfigError, missing_extra
from dreamer_agent.files import write_text
from dreamer_agent.interrupt import on_interrupt
from dreamer_agent.launch.local import Launcher, Run
from dreamer_agent.launch.work import Work, last_line, log_of, name_of, start

JOBS = "jobs.json"  # run directories, seen from there, and the ids of their jobs
DEFAULTS = {
    "timeout_min": 240,
    "slurm_max_num_timeout": 100,
}  # what a job may take at a time, and how often again
POLL = 10.0  # seconds between looks at the jobs


class Task:
    """What a job executes: the process of one run, which saves when Slurm wants the machine back."""

    def __init__(self, command: Sequence[str], log: Path):
        self.command, self.log = list(command), log
        self.pid = 0

    def __call__(self) -> None:
        """Until the process has ended; raises `RuntimeError` where it failed."""
        # In a session of its own: the signal of Slurm is for this process, which asks that one to save.
        self.pid = start(self.command, self.log).pid
        code = reaped(self.pid)
        if code:
            raise RuntimeError(f"{last_line(self.log)} (exit code {code}, see {self.log})")

    def checkpoint(self) -> Any:
        """Have the process save and end; gives the job that goes on.

        Called by submitit, within a signal's handler.
        """
        from submitit.helpers import DelayedSubmission

        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
            reaped(self.pid)
        return DelayedSubmission(Task(self.command, self.log))


def reaped(pid: int, seconds: float = 0.2) -> int:
    """Wait for a child to end; gives its exit code, negative for a signal.

    By looking again and again: a signal's handler that waits for the same child must not wait for a lock.
    """
    while True:
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # the other one of the two has seen its end
            return 0
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(seconds)


@dataclass
class SlurmLauncher(Launcher):
    """Submits runs and watches their jobs; Ctrl-C leaves them to Slurm."""

    folder: Path = Path()  # of submitit's files
    parameters: Mapping[str, Any] = field(default_factory=dict)
    jobs: dict[Path, Any] = field(default_factory=dict)  # by run directories

    def work(self) -> None:
        """Submit what is to be done and wait until it is, or until a signal ends the waiting."""
        for run in self.runs:
            self._settle(run)
        with on_interrupt(self._stop), self._shown() as live:
            while any(run.state in ("waiting", "running") for run in self.runs):
                self._submit([run for run in self.runs if run.state == "waiting"])
                self._look()
                self._tell(live)
                time.sleep(POLL)
                for run in self.runs:
                    if run.state == "running" and self.jobs[run.work.folder].done():
                        self._end(run)
            self._tell(live)

    def _settle(self, run: Run) -> None:
        """Whether a run is finished, cannot be made, or has a job of an earlier call that is still there."""
        if run.settled():
            return
        known = jobs_in(self.folder).get(self._key(run.work.folder))
        if known is not None and self.parameters.get("cluster", "slurm") == "slurm":
            import submitit

            job: Any = submitit.SlurmJob(self.folder, known)
            if not job.done(force_check=True):
                self._began(run, job)

    def _submit(self, runs: Sequence[Run]) -> None:
        """Submit `runs`, several as one array."""
        if not runs:
            return
        executor = executor_of(self.folder, self.parameters)
        with executor.batch():
            jobs = [executor.submit(Task(run.work.command(), log_of(run.work))) for run in runs]
        for run, job in zip(runs, jobs, strict=True):
            self._began(run, job)
        known = jobs_in(self.folder) | {self._key(folder): job.job_id for folder, job in self.jobs.items()}
        write_text(self.folder / JOBS, json.dumps(known, indent=1) + "\n")
        self.console.print(f"submitted {len(runs)} jobs: {jobs[0].job_id} to {jobs[-1].job_id}")

    def _key(self, folder: Path) -> str:
        """A run directory as seen from `folder`: the same wherever, and however, the command is given."""
        return os.path.relpath(folder, self.folder)

    def _began(self, run: Run, job: Any) -> None:
        self.jobs[run.work.folder] = job
        run.state, run.began = "running", (time.monotonic(), run.step)

    def _end(self, run: Run) -> None:
        """What became of a run whose job is over."""
        run.look()
        if run.over():
            return
        if run.retried < self.retries and not failed_for_good(run.work):
            run.state, run.retried = "waiting", run.retried + 1
            self.console.print(f"{name_of(run.work)}: its job ended at {run.step:,.0f} env steps; it goes on")
        else:
            run.state, run.why = "failed", f"{last_line(log_of(run.work))} (see {log_of(run.work)})"

    def _stop(self, _: int) -> None:
        self.stopping = True
        self.console.print("the jobs go on; the same command finds them again (scancel ends them)")
        for run in self.runs:
            if run.state in ("running", "waiting"):
                run.state = "stopped"


def executor_of(folder: Path, parameters: Mapping[str, Any]) -> Any:
    """submitit's executor; `ConfigError` for parameters that it does not know, or without Slurm."""
    try:
        import submitit
    except ImportError as error:
        raise missing_extra("submitit", "slurm") from error
    given = {**DEFAULTS, **parameters}
    folder.mkdir(parents=True, exist_ok=True)
    timeouts = {"slurm_max_num_timeout": int(given.pop("slurm_max_num_timeout"))}
    cluster = given.pop("cluster", "slurm")
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster, **timeouts)
        executor.update_parameters(**given)
    except (ValueError, RuntimeError, TypeError, NameError, AssertionError) as error:
        raise ConfigError(f"Slurm cannot be used as asked: {' '.join(str(error).split())}") from error
    return executor


def jobs_in(folder: Path) -> dict[str, str]:
    """The ids of jobs submitted from `folder`, by run directories as seen from there."""
    path = folder / JOBS
    return json.loads(path.read_text()) if path.is_file() else {}


def failed_for_good(work: Work) -> bool:
    """Whether the process of a run said that trying again would not help."""
    return last_line(log_of(work)).startswith("error: ")


def launch_on_slurm(
    works: Sequence[Work], folder: Path, parameters: Mapping[str, Any], console: Console | None = None,
    retries: int = 0,
) -> list[Run]:  # fmt: skip
    """Work through `works` as jobs of Slurm; what is finished is left as it is, what was begun goes on.

    `folder` takes submitit's files. `parameters` are those of submitit's AutoExecutor (timeout_min,
    gpus_per_node, slurm_partition, ...) and `cluster` ("slurm", or "local" to try it without). A job that is
    preempted or out of time saves, and Slurm starts it again; one that ended otherwise without finishing is
    submitted again up to `retries` times, unless it cannot be made as it is. Runs are "stopped" where a signal
    has ended the waiting; their jobs go on.
    """
    runs = [Run(work) for work in works]
    launcher = SlurmLauncher(
        runs, len(works), console or Console(), retries, folder=folder, parameters=parameters
    )
    launcher.work()
    return launcher.runs
