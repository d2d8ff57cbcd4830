"""A sweep from its file to its report: processes, populations, kills, and what it will take."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from dreamer_agent.config import Config, merge, save_config
from dreamer_agent.errors import ConfigError, RunDirectoryError
from dreamer_agent.launch.local import Run
from dreamer_agent.sweeps import command as module
from dreamer_agent.sweeps.command import is_sweep, report_of, run_sweep, runs_of
from dreamer_agent.sweeps.plan import plan
from dreamer_agent.sweeps.results import rows_of
from dreamer_agent.sweeps.runs import Population, command_of, work
from dreamer_agent.sweeps.split import as_programs
from dreamer_agent.sweeps.sweep import load_sweep
from tests.conftest import TEST_SIZE

VALUES = dict(text.split("=") for text in TEST_SIZE) | {
    "env.num_envs": 2, "replay.prefill": 64, "replay.ratio": 16, "train.steps": 150, "train.log_every": 50,
    "train.eval_episodes": 2, "train.eval_envs": 2,
}  # fmt: skip
SCORED = json.dumps({"env_steps": 150, "updates": 9, "scores": [{"return_mean": 1.0, "return_std": 0.0}] * 2})
RATES = {"random": {"samples": 2, "values": {"optimizer.learning_rate": {"loguniform": [1e-4, 1e-2]}}}}


def sweep_file(folder: Path, env: str = "CartPole-v1", **more: object) -> Path:
    path = folder / "small.yaml"
    content = {"title": "Small", "values": {**VALUES, "env.id": env}, "axes": [RATES], **more}
    path.write_text(yaml.safe_dump(content))
    return path


def test_processes_make_a_report_and_finished_runs_are_kept(tmp_path: Path, capfd) -> None:
    path, out = sweep_file(tmp_path), tmp_path / "out"
    assert run_sweep(path, out) == 0
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["done", "done"] and {row["env"] for row in rows} == {"CartPole-v1"}
    assert len({row["optimizer.learning_rate"] for row in rows}) == 2
    assert all(float(row["score"]) > 0 and int(row["env_steps"]) >= 150 for row in rows)
    with (out / "curves.csv").open() as file:
        assert {row["run"] for row in csv.DictReader(file)} == {row["run"] for row in rows}
    page = (out / "report.md").read_text()
    assert "2 runs: 2 done." in page and "| CartPole-v1 | 2 of 2 |" in page
    assert (out / "curves.png").stat().st_size > 5000
    before = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")}
    assert run_sweep(path, out) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")} == before
    assert is_sweep(out) and report_of(out, "updates", "env", None, tmp_path / "again").is_file()
    with pytest.raises(ConfigError, match=r"does not vary 'replay\.size': it has env, seed, optimizer"):
        report_of(out, "steps", "replay.size", None, None)
    with pytest.raises(ConfigError, match="The axis 'epochs' is unknown"):
        report_of(out, "epochs", "env", None, None)
    capfd.readouterr()
    assert run_sweep(path, out, dry=True) == 0
    said = capfd.readouterr().out
    assert said.count("finished") >= 3 and "2 runs, 2 finished; 0 env steps left" in said


def test_what_can_be_one_program_is(tmp_path: Path, capfd) -> None:
    path, out = sweep_file(tmp_path, "gymnax:CartPole-v1"), tmp_path / "out"
    assert run_sweep(path, out, launcher="vmap") == 0
    said = capfd.readouterr().out
    assert "2 of 2 runs to do as 1 program on the device" in said and "and 1 more as one program: done" in said
    runs = runs_of(load_sweep(path), out)
    assert all(run.finished() for run in runs)
    assert "loop: device" in (runs[1].folder / "config.yaml").read_text()
    rates = [
        yaml.safe_load((run.folder / "config.yaml").read_text())["optimizer"]["learning_rate"] for run in runs
    ]
    assert rates == [run.setting.config.optimizer.learning_rate for run in runs] and rates[0] != rates[1]


def test_how_runs_are_split_into_programs(tmp_path: Path) -> None:
    both = [{"grid": {"env.id": ["gymnax:CartPole-v1", "CartPole-v1"]}}, {"grid": {"replay.ratio": [8, 16]}}]
    runs = runs_of(load_sweep(sweep_file(tmp_path, axes=both, seeds=3)), tmp_path / "out")
    works, said = as_programs(runs, 2)
    sizes = [len(one.members) if isinstance(one, Population) else 1 for one in works]
    assert sizes == [1] * 6 + [2, 1, 2, 1]
    for one in works:
        if isinstance(one, Population):
            assert len({member.setting.config.replay.ratio for member in one.members}) == 1
    assert said == [
        "4 of 12 runs to do as 2 programs on the device",
        "in processes of their own, since they are not written in JAX, or have replay.spill or a mesh: "
        "CartPole-v1",
        "2 alone: no other run has their program",
    ]


def test_runs_that_were_trained_apart_go_on_apart(tmp_path: Path, monkeypatch, capsys) -> None:
    runs = runs_of(load_sweep(sweep_file(tmp_path, "gymnax:CartPole-v1")), tmp_path / "out")
    trained = []

    def apart(configs: list, folders: list) -> None:
        raise ConfigError("they were trained apart")

    def train(config: Config, folder: Path) -> None:
        trained.append((config, folder))
        if len(trained) == 1:
            raise RunDirectoryError("the first one is full")

    monkeypatch.setattr("dreamer_agent.api.train_together", apart)
    monkeypatch.setattr("dreamer_agent.api.train", train)
    with pytest.raises(RunDirectoryError, match="the first one is full"):
        work(command_of(runs)[-1])
    assert trained == [(run.setting.config, run.folder) for run in runs]  # one that fails stops no other
    said = capsys.readouterr().out
    assert "not as one program: they were trained apart" in said and "failed: the first one is full" in said


def test_a_disk_that_is_full_is_no_reason_to_train_apart(tmp_path: Path, monkeypatch) -> None:
    runs = runs_of(load_sweep(sweep_file(tmp_path, "gymnax:CartPole-v1")), tmp_path / "out")

    def full(configs: list, folders: list) -> None:
        raise RunDirectoryError("The last checkpoint could not be written")

    monkeypatch.setattr("dreamer_agent.api.train_together", full)
    monkeypatch.setattr("dreamer_agent.api.train", lambda *_: pytest.fail("it was trained again"))
    with pytest.raises(RunDirectoryError, match="could not be written"):
        work(command_of(runs)[-1])


def test_a_large_program_fits_an_argument(tmp_path: Path) -> None:
    runs = runs_of(load_sweep(sweep_file(tmp_path, "gymnax:CartPole-v1", seeds=150)), tmp_path / "out")
    assert len(runs) == 300 and len(command_of(runs)[-1]) < 1 << 17  # the most that Linux takes


def test_only_what_began_together_goes_on_together(tmp_path: Path) -> None:
    runs = runs_of(load_sweep(sweep_file(tmp_path, "gymnax:CartPole-v1", seeds=3)), tmp_path / "out")
    for run, names in zip(runs, ("ab", "ab", "cd", "cd"), strict=False):
        (run.folder / "checkpoints" / "90").mkdir(parents=True)
        (run.folder / "checkpoints" / "90" / "commit.json").touch()
        save_config(run.setting.config, run.folder / "config.yaml")
        (run.folder / "population.json").write_text(names)
    other = merge(runs[3].setting.config, {"replay": {"ratio": 99}})
    save_config(other, runs[3].folder / "config.yaml")  # this one fails alone
    works, _ = as_programs(runs, 16)
    members = [[run.setting.name for run in getattr(one, "members", (one,))] for one in works]
    names = [run.setting.name for run in runs]
    assert members == [[names[3]], names[:2], [names[2]], names[4:]] and not isinstance(works[0], Population)


def test_a_replay_on_disk_is_not_for_the_device(tmp_path: Path) -> None:
    axes = [{"grid": {"replay.spill": [True, False]}}]
    runs = runs_of(load_sweep(sweep_file(tmp_path, "gymnax:CartPole-v1", axes=axes, seeds=2)), tmp_path / "out")
    works, said = as_programs(runs, 16)
    assert [len(getattr(one, "members", (one,))) for one in works] == [1, 1, 2]
    assert "or have replay.spill or a mesh: gymnax:CartPole-v1" in said[1]


def test_one_failure_leaves_the_others_alone(tmp_path: Path, monkeypatch) -> None:
    axes = [{"list": [{"replay.max_gb": 1e-9}, {"env.id": "CartPole-v1"}]}]
    out = tmp_path / "out"
    path = sweep_file(tmp_path, axes=axes)
    assert run_sweep(path, out) == 1
    page = (out / "report.md").read_text()
    assert "2 runs: 1 waiting, 1 done." in page and "**Failed: 1.**" in page
    assert "0.00 GB are allowed" in page and "(exit code 2, see" in page
    assert report_of(out, "steps", "env", None, tmp_path / "again").read_text() == page
    assert run_sweep(path, out, only_report=True) == 0 and (out / "report.md").read_text() == page
    monkeypatch.setattr(module, "launch", lambda works, *_: [Run(work, state="done") for work in works])
    assert run_sweep(path, out) == 0 and "Failed" not in (out / "report.md").read_text()


def test_an_environment_that_does_not_exist_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no environment 'NoSuch-v1'"):
        run_sweep(sweep_file(tmp_path, "NoSuch-v1"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_keeps_its_folder_when_the_sweep_is_written_differently(tmp_path: Path) -> None:
    one = runs_of(load_sweep(sweep_file(tmp_path, axes=[{"grid": {"replay.ratio": [8, 32]}}])), tmp_path / "out")
    one[0].folder.mkdir(parents=True)
    other = sweep_file(tmp_path, axes=[{"list": [{"replay.ratio": 32}, {"replay.ratio": 8}]}], name="mine {seed}")
    runs = runs_of(load_sweep(other), tmp_path / "out")
    assert runs[1].folder == one[0].folder and runs[0].setting.name.startswith("mine_0-")


def test_a_plan_adds_up_what_is_left(tmp_path: Path) -> None:
    runs = runs_of(load_sweep(sweep_file(tmp_path, seeds=2)), tmp_path / "out")
    asked = []
    found = plan(runs, lambda config: asked.append(config) or 30.0)
    assert (found.runs, found.finished, found.env_steps, found.programs, found.timed) == (4, 0, 600, 1, 1)
    assert found.seconds == pytest.approx(4 * 30.0) and len(asked) == 1  # the rate is no part of a program
    assert 0 < found.gb < 0.01
    half = runs[0].folder
    half.mkdir(parents=True)
    rows = [{"step": 75, "updates": 5, "time/env_steps_per_s": 25.0}]
    (half / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = plan(runs, lambda config: pytest.fail("a pace was known"))
    assert found.env_steps == 525 and found.seconds == pytest.approx(525 / 25)


def test_a_dry_run_says_what_the_launcher_does_with_the_time(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(module, "measured", lambda config: 60.0)
    path, out = sweep_file(tmp_path, "gymnax:CartPole-v1", seeds=2), tmp_path / "out"

    def said(launcher: str) -> str:
        assert run_sweep(path, out, dry=True, launcher=launcher, at_once=2, together=3) == 0
        return capsys.readouterr().out

    apart, together, jobs = said("local"), said("vmap"), said("slurm")
    assert all("about 0:04:00 one after another" in one for one in (apart, together, jobs))
    assert "2 at a time take at least 0:02:00" in apart and "program on the device" not in apart
    assert "3 of 4 runs to do as 1 program on the device" in together and "1 alone" in together
    assert "one program take together was not timed" in together
    assert "at a time" not in together + jobs
    first, *_ = runs_of(load_sweep(path), out)
    first.folder.mkdir(parents=True)
    (first.folder / "evaluation.json").write_text(SCORED)
    assert run_sweep(path, out, dry=True, at_once=8) == 0
    assert "3 at a time take at least 0:01:00" in capsys.readouterr().out


def test_damaged_scores_are_none(tmp_path: Path) -> None:
    run, *_ = runs = runs_of(load_sweep(sweep_file(tmp_path)), tmp_path / "out")
    run.folder.mkdir(parents=True)
    for text in ("{", "{}", "[]", "null", '{"env_steps": 150}', SCORED.replace("return_mean", "mean")):
        (run.folder / "evaluation.json").write_text(text)
        assert not run.finished() and plan(runs).finished == 0
        assert not Population(tuple(runs)).finished()
        damaged, other, *_ = rows_of(runs, [])
        assert damaged["state"] == "unreadable" and "has a damaged evaluation.json" in damaged["why"]
        assert other["state"] == "waiting"
    (run.folder / "evaluation.json").write_text(SCORED)
    assert run.finished() and rows_of(runs, [])[0]["state"] == "done"


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        ({"runs": 1}, "needs 2 runs, its budget is 1"),
        ({"env_steps": 299}, "needs 300 env_steps, its budget is 299"),
        ({"env_steps": 2 * 10**6}, "needs 2,000,002 env_steps, its budget is 2,000,000"),
        ({"gb": 1e-9}, "gb, its budget is 1e-09"),
    ],
)  # fmt: skip
def test_more_than_the_budget_is_refused(tmp_path: Path, budget: dict, sentence: str) -> None:
    path = sweep_file(tmp_path, budget=budget)
    steps = ["train.steps=1000001"] if budget.get("env_steps", 0) > 1000 else []
    with pytest.raises(ConfigError, match=sentence):
        run_sweep(path, tmp_path / "out", steps)
    assert not (tmp_path / "out").exists()


def test_another_sweep_is_refused_in_a_folder_that_holds_runs(tmp_path: Path, monkeypatch) -> None:
    def swept(ratios: list[int], **more: object) -> int:
        return run_sweep(sweep_file(tmp_path, axes=[{"grid": {"replay.ratio": ratios}}], **more), out)

    def launch(runs: list, *_: object) -> list:
        for run in runs:
            run.folder.mkdir(parents=True, exist_ok=True)
            save_config(run.setting.config, run.folder / "config.yaml")
            (run.folder / "metrics.jsonl").write_text('{"step": 50, "updates": 1}\n')
        return [Run(run, state="done") for run in runs]

    out = tmp_path / "out"
    monkeypatch.setattr(module, "launch", launch)
    assert swept([8, 16]) == 0
    kept = (out / module.FILE).read_text()
    with pytest.raises(
        ConfigError, match=r"of the sweep 'Small' that 'Large' does not have \(CartPole.*=8-0-.*\)"
    ):
        swept([16, 32], title="Large")
    assert (out / module.FILE).read_text() == kept and len(list(out.glob("*/config.yaml"))) == 2
    assert swept([8, 16, 32], title="Grown", seeds=2) == 0
    assert swept([64], title=" Grown\n") == 0  # changed by hand
    assert swept([8, 16, 32, 64], title=None, seeds=2) == 0 and swept([8], title=None) == 0
    assert run_sweep(out / module.FILE, out) == 0


@pytest.mark.parametrize("dry", [True, False])
def test_fewer_env_steps_than_runs_were_begun_with_are_refused(tmp_path: Path, monkeypatch, dry: bool) -> None:
    path, out = sweep_file(tmp_path, seeds=2), tmp_path / "out"
    runs = runs_of(load_sweep(path), out)
    for run in runs[:2]:
        run.folder.mkdir(parents=True)
        save_config(run.setting.config, run.folder / "config.yaml")
    (runs[0].folder / "evaluation.json").write_text(SCORED)
    (runs[2].folder).mkdir()
    (runs[2].folder / "config.yaml").write_text("{damaged")
    monkeypatch.setattr(module, "launch", lambda *_: pytest.fail("it was launched"))
    with pytest.raises(ConfigError, match=r"2 of 4 runs in .* more env steps .*: 150, now 100\): give as many"):
        run_sweep(path, out, ["train.steps=100"], dry=dry)
    assert not (out / module.FILE).exists()


def test_mistakes_in_the_call_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="There is no launcher 'slrum': choose local, vmap, slurm"):
        run_sweep(sweep_file(tmp_path), tmp_path / "out", launcher="slrum")
    with pytest.raises(RunDirectoryError, match="no run of the sweep 'small' has begun there"):
        run_sweep(sweep_file(tmp_path), tmp_path / "out", only_report=True)
    monkeypatch.setattr(module, "launch", lambda *_: pytest.fail("it was launched"))
    assert not (tmp_path / "out").exists()
