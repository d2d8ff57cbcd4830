"""What a person sees while training: a progress bar with an ETA, and a line for each row of metrics."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

FILLING = "filling replay"


class Screen:
    """Prints to the terminal; silent where `quiet`."""

    def __init__(self, total: int, done: int = 0, quiet: bool = False):
        self.console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        self.header_due = True
        self.bar = Progress(
            TextColumn("{task.fields[status]}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} env steps"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=total)
        self.begin(total, done)

    def begin(self, total: int, done: int) -> None:
        """Count from `done` to `total` env steps from now on."""
        self.total = total
        self.since: tuple[int, float] | None = None  # env step and time after the first update
        self.bar.reset(self.task, total=total, completed=done, status=FILLING)

    def __enter__(self) -> Screen:
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text)

    def progress(self, step: int, updating: bool) -> None:
        """Move the bar; `updating` is false while the replay is filled before the first update."""
        if updating and self.since is None:
            self.since = step, time.monotonic()
        self.bar.update(self.task, completed=step, status="training" if updating else FILLING)

    def row(self, step: int, row: dict[str, float]) -> None:
        """One line of the table of metrics; a dash where nothing is known yet."""
        if self.header_due:
            self.console.print(
                f"{'env steps':>12} {'return':>9} {'length':>7} {'episodes':>8} {'model loss':>10} "
                f"{'entropy':>8} {'steps/s':>8} {'env+act':>8} {'update':>7} {'ETA':>8}",
                style="bold",
            )
            self.header_due = False
        cells = [
            f"{step:>12,}",
            _cell(row, "episode/return", 9, ".1f" if abs(row.get("episode/return", 0)) >= 10 else ".2f"),
            _cell(row, "episode/length", 7, ".0f"),
            _cell(row, "episode/count", 8, ".0f"),
            _cell(row, "loss/model", 10, ".2f"),
            _cell(row, "behaviour/entropy", 8, ".2f"),
            _cell(row, "time/env_steps_per_s", 8, ".0f"),
            _cell(row, "time/share_acting", 8, ".0%"),
            _cell(row, "time/share_update", 7, ".0%"),
            f"{self.eta(step):>8}",
        ]
        self.console.print(" ".join(cells))

    def eta(self, step: int) -> str:
        """Time left at the speed since the first update; a dash before, since updates are what takes the time."""
        if self.since is None or step <= self.since[0]:
            return "-"
        left = (time.monotonic() - self.since[1]) * max(self.total - step, 0) / (step - self.since[0])
        return f"{int(left // 60)}:{int(left % 60):02d}"


def _cell(row: dict[str, float], key: str, width: int, form: str) -> str:
    return f"{row[key]:{width}{form}}" if key in row else f"{'-':>{width}}"
