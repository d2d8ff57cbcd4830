"""Runs of a benchmark: whose folder it is, and one from the command to the report."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
from pathlib import Path

import pytest
from rich.console import Console

from dreamer_agent.bench import command
from dreamer_agent.bench.benchmark import Benchmark, Task, load_benchmark, with_settings
from dreamer_agent.bench.command import run_benchmark
from dreamer_agent.bench.finished import finished_of
from dreamer_agent.bench.jobs import Job, check, jobs_of
from dreamer_agent.envs.catalogue import LIBRARIES, Library
from dreamer_agent.errors import MissingExtraError, RunDirectoryError
from dreamer_agent.launch.local import launch
from tests.bench.runs import finish
from tests.conftest import TEST_SIZE


def test_another_run_in_the_folder_is_not_taken_for_ours(tmp_path: Path) -> None:
    (job,) = jobs_of(Benchmark("b", (Task("CartPole-v1", 1000, ("classic",)),), seeds=1), tmp_path)
    finish(job, [3.0], 5.0)
    check(job)
    other = Task("CartPole-v1", 1000, ("classic",), overrides={"replay": {"ratio": 8}})
    changed = Job(other, job.method, job.seed, job.root, job.episodes)
    with pytest.raises(RunDirectoryError, match=r"replay\.ratio=128.*give another --out"):
        check(changed)
    (run,) = launch([changed], 1, Console(file=io.StringIO()))
    assert run.state == "failed" and "replay.ratio=128" in run.why


@pytest.mark.parametrize("value", ["train.loop=device", "init_from=elsewhere", "train.updates_per_dispatch=7"])
def test_a_finished_run_is_of_the_values_that_it_was_trained_with(tmp_path: Path, value: str) -> None:
    benchmark = Benchmark("b", (Task("CartPole-v1", 1000, ("classic",)),), seeds=1)
    (job,) = jobs_of(benchmark, tmp_path)
    finish(job, [3.0], 5.0)
    changed = jobs_of(with_settings(benchmark, overrides=[value]), tmp_path)
    found, missing = finished_of(changed)
    key = value.partition("=")[0]
    assert not found and f"a finished run with {key}=" in missing[0]["why"] and value in missing[0]["why"]
    (run,) = launch(changed, 1, Console(file=io.StringIO()))
    assert run.state == "failed" and "give another --out" in run.why
    (job.folder / "evaluation.json").unlink()  # not finished: it may go on so
    check(changed[0])


def test_missing_packages_are_told_before_anything_starts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(command, "launch", lambda *_: pytest.fail("it was launched"))
    tasks = (Task("CartPole-v1", 1000, ("classic",)), Task("atari:pong", 1000, methods=("dreamer",)))
    benchmark = Benchmark("b", tasks, seeds=1)
    monkeypatch.setitem(LIBRARIES, "atari", Library(("not_there",), "atari", list))
    with pytest.raises(MissingExtraError, match=r"'not_there' is not installed.*dreamer-agent\[atari\]"):
        run_benchmark(benchmark, tmp_path / "out")
    theirs = dataclasses.replace(benchmark, methods=("random",))  # which leaves the game out
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'stable-baselines3' is not installed"):
        run_benchmark(theirs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RunDirectoryError, match="nothing to report"):
        run_benchmark(benchmark, tmp_path / "out", only_report=True)


def test_a_real_run_from_the_command_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [*TEST_SIZE, "replay.prefill=64", "replay.ratio=16", "env.num_envs=2"]
    benchmark = with_settings(
        load_benchmark(["CartPole-v1"], ["classic"]), steps=200, overrides=small, episodes=3
    )
    monkeypatch.setattr("sys.argv", ["dreamer-agent", "bench", "CartPole-v1", "--out", str(tmp_path)])
    assert run_benchmark(benchmark, tmp_path, seeds=[5]) == 0
    assert (tmp_path / "CartPole-v1" / "dreamer-5" / "checkpoints").is_dir()
    page = (tmp_path / "report.md").read_text()
    assert "| CartPole-v1 | dreamer_agent | 200 | 1 |" in page
    assert "`dreamer-agent bench CartPole-v1`" in page and str(tmp_path) not in page
    assert str(tmp_path) not in (tmp_path / "report.json").read_text()
