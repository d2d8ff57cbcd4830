"""Real processes that are killed and asked to stop; the long form is `python -m benchmarks.reliability`."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from benchmarks.reliability.kill import asked_to_stop, differences, killed, undisturbed

SHORTER = ("train.steps=500", "train.checkpoint_every=50", "replay.capacity=400")


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory) -> tuple[Path, float]:
    folder = tmp_path_factory.mktemp("kill") / "left alone"
    return folder, undisturbed("classic", folder, SHORTER)


def test_a_killed_run_ends_as_one_that_was_left_alone(left_alone, tmp_path: Path) -> None:
    folder, _ = left_alone
    kills = killed("classic", tmp_path / "killed", 3, 3.0, random.Random(0), SHORTER)  # one a second or so
    assert kills and any(kill.checkpoint > 0 for kill in kills)
    assert differences(folder, tmp_path / "killed") == []


def test_a_run_that_is_asked_to_stop_saves_and_goes_on_exactly(left_alone, tmp_path: Path) -> None:
    folder, seconds = left_alone
    for number in (signal.SIGTERM, signal.SIGINT):
        took, code, _ = asked_to_stop("classic", tmp_path / "run", number, seconds / 4, random.Random(1), SHORTER)
        assert code in (75, 0) and took < 30
    undisturbed("classic", tmp_path / "run", SHORTER)
    assert differences(folder, tmp_path / "run") == []
