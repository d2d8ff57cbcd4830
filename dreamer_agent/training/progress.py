"""What a run counts, and what was seen since the last row of metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dreamer_agent.training.driver import Episode, mean_numbers
from dreamer_agent.training.metrics import average

PARTS = ("acting", "replay", "update", "checkpoint")  # what the host's time is shared by, the rest left out


@dataclass
class Counters:
    """What the loop counts; written with every checkpoint."""

    env_steps: int = 0
    updates: int = 0
    episodes: int = 0
    reported: int = 0  # the env step until which rows were written, and whatever else was due
    evaluated: int = 0  # the env step of the last evaluation on the way
    faults: int = 0  # of environments that were restarted
    skipped: int = 0  # updates that were not finite
    rollbacks: int = 0  # to a checkpoint, after too many of these
    cuts: int = 0  # how often the run was resumed and its episodes had to begin anew


class Stopwatch:
    """The host's seconds by part, and since the last reset. Parts do not nest."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.start = time.monotonic()
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time inside to `part`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] += time.monotonic() - start

    @property
    def elapsed(self) -> float:
        """Seconds since the last reset, never zero."""
        return max(time.monotonic() - self.start, 1e-9)

    def shares(self) -> dict[str, float]:
        """The share of each part."""
        return {part: seconds / self.elapsed for part, seconds in self.seconds.items()}


@dataclass
class Window:
    """What was seen since the last row of metrics, from these counts on.

    The clock began at `timed_step` and `timed_update`, which are later where the run was resumed since.
    """

    first_step: int = 0
    first_update: int = 0
    episodes: list[Episode] = field(default_factory=list)
    timed_step: int = 0
    timed_update: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # of the metrics of updates, where a loop adds them up

    @classmethod
    def since(cls, counters: Counters) -> Window:
        """An empty one from now on."""
        now = counters.env_steps, counters.updates
        return cls(*now, [], *now)

    def start_clock(self, counters: Counters) -> None:
        """The clock begins now."""
        self.timed_step, self.timed_update = counters.env_steps, counters.updates

    def save(self) -> dict[str, Any]:
        """As plain data."""
        rows = [[*episode[:-1], dict(episode.numbers)] for episode in self.episodes]
        first = {"first_step": self.first_step, "first_update": self.first_update}
        return {**first, "episodes": rows, "sums": dict(self.sums)}

    @classmethod
    def restored(cls, saved: dict[str, Any], counters: Counters) -> Window:
        """The inverse of `save`, timed from now on."""
        episodes = [Episode(*row) for row in saved["episodes"]]
        first = int(saved["first_step"]), int(saved["first_update"])
        return cls(*first, episodes, counters.env_steps, counters.updates, dict(saved["sums"]))

    def row(self, counters: Counters, metrics: list[dict[str, Any]], clock: Stopwatch) -> dict[str, float]:
        """A row of metrics, given those of the updates, whose means are taken."""
        row = average(metrics)
        if row:
            row["loss/model"] = sum(value for key, value in row.items() if key.startswith("loss/rec/")) + sum(
                row.get(f"loss/{key}", 0.0) for key in ("reward", "continue", "dyn")
            )
        if self.episodes:
            row["episode/return"] = float(np.mean([e.score for e in self.episodes]))
            row["episode/length"] = float(np.mean([e.length for e in self.episodes]))
            numbers = mean_numbers([e.numbers for e in self.episodes])
            row |= {f"episode/{name}": mean for name, mean in numbers.items()}
        row["episode/count"] = counters.episodes
        row["updates"] = counters.updates
        row["updates_skipped"] = counters.skipped
        row["env_faults"] = counters.faults
        row["time/env_steps_per_s"] = (counters.env_steps - self.timed_step) / clock.elapsed
        row["time/updates_per_s"] = (counters.updates - self.timed_update) / clock.elapsed
        return row | {f"time/share_{part}": share for part, share in clock.shares().items()}


def crossed(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]."""
    return now // every > before // every
