"""The lines that a person sees while training."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dreamer_agent.training import screen as module
from dreamer_agent.training.screen import Screen


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands where its only element says."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_the_eta_is_that_of_the_updates(clock: list[float]) -> None:
    screen = Screen(total=1000, quiet=True)
    clock[0] += 1
    screen.progress(200, updating=False)  # 200 steps in a second, before anything is learned
    assert screen.eta(200) == "-"
    clock[0] += 30  # the update is compiled
    screen.progress(210, updating=True)
    assert screen.eta(210) == "-"
    clock[0] += 60
    screen.progress(310, updating=True)
    assert screen.eta(310) == "6:54"  # 690 steps at 100 a minute
    assert screen.eta(1004) == "0:00"


def test_a_row_says_what_is_known(clock: list[float]) -> None:
    screen = Screen(total=1000)
    screen.console = Console(file=io.StringIO(), width=200)
    screen.row(500, {"episode/return": 0.9375, "episode/length": 8.0, "time/share_acting": 0.25})
    screen.row(1000, {"episode/return": -187.25, "loss/model": 1.5})
    header, first, second = screen.console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert header.split()[:3] == ["env", "steps", "return"]
    assert first.split() == ["500", "0.94", "8", "-", "-", "-", "-", "25%", "-", "-"]
    assert second.split()[:2] == ["1,000", "-187.2"] and "1.50" in second
