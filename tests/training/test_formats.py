"""Runs that older versions wrote: one for each format of checkpoints, kept in tests/data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import pytest

from dreamer_agent.api import evaluate_run, load_saved
from dreamer_agent.config import merge
from dreamer_agent.errors import RunDirectoryError
from dreamer_agent.training import run_directory, train
from dreamer_agent.training.checkpoint import FORMAT, newest
from dreamer_agent.training.metrics import read_metrics

DATA = Path(__file__).parent.parent / "data"


def test_every_format_is_kept() -> None:
    assert sorted(path.name for path in DATA.glob("format-*")) == [f"format-{n + 1}" for n in range(FORMAT)]


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_a_run_of_every_format_is_scored_and_goes_on(tmp_path: Path, number: int) -> None:
    run = shutil.copytree(DATA / f"format-{number}", tmp_path / "run")
    before = newest(run)
    assert before.format == number
    assert 1 <= evaluate_run(run, episodes=2).mean <= 500
    state = load_saved(run).state
    averaged = any(
        (a != b).any() for a, b in zip(*map(jax.tree.leaves, (state.average, state.params)), strict=True)
    )
    assert averaged == (number >= 2)  # an older one has no average: it begins with the parameters
    config = merge(run_directory.load(run), {"train": {"steps": before.step + 40}})
    train(config, run, quiet=True, allow=["version"])
    assert newest(run).step >= before.step + 40
    steps = [row["step"] for row in read_metrics(run)]
    assert steps == sorted(steps) and steps[0] <= 80


def test_another_version_is_refused_by_name_and_nothing_changes(tmp_path: Path) -> None:
    run = shutil.copytree(DATA / "format-1", tmp_path / "run")
    path = newest(run).folder / "commit.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "0.0.9"}))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    config = run_directory.load(run)
    with pytest.raises(RunDirectoryError, match=r"version=0\.0\.9 .*--allow version"):
        run_directory.check(run, config)
    run_directory.check(run, config, allow=["version"])
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
