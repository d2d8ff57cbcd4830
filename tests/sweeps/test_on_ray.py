"""Sweeps on Ray: the same runs as with processes, early stopping in the report, points that Optuna suggests."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dreamer_agent.errors import ConfigError, MissingExtraError
from dreamer_agent.launch.local import Run
from dreamer_agent.sweeps.command import report_of, run_sweep
from dreamer_agent.sweeps.found import found_in, keep_found
from dreamer_agent.sweeps.on_ray import asked, merged
from dreamer_agent.sweeps.runs import SweepRun, runs_of
from dreamer_agent.sweeps.search import Search
from dreamer_agent.sweeps.sweep import SPECIAL, Sweep, load_sweep
from tests.sweeps.test_command import RATES, sweep_file

RATE = "optimizer.learning_rate"

# A run that is the better, the nearer its learning rate is to 1e-3.
FAKE = """
import json, math, signal, sys, time
from pathlib import Path
run = json.loads(sys.argv[1])
folder, rate, steps = Path(run["folder"]), run["rate"], run["steps"]
folder.mkdir(parents=True, exist_ok=True)
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
value = -abs(math.log10(rate) + 3)
state = folder / "state"
for step in range(int(state.read_text()) if state.exists() else 0, steps, 10):
    if ended:
        sys.exit(75)
    row = {"step": step + 10, "episode/return": value, "episode/count": 1, "updates": 1}
    row["time/env_steps_per_s"] = 10
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\\n")
    state.write_text(str(step + 10))
    time.sleep(run["seconds"])
score = dict(policy="sample", episodes=1, return_mean=value, return_std=0.0)
(folder / "evaluation.json").write_text(json.dumps({"env_steps": steps, "updates": 1, "scores": [score, score]}))
"""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Runs without training, that take so many seconds for ten env steps."""
    seconds = [0.0]

    def command(run: SweepRun) -> list[str]:
        config = run.setting.config
        given = {"folder": str(run.folder), "rate": config.optimizer.learning_rate, "steps": run.steps}
        return [sys.executable, "-c", FAKE, json.dumps({**given, "seconds": seconds[0]})]

    monkeypatch.setattr(SweepRun, "command", command)
    return seconds


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """One Ray for all tests here, whose processes share compiled programs."""
    pytest.importorskip("ray.tune")
    from dreamer_agent.launch.ray_cluster import Options, cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".xla_cache"))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
        with cluster(Options()):
            yield


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open() as file:
        return list(csv.DictReader(file))


def given(run: Run) -> dict[str, Any]:
    """What the axes gave a run: its point, without a preset or size of the sweep."""
    return {key: value for key, value in run.work.setting.point.items() if key not in SPECIAL}


def kill_once(folder: Path) -> threading.Thread:
    """Kills the process of a run in `folder` after its first checkpoint."""

    def wait() -> None:
        while not list(folder.glob("*/checkpoints/*")):
            time.sleep(0.05)
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "dreamer_agent.sweeps.runs" in process.cmdline() and str(folder) in process.cmdline()[-1]:
                    process.kill()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_run_that_was_killed_ends_as_one_of_the_local_launcher(tmp_path: Path, ray, capfd) -> None:
    from benchmarks.reliability.kill import differences

    path = sweep_file(tmp_path, axes=[])
    few = ["train.steps=400", "train.checkpoint_every=50"]
    assert run_sweep(path, tmp_path / "local", few) == 0
    thread = kill_once(tmp_path / "ray")
    capfd.readouterr()
    assert run_sweep(path, tmp_path / "ray", few, launcher="ray") == 0
    thread.join()
    assert "it goes on" in capfd.readouterr().out
    (one,), (other,) = (runs_of(load_sweep(path), tmp_path / name) for name in ("local", "ray"))
    assert one.setting.name == other.setting.name and other.finished()
    assert differences(one.folder, other.folder) == []


def test_what_asha_stops_is_in_no_score_and_goes_on_without_it(tmp_path: Path, ray, fake, capfd) -> None:
    fake[0] = 0.3
    path, out = sweep_file(tmp_path, axes=[{"grid": {RATE: [1e-3, 1e-1]}}]), tmp_path / "out"
    job = ["cpus=2", "asha.grace_period=20", "asha.reduction_factor=2"]
    assert run_sweep(path, out, launcher="ray", job=job) == 0
    assert "stopped early: 1 of 2 runs; without asha they go on" in capfd.readouterr().out
    assert [row["state"] for row in rows(out)] == ["done", "stopped early"]
    assert rows(out)[1]["score"] == "" and 20 <= int(rows(out)[1]["env_steps"]) < 150
    page = report_of(out, "steps", "env", None, None).read_text()
    assert "2 runs: 1 done, 1 stopped early." in page and "**Stopped early: 1 of 2 runs.**" in page
    assert "by ASHA, for a return of -2 at 20 env steps" in page and "| CartPole-v1 | 0.1 | 0 of 1 |" in page
    fake[0] = 0.0
    assert run_sweep(path, out) == 0
    assert [row["state"] for row in rows(out)] == ["done", "done"]
    assert "Stopped early" not in (out / "report.md").read_text()


def test_points_of_a_search_are_runs_as_all_others(tmp_path: Path, ray, fake, capfd) -> None:
    pytest.importorskip("optuna")
    one = {"random": {**RATES["random"], "samples": 1}}
    path, out = sweep_file(tmp_path, axes=[one], seeds=2, ray={"optuna": {"samples": 1}}), tmp_path / "out"
    drawn = [run.setting.name for run in runs_of(load_sweep(path), out)]
    assert run_sweep(path, out, launcher="ray") == 0
    names = [row["run"] for row in rows(out)]
    assert len(names) == 4 and set(drawn) < set(names) and {row["state"] for row in rows(out)} == {"done"}
    (found,) = found_in(out)
    assert {row["run"] for row in rows(out) if float(row[RATE]) == found[RATE]} == set(names) - set(drawn)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")}
    assert run_sweep(path, out, launcher="ray") == 0 and found_in(out) == [found]
    assert run_sweep(path, out) == 0  # another launcher knows them, too
    assert {path: path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")} == before
    assert "1 of the points were suggested by a search" in report_of(out, "steps", "env", None, None).read_text()
    capfd.readouterr()
    with pytest.raises(ConfigError, match="needs 8 runs, its budget is 7"):
        budget = sweep_file(tmp_path, axes=[one], seeds=2, budget={"runs": 7})
        run_sweep(budget, out, launcher="ray", job=["optuna.samples=3"])


def scored(sweep: Sweep, folder: Path, state: str = "done") -> list[Run]:
    """All runs, with scores as of `FAKE`."""
    runs = [Run(work, state=state) for work in runs_of(sweep, folder)]
    for run in runs:
        assert isinstance(run.work, SweepRun)
        value = -abs(math.log10(run.work.setting.config.optimizer.learning_rate) + 3)
        run.work.folder.mkdir(parents=True, exist_ok=True)
        content = {"env_steps": 150, "updates": 1, "scores": [{"return_mean": value}]}
        (run.work.folder / "evaluation.json").write_text(json.dumps(content))
    return runs


def test_suggestions_follow_from_scores_alone(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    axis = {"random": {"samples": 12, "values": {RATE: {"loguniform": [1e-6, 1.0]}}}}
    sweep = Sweep("s", base=("classic",), values={"train.steps": 150}, axes=(axis,))
    search = Search(sweep, tmp_path, {"samples": 12})
    runs = scored(sweep, tmp_path)
    assert search.suggest(runs) == search.suggest(runs)
    for _ in range(12):
        assert len(search(runs)) == 1
        runs = scored(sweep, tmp_path)
    assert search(runs) == [] and search.left() == 0
    far = [abs(math.log10(point[RATE]) + 3) for point in found_in(tmp_path)]
    drawn = [abs(math.log10(run.work.setting.point[RATE]) + 3) for run in runs[:12]]
    assert sum(far) / 12 < sum(drawn) / 12


@pytest.mark.parametrize("state", ["failed", "running", "waiting"])
def test_points_without_a_score_are_told_to_optuna(tmp_path: Path, state: str) -> None:
    optuna = pytest.importorskip("optuna")
    sweep = Sweep("s", axes=(RATES,), seeds=(0, 1))
    search = Search(sweep, tmp_path, {"samples": 1})
    runs = [Run(work) for work in runs_of(sweep, tmp_path)]
    runs[0].state = state
    told = search._told(optuna, given(runs[0]), [runs[0], runs[2]])
    assert told.state.name == ("FAIL" if state == "failed" else "RUNNING")
    assert told.params == given(runs[0])


def test_a_point_that_was_stopped_early_is_pruned_at_the_mean_of_its_returns(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    from dreamer_agent.launch.work import mark_of

    sweep = Sweep("s", values={"train.steps": 150}, axes=(RATES,), seeds=(0, 1))
    runs = scored(sweep, tmp_path)
    members = [runs[0], runs[2]]
    members[1].state = "stopped early"
    (members[1].work.folder / "evaluation.json").unlink()
    mark_of(members[1].work).write_text(json.dumps({"by": "ASHA", "env_steps": 20, "return": -9.0}))
    score = json.loads((members[0].work.folder / "evaluation.json").read_text())["scores"][0]["return_mean"]
    told = Search(sweep, tmp_path, {"samples": 1})._told(optuna, given(runs[0]), members)
    assert told.state.name == "PRUNED" and told.intermediate_values == {20: pytest.approx((score - 9) / 2)}
    (members[1].work.folder / "evaluation.json").write_text("{damaged")
    again = Search(sweep, tmp_path, {"samples": 1})._told(optuna, given(runs[0]), members)
    assert again.intermediate_values == told.intermediate_values


def test_every_kind_of_value_is_suggested(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    values = {
        "optimizer.learning_rate": {"uniform": [1e-4, 1e-3]},
        "replay.batch_size": {"integers": [2, 4]},
        "env.id": {"choice": ["CartPole-v1", "Acrobot-v1"]},
    }
    sweep = Sweep("s", base=("classic",), axes=({"random": {"samples": 2, "values": values}},))
    search = Search(sweep, tmp_path, {"samples": 3, "seed": 5})
    point = search.suggest([Run(work) for work in runs_of(sweep, tmp_path)])
    assert 1e-4 <= point["optimizer.learning_rate"] <= 1e-3 and point["replay.batch_size"] in (2, 3, 4)
    assert point["env.id"] in ("CartPole-v1", "Acrobot-v1")
    keep_found(tmp_path, [point, {"optimizer.learning_rate": 1.0}])  # the second is one of another axis
    assert [given(Run(work)) for work in runs_of(sweep, tmp_path)][2:] == [point]


@pytest.mark.parametrize(
    ("axes", "given", "sentence"),
    [
        ([RATES], {"samples": 0}, r"write \{samples: 20\}"),
        ([RATES], {"sample": 3}, r"write \{samples: 20\}"),
        ([RATES], {"samples": 3, "seed": -1}, "seed is -1"),
        ([{"grid": {RATE: [1e-3]}}], {"samples": 3}, "has 0 of them: give it one"),
    ],
)
def test_searches_that_cannot_be_are_told(tmp_path: Path, axes: list, given: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Search(Sweep("s", axes=tuple(axes)), tmp_path, given)


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"install '\.\[ray\]'"):
        Search(Sweep("s", axes=(RATES,)), tmp_path, {"samples": 1})


def test_asha_compares_runs_of_one_environment_only(tmp_path: Path) -> None:
    sweep = Sweep("s", axes=({"grid": {"env.id": ["CartPole-v1", "Acrobot-v1"]}},))
    with pytest.raises(ConfigError, match=r"has several environments \(Acrobot-v1, CartPole-v1\)"):
        asked(sweep, runs_of(sweep, tmp_path), tmp_path, {"asha": True})


def test_parameters_of_the_command_line_go_over_those_of_the_file() -> None:
    given = {"cpus": 1, "asha": {"brackets": 2, "grace_period": 5}}
    assert merged(given, {"asha": {"grace_period": 7}, "gpus": 0.5}) == {
        "cpus": 1, "gpus": 0.5, "asha": {"brackets": 2, "grace_period": 7},
    }  # fmt: skip
    assert given["asha"] == {"brackets": 2, "grace_period": 5}
