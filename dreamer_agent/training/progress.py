"""What a run counts, and what was seen since the last row of metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dreamer_agent.training.driver import Episode
from dreamer_agent.training.metrics import average

PARTS = ("acting", "replay", "update")  # what the host's time is shared by, the rest left out


@dataclass
class Counters:
    """What the loop counts; written with every checkpoint."""

    env_steps: int = 0
    updates: int = 0
    episodes: int = 0
    acts: int = 0
    resumes: int = 0


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
    """What was seen since the last row of metrics, from these counts on."""

    first_step: int = 0
    first_update: int = 0
    episodes: list[Episode] = field(default_factory=list)

    def row(self, counters: Counters, metrics: list[dict[str, Any]], clock: Stopwatch) -> dict[str, float]:
        """A row of metrics, given those of the updates, whose means are taken."""
        row = average(metrics)
        if row:
            row["loss/model"] = sum(value for key, value in row.items() if key.startswith("loss/rec/")) + sum(
                row[f"loss/{key}"] for key in ("reward", "continue", "dyn")
            )
        if self.episodes:
            row["episode/return"] = float(np.mean([e.score for e in self.episodes]))
            row["episode/length"] = float(np.mean([e.length for e in self.episodes]))
        row["episode/count"] = counters.episodes
        row["updates"] = counters.updates
        row["time/env_steps_per_s"] = (counters.env_steps - self.first_step) / clock.elapsed
        row["time/updates_per_s"] = (counters.updates - self.first_update) / clock.elapsed
        return row | {f"time/share_{part}": share for part, share in clock.shares().items()}
