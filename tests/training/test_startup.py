"""Where the time until the first update goes, and where that of the host goes after it."""

from __future__ import annotations

import jax
import pytest

from dreamer_agent.training import progress, startup
from dreamer_agent.training.progress import Counters, Stopwatch, Window
from dreamer_agent.training.startup import COMPILING, LOADING, TRACING, Startup


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands where its only element says."""
    now = [100.0]
    monkeypatch.setattr(startup.time, "time", lambda: now[0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def tell(clock: list[float], event: str, seconds: float) -> None:
    """Something that JAX does for so long."""
    clock[0] += seconds
    jax.monitoring.record_event_duration_secs(event, seconds)


def test_the_time_until_the_first_update_is_told_part_by_part(clock: list[float]) -> None:
    start = Startup(opened=100.0, began=98.0)
    clock[0] += 0.5  # of something else
    tell(clock, TRACING[0], 0.25)
    start.fill()
    tell(clock, COMPILING, 0.75)  # the policy
    clock[0] += 1.5  # steps of the environments
    start.filled()
    tell(clock, TRACING[1], 3.0)  # the update
    tell(clock, LOADING, 3.5)
    jax.monitoring.record_event_duration_secs(COMPILING, 3.5)  # the load is reported within
    start.filled()
    line = start.updated()
    tell(clock, COMPILING, 9.0)  # not ours any more
    assert line == (
        "first update after 11.5 s: import 2.0, trace 3.2, compile 0.8, load 3.5, prefill 1.5, other 0.5"
    )
    row = {
        "total": 11.5, "import": 2.0, "trace": 3.25, "compile": 0.75, "load": 3.5, "prefill": 1.5, "other": 0.5,
    }  # fmt: skip
    assert start.row() == {f"time/start_{key}": value for key, value in row.items()}
    assert start.row() == {}


def test_without_a_command_the_time_begins_with_the_run(clock: list[float]) -> None:
    start = Startup(opened=99.0)
    start.filled()  # resumed: there was nothing to fill
    assert start.updated() == "first update after 1.0 s: trace 0.0, compile 0.0, load 0.0, prefill 0.0, other 1.0"


def test_one_that_is_closed_hears_nothing(clock: list[float]) -> None:
    start = Startup(opened=100.0)
    start.close()
    start.close()
    tell(clock, COMPILING, 5.0)
    assert start.spent["compile"] == 0 and not start.listening


def test_shares_are_those_of_the_time_since_the_last_row(clock: list[float]) -> None:
    watch = Stopwatch()
    with watch("update"):
        clock[0] += 3
    watch.reset()
    for part, seconds in (("acting", 1), ("update", 2), ("acting", 1)):
        with watch(part):
            clock[0] += seconds
    clock[0] += 4
    assert watch.shares() == {"acting": 0.25, "replay": 0.0, "update": 0.25, "checkpoint": 0.0}


def test_a_row_counts_what_came_since_the_last_one(clock: list[float]) -> None:
    window, watch = Window(timed_step=100, timed_update=10), Stopwatch()
    clock[0] += 4
    row = window.row(Counters(env_steps=140, updates=18, episodes=3), [], watch)
    assert row == {
        "episode/count": 3, "updates": 18, "updates_skipped": 0, "env_faults": 0,
        "time/env_steps_per_s": 10.0, "time/updates_per_s": 2.0,
        "time/share_acting": 0.0, "time/share_replay": 0.0, "time/share_update": 0.0,
        "time/share_checkpoint": 0.0,
    }  # fmt: skip
