"""Reports that grow: records of runs whose directories are gone."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from dreamer_agent.bench.benchmark import Benchmark, Task, with_settings
from dreamer_agent.bench.finished import finished_of
from dreamer_agent.bench.identity import hash_of, same_values, values_of
from dreamer_agent.bench.jobs import Job, jobs_of
from dreamer_agent.bench.records import keep, recorded
from dreamer_agent.bench.report import write_report
from dreamer_agent.errors import RunDirectoryError
from tests.bench.runs import finish

POLE = Task("CartPole-v1", steps=1000, preset=("classic",), low=0, high=500, goal=475)
PENDULUM = Task("Pendulum-v1", steps=1000, preset=("pendulum",), low=-1000, high=0)
BENCHMARK = Benchmark("two", (POLE, PENDULUM), methods=("dreamer", "ppo"), seeds=2, episodes=4)


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """Seed 0 of both tasks and methods, finished."""
    out = jobs_of(BENCHMARK, tmp_path / "runs", [0])
    for number, job in enumerate(out):
        finish(job, [100.0 * number, 480.0, 480.0], 400 + number, mode=300)
    return out


def test_a_record_is_the_run_that_it_was_made_of(jobs: list[Job], tmp_path: Path) -> None:
    finished, _ = finished_of(jobs)
    keep(finished, tmp_path)
    found, left = recorded(BENCHMARK, tmp_path)
    assert [one.key for one in found] == [
        ("CartPole-v1", "dreamer", 0), ("CartPole-v1", "ppo", 0),
        ("Pendulum-v1", "dreamer", 0), ("Pendulum-v1", "ppo", 0),
    ]  # fmt: skip
    assert not left
    for before, after in zip(finished, found, strict=True):
        assert after.content() == before.content()
        assert after.frames().tolist() == before.frames().tolist()
    assert found[0].content()["frames_to_threshold"] == 1000


def test_a_report_on_some_runs_keeps_the_others(jobs: list[Job], tmp_path: Path) -> None:
    report = tmp_path / "report"
    whole = write_report(BENCHMARK, jobs, report, "the first")
    shutil.rmtree(tmp_path / "runs")
    (job,) = jobs_of(BENCHMARK.select(["CartPole-v1"]), tmp_path / "elsewhere", [1])[:1]
    finish(job, [500.0, 500.0], 500)
    content = write_report(BENCHMARK, [job], report, "the second")
    assert [task["env"] for task in content["tasks"]] == ["CartPole-v1", "Pendulum-v1"]
    assert content["tasks"][1] == whole["tasks"][1]
    ours = content["tasks"][0]["methods"]["dreamer"]
    assert ours["score"] == [450, 400, 500] and [one["seed"] for one in ours["seeds"]] == [0, 1]
    assert not content["missing"]
    assert len(json.loads((report / "curves.json").read_text())) == 5


def test_a_later_run_replaces_its_record(jobs: list[Job], tmp_path: Path) -> None:
    write_report(BENCHMARK, jobs, tmp_path / "report", "the first")
    again = dataclasses.replace(jobs[0], root=str(tmp_path / "again"))
    finish(again, [10.0], 10)
    content = write_report(BENCHMARK, [again], tmp_path / "report", "the second")
    assert content["tasks"][0]["methods"]["dreamer"]["score"] == [10, 10, 10]


def test_records_of_other_settings_and_damaged_ones_are_named(jobs: list[Job], tmp_path: Path) -> None:
    keep(finished_of(jobs)[0], tmp_path)
    records = tmp_path / "records"
    (records / "Pendulum-v1" / "dreamer-0.json").write_text('{"task": "Pendulum-v1"')
    no_facts = json.loads((records / "Pendulum-v1" / "ppo-0.json").read_text()) | {"facts": {}}
    (records / "Pendulum-v1" / "ppo-0.json").write_text(json.dumps(no_facts))
    found, left = recorded(with_settings(BENCHMARK, overrides=["replay.ratio=8"]), tmp_path)
    assert [one.key[:2] for one in found] == [("CartPole-v1", "ppo")]  # a ratio is none of its settings
    assert [(one["task"], one["method"], one["why"]) for one in left] == [
        ("CartPole-v1", "dreamer", "its record is one of other settings"),
        ("Pendulum-v1", "dreamer", "dreamer-0.json is damaged"),
        ("Pendulum-v1", "ppo", "ppo-0.json is damaged"),
    ]
    longer = dataclasses.replace(BENCHMARK, tasks=(dataclasses.replace(POLE, budgets={"ppo": 2000}),))
    assert [one.key[:2] for one in recorded(longer, tmp_path)[0]] == [("CartPole-v1", "dreamer")]
    with pytest.raises(RunDirectoryError, match="nothing to report"):
        write_report(BENCHMARK.select(["Pendulum-v1"]), [], tmp_path, "command")


def test_another_scale_is_another_view_of_the_same_record(jobs: list[Job], tmp_path: Path) -> None:
    keep(finished_of(jobs)[0], tmp_path)
    harder = Benchmark("harder", (dataclasses.replace(POLE, high=1000),))
    found, left = recorded(harder, tmp_path)
    assert not left and found[0].content()["frames_to_threshold"] is None


def test_the_values_of_a_baseline_are_its_settings() -> None:
    assert values_of(POLE, "ppo") == values_of(dataclasses.replace(POLE, note="other"), "ppo")
    assert values_of(POLE, "ppo") != values_of(POLE, "random")
    assert values_of(POLE, "ppo") != values_of(dataclasses.replace(POLE, budgets={"ppo": 7}), "ppo")


def test_a_value_that_is_new_since_a_run_counts_as_its_default() -> None:
    asked = values_of(POLE)
    older = {key: value for key, value in asked.items() if key != "model.unimix"}
    assert same_values(older, asked)
    assert not same_values(older, {**asked, "model.unimix": 0.5})
    assert not same_values({**asked, "replay.ratio": 1.0}, asked)
    assert not same_values({**asked, "model.gone": 1}, asked)
    raw = {key: value for key, value in asked.items() if key != "optimizer.average"}
    assert not same_values(raw, asked)  # parameters were scored as they were before there was an average
    assert same_values(raw, {**asked, "optimizer.average": 1.0})


def test_where_the_environments_were_stepped_is_no_other_run() -> None:
    asked = values_of(POLE)
    assert same_values({**asked, "env.isolate": True}, asked)
    assert values_of(dataclasses.replace(POLE, overrides={"env": {"processes": 2}})) == asked


def test_a_value_that_is_new_since_a_run_changes_no_hash() -> None:
    values = {"replay.ratio": 64.0, "optimizer.learning_rate": 7e-4}
    assert hash_of(values) == hash_of(values | {"optimizer.average": 1.0})  # what was done before there was one
    assert hash_of(values) != hash_of(values | {"optimizer.average": 500.0})
    assert hash_of(values) == hash_of(values | {"behaviour.planner": "", "model.cell": "block_gru"})
    assert hash_of(values) != hash_of(values | {"model.cell": "gru"})
    assert hash_of({"learning_rate": 1e-3}) != hash_of({"learning_rate": 1e-4})  # of a baseline
