"""Many runs in processes of their own, some at a time, with a table of how far they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from dreamer_agent.bench.jobs import Job, check, told
from dreamer_agent.errors import DreamerError
from dreamer_agent.interrupt import REQUEUE, on_interrupt
from dreamer_agent.training.metrics import newest_metrics

POLL = 1.0  # seconds between looks at the processes
LOOK = 10.0  # seconds between looks at their metrics
LISTED = 24  # runs that a screen shows
STATES = {"waiting": "dim", "running": "cyan", "done": "green", "failed": "red", "stopped": "yellow"}


@dataclass
class Run:
    """A job and the process that works on it."""

    job: Job
    state: str = "waiting"
    why: str = ""  # of a failure
    process: subprocess.Popen | None = None
    cores: tuple[int, ...] = ()
    began: tuple[float, float] = (0.0, 0.0)  # when its process did, and at which env step
    step: float = 0.0
    score: float | None = None

    def look(self) -> None:
        """Read how far it is."""
        try:
            rows = newest_metrics(self.job.folder)
        except OSError:  # the process that writes them will say what is wrong
            return
        self.step = max((row["step"] for row in rows), default=0.0)
        self.score = next((row["episode/return"] for row in reversed(rows) if "episode/return" in row), None)

    def left(self) -> float | None:
        """Seconds until it has its steps, at the pace of its process; None where that is not known."""
        seconds, steps = time.monotonic() - self.began[0], self.step - self.began[1]
        if self.state != "running" or steps <= 0:
            return None
        return seconds / steps * max(self.job.steps - self.step, 0)


@dataclass
class Launcher:
    """Works through jobs, `jobs` at a time, each on its share of the cores that this process may use."""

    runs: list[Run]
    jobs: int
    console: Console
    stopping: bool = False
    told: dict[str, str] = field(default_factory=dict)

    def work(self) -> None:
        """Until all are done, failed, or a signal asks to end."""
        free = shares(min(self.jobs, len(self.runs)))
        try:
            self._work(free)
        finally:
            self._end_all()

    def _work(self, free: list[tuple[int, ...]]) -> None:
        last = 0.0
        with on_interrupt(self._stop), self._shown() as live:
            while any(run.state in ("waiting", "running") for run in self.runs):
                for run in self.runs:
                    if run.state == "running" and run.process and run.process.poll() is not None:
                        self._end(run)
                        free.append(run.cores)
                    if run.state == "waiting" and (free or self.stopping):
                        self._begin(run, free)
                if time.monotonic() - last > LOOK:
                    for run in self.runs:
                        if run.state == "running":
                            run.look()
                    last = time.monotonic()
                self._tell(live)
                time.sleep(POLL)
            self._tell(live)

    def _begin(self, run: Run, free: list[tuple[int, ...]]) -> None:
        if self.stopping:
            run.state = "stopped"
            return
        try:
            check(run.job)
            if run.job.evaluation() is not None:
                run.look()
                run.state = "done"
                return
        except (DreamerError, OSError, ValueError) as error:
            run.state, run.why = "failed", told(error)
            return
        run.look()
        run.cores, run.began, run.state = free.pop(0), (time.monotonic(), run.step), "running"
        run.job.log.parent.mkdir(parents=True, exist_ok=True)
        with run.job.log.open("ab") as log:
            run.process = subprocess.Popen(
                command(run),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(self.jobs),
                start_new_session=True,
            )
        if self.stopping:  # a signal came while it was started
            self._ask(run)

    def _end(self, run: Run) -> None:
        assert run.process is not None
        run.look()
        code = run.process.returncode
        if run.job.evaluation() is not None:
            run.state = "done"
        elif self.stopping or code == REQUEUE:
            run.state = "stopped"
        else:
            run.state, run.why = "failed", f"{_last_line(run.job.log)} (exit code {code}, see {run.job.log})"

    def _stop(self, _: int) -> None:
        """Ask all processes to save and end.

        Each has a session of its own, so that no signal reaches it twice.
        """
        self.stopping = True
        self.console.print(
            "stopping: all runs save first; a second Ctrl-C ends this command and leaves them to it"
        )
        for run in self.runs:
            self._ask(run)

    def _ask(self, run: Run) -> None:
        if run.process is not None and run.process.poll() is None:
            run.process.send_signal(signal.SIGTERM)

    def _end_all(self) -> None:
        """No process outlives the launcher for long, however it ends: each saves and ends."""
        for run in self.runs:
            self._ask(run)

    @contextmanager
    def _shown(self) -> Iterator[Live | None]:
        if not self.console.is_terminal:
            yield None
            return
        with Live(self.table(), console=self.console, refresh_per_second=1) as live:
            yield live

    def _tell(self, live: Live | None) -> None:
        """The table; or, where the screen is a file, a line for every run whose state has changed."""
        if live is not None:
            live.update(self.table())
            return
        for run in self.runs:
            name = f"{run.job.task.env} {run.job.method} seed {run.job.seed}"
            if self.told.get(name, "waiting") != run.state:
                self.told[name] = run.state
                score = "" if run.score is None else f", return {run.score:,.4g}"
                why = f": {run.why}" if run.why else ""
                self.console.print(
                    f"{name}: {run.state} at {run.step:,.0f}/{run.job.steps:,} env steps{score}{why}"
                )

    def table(self) -> Table:
        """State, env steps, newest return and time left of the runs."""
        table = Table(box=None, pad_edge=False)
        for column in ("task", "method", "seed", "state", "env steps", "return", "left"):
            table.add_column(column, justify="left" if column in ("task", "method", "state") else "right")
        for run in self._listed():
            left = run.left()
            table.add_row(
                run.job.task.env, run.job.method, str(run.job.seed), f"[{STATES[run.state]}]{run.state}[/]",
                f"{run.step:,.0f}/{run.job.steps:,}", "-" if run.score is None else f"{run.score:,.4g}",
                "-" if left is None else f"{int(left // 3600)}:{int(left // 60) % 60:02d}:{int(left) % 60:02d}",
            )  # fmt: skip
        counts = Counter(run.state for run in self.runs)
        table.caption = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
        return table

    def _listed(self) -> list[Run]:
        """All runs; where they are too many for a screen, those at work and those that failed."""
        if len(self.runs) <= LISTED:
            return self.runs
        return [run for run in self.runs if run.state in ("running", "failed")]


def launch(jobs: Sequence[Job], at_once: int, console: Console | None = None) -> list[Run]:
    """Work through `jobs`, `at_once` at a time; what is finished is left as it is, what was begun goes on.

    A run that fails does not stop the others. Gives all with their states; those that a signal has ended
    are "stopped" and have saved.
    """
    launcher = Launcher([Run(job) for job in jobs], at_once, console or Console())
    launcher.work()
    return launcher.runs


def command(run: Run) -> list[str]:
    """What a run's process executes."""
    cores = ",".join(map(str, run.cores))
    return [sys.executable, "-m", "dreamer_agent.bench.jobs", run.job.text(), cores]


def environment(at_once: int) -> dict[str, str]:
    """The variables of a run's process: where several run at once, each takes its share of a GPU's memory.

    That of one process alone is 0.75, JAX's default; what the user has set stays.
    """
    share = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.75 / at_once:.3f}"} if at_once > 1 else {}
    return share | dict(os.environ)


def shares(count: int) -> list[tuple[int, ...]]:
    """The cores that this process may use in `count` equal parts; parts overlap where there are fewer cores."""
    if not hasattr(os, "sched_getaffinity"):
        return [()] * count
    cores = sorted(os.sched_getaffinity(0))
    width = max(len(cores) // count, 1)
    return [tuple(cores[(part * width + i) % len(cores)] for i in range(width)) for part in range(count)]


def _last_line(path: Path) -> str:
    lines: list[Any] = path.read_text(errors="replace").split("\n") if path.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it ended without a word")
