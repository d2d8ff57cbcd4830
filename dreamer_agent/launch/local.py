"""Many runs in processes of this machine, some at a time, with a table of how far they are."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from dreamer_agent.errors import DreamerError
from dreamer_agent.interrupt import REQUEUE, on_interrupt
from dreamer_agent.launch.devices import Share, shares
from dreamer_agent.launch.work import Work, ended, last_line, log_of, name_of, start, told
from dreamer_agent.training.metrics import newest_metrics

POLL = 1.0  # seconds between looks at the processes
LOOK = 10.0  # seconds between looks at their metrics
RETRIES = 2  # of a run whose process is killed, where a command does not say
LISTED = 24  # runs that a screen shows
STATES = {
    "waiting": "dim", "running": "cyan", "done": "green", "failed": "red", "stopped": "yellow",
    "stopped early": "magenta",
}  # fmt: skip


@dataclass
class Run:
    """A run and the process that works on it."""

    work: Work
    state: str = "waiting"
    why: str = ""  # of a failure
    process: subprocess.Popen | None = None
    share: Share = field(default_factory=Share)
    began: tuple[float, float] = (0.0, 0.0)  # when its process did, and at which env step
    step: float = 0.0
    score: float | None = None
    retried: int = 0  # how often it was started again
    asked: bool = False  # whether its process was asked to end

    def look(self) -> None:
        """Read how far it is."""
        try:
            rows = newest_metrics(self.work.folder)
        except OSError:  # the process that writes them will say what is wrong
            return
        self.step = max((row["step"] for row in rows), default=0.0)
        self.score = next((row["episode/return"] for row in reversed(rows) if "episode/return" in row), None)

    def settled(self) -> bool:
        """Whether there is nothing to do: it is finished, or cannot be made."""
        self.look()
        try:
            self.work.check()
        except (DreamerError, OSError, ValueError) as error:
            self.state, self.why = "failed", told(error)
            return True
        return self.over()

    def over(self) -> bool:
        """Whether its folder holds a finished run, or one that has failed since what it holds is damaged."""
        try:
            if not self.work.finished():
                return False
            self.state = "done"
        except (DreamerError, OSError, ValueError) as error:
            self.state, self.why = "failed", told(error)
        return True

    def left(self) -> float | None:
        """Seconds until it has its steps, at the pace of its process; None where that is not known."""
        seconds, steps = time.monotonic() - self.began[0], self.step - self.began[1]
        if self.state != "running" or steps <= 0:
            return None
        return seconds / steps * max(self.work.steps - self.step, 0)


@dataclass
class Launcher:
    """Works through runs, `at_once` at a time, each on its share of the machine."""

    runs: list[Run]
    at_once: int
    console: Console
    retries: int = 0
    stopping: bool = False
    told: dict[str, str] = field(default_factory=dict)
    looked: float = 0.0  # when it last read how far they are

    def work(self) -> None:
        """Until all are done, failed, or a signal asks to end."""
        left = sum(not run.settled() for run in self.runs)
        free = shares(max(1, min(self.at_once, left)))
        try:
            self._work(free)
        finally:
            self._end_all()

    def _work(self, free: list[Share]) -> None:
        with on_interrupt(self._stop), self._shown() as live:
            while any(run.state in ("waiting", "running") for run in self.runs):
                for run in self.runs:
                    if run.state == "running" and run.process and run.process.poll() is not None:
                        self._end(run)
                        free.append(run.share)
                    if run.state == "waiting" and (free or self.stopping):
                        self._begin(run, free)
                self._look()
                self._tell(live)
                time.sleep(POLL)
            self._tell(live)

    def _look(self) -> None:
        """Read how far the runs at work are, where that is not known from just before."""
        if time.monotonic() - self.looked > LOOK:
            for run in self.runs:
                if run.state == "running":
                    run.look()
            self.looked = time.monotonic()

    def _begin(self, run: Run, free: list[Share]) -> None:
        if self.stopping:
            run.state = "stopped"
            return
        if run.settled():
            return
        run.share, run.began, run.state = free.pop(0), (time.monotonic(), run.step), "running"
        run.asked = False
        command = [*run.work.command(), ",".join(map(str, run.share.cores))]
        run.process = start(command, log_of(run.work), run.share.environment())
        if self.stopping:  # a signal came while it was started
            self._ask(run)

    def _end(self, run: Run) -> None:
        """What became of a run whose process has ended; one that was killed or sent away is tried again."""
        assert run.process is not None
        run.look()
        code = run.process.returncode
        if run.over():
            return
        if self.stopping:
            run.state = "stopped"
        elif (code < 0 or code == REQUEUE) and run.retried < self.retries:
            run.state, run.retried = "waiting", run.retried + 1
            self.console.print(
                f"{name_of(run.work)}: {ended(code)} at {run.step:,.0f} env steps; it goes on", markup=False
            )
        elif code == REQUEUE:
            run.state = "stopped"
        else:
            run.state, run.why = (
                "failed",
                f"{last_line(log_of(run.work))} ({ended(code)}, see {log_of(run.work)})",
            )

    def _stop(self, _: int) -> None:
        """Ask all processes to save and end."""
        self.stopping = True
        self.console.print(
            "stopping: all runs save first; a second Ctrl-C ends this command and leaves them to it"
        )
        for run in self.runs:
            self._ask(run)

    def _ask(self, run: Run) -> None:
        """Once: the second signal would end it before it has saved."""
        if run.process is not None and run.process.poll() is None and not run.asked:
            run.asked = True
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
            name = name_of(run.work)
            if self.told.get(name, "waiting") != run.state:
                self.told[name] = run.state
                score = "" if run.score is None else f", return {run.score:,.4g}"
                why = f": {run.why}" if run.why else ""
                self.console.print(
                    f"{name}: {run.state} at {run.step:,.0f}/{run.work.steps:,} env steps{score}{why}",
                    markup=False,  # what a process said last may look like it
                )

    def table(self) -> Table:
        """State, env steps, newest return and time left of the runs, and of all together."""
        table = Table(box=None, pad_edge=False)
        columns = list(self.runs[0].work.shown) if self.runs else []
        for column in (*columns, "state", "env steps", "return", "left"):
            table.add_column(column, justify="right" if column in ("env steps", "return", "left") else "left")
        for run in self._listed():
            table.add_row(
                *map(escape, run.work.shown.values()), f"[{STATES[run.state]}]{run.state}[/]",
                f"{run.step:,.0f}/{run.work.steps:,}", "-" if run.score is None else f"{run.score:,.4g}",
                clock(run.left()),
            )  # fmt: skip
        counts = Counter(run.state for run in self.runs)
        said = [f"{counts[state]} {state}" for state in STATES if counts[state]]
        left, best = self.left(), max((run.score for run in self.runs if run.score is not None), default=None)
        said += [f"about {clock(left)} left"] if left is not None else []
        said += [f"best so far {best:,.4g}"] if best is not None else []
        table.caption = ", ".join(said)
        return table

    def left(self) -> float | None:
        """Seconds until all are done, at the mean pace of those at work; None before they have one."""
        paces = [
            (time.monotonic() - run.began[0]) / (run.step - run.began[1])
            for run in self.runs
            if run.state == "running" and run.step > run.began[1]
        ]
        if not paces:
            return None
        steps = [max(run.work.steps - run.step, 0) for run in self.runs if run.state in ("running", "waiting")]
        return sum(steps) * sum(paces) / len(paces) / max(1, min(self.at_once, len(steps)))

    def _listed(self) -> list[Run]:
        """All runs; where they are too many for a screen, those at work and those that failed."""
        if len(self.runs) <= LISTED:
            return self.runs
        return [run for run in self.runs if run.state in ("running", "failed")][:LISTED]


def launch(works: Sequence[Work], at_once: int, console: Console | None = None, retries: int = 0) -> list[Run]:
    """Work through `works`, `at_once` at a time; what is finished is left as it is, what was begun goes on.

    A run that fails does not stop the others; one whose process was killed, or asked to end by somebody else, is
    started again up to `retries` times. Gives all with their states; those that a signal to this process has
    ended are "stopped" and have saved.
    """
    launcher = Launcher([Run(work) for work in works], at_once, console or Console(), retries)
    launcher.work()
    return launcher.runs


def clock(seconds: float | None) -> str:
    """Hours, minutes and seconds."""
    if seconds is None:
        return "-"
    return f"{int(seconds // 3600)}:{int(seconds // 60) % 60:02d}:{int(seconds) % 60:02d}"
