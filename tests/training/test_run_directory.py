"""A run directory is resumed by the same run only, and otherwise left as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dreamer_agent.config import EnvConfig, load_config
from dreamer_agent.errors import RunDirectoryError
from dreamer_agent.training import run_directory
from tests.conftest import small_config


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every byte below `folder`, and when it was written."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The directory of a run of `small_config()` that has already written something."""
    folder = tmp_path / "some" / "run"
    run_directory.prepare(folder, small_config())
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    (folder / "checkpoints" / "7").mkdir(parents=True)
    (folder / "checkpoints" / "7" / "state").write_bytes(bytes(range(256)))
    return folder


def test_a_new_folder_gets_the_configuration_and_where_it_came_from(run: Path) -> None:
    assert run_directory.load(run) == small_config()
    provenance = json.loads((run / "provenance.json").read_text())
    assert set(provenance) == {"python", "platform", "packages", "commit", "backend", "device", "cpu_cores"}
    assert provenance["packages"]["jax"].count(".") == 2
    assert provenance["cpu_cores"] >= 1


def test_the_same_run_may_go_on(run: Path) -> None:
    before = contents(run)
    run_directory.prepare(run, small_config())
    assert {name: data for name, (data, _) in contents(run).items()} == {
        n: data for n, (data, _) in before.items()
    }


def test_other_code_that_goes_on_with_a_run_leaves_its_name(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = run_directory.origins(run)
    later = first | {"commit": "feedbeef"}
    monkeypatch.setattr(run_directory, "provenance", lambda: later)
    for _ in range(2):  # the second time nothing is new
        run_directory.prepare(run, small_config())
    assert run_directory.origins(run) == [first, later | {"from_env_step": 0}]
    monkeypatch.setattr(run_directory, "provenance", lambda: first)
    run_directory.prepare(run, small_config())
    assert [one["commit"] for one in run_directory.origins(run)] == [first["commit"], "feedbeef", first["commit"]]
    assert run_directory.same_code(first, first | {"device": "another"}) and not run_directory.same_code(
        first, later
    )
    (run / "provenance.json").write_text("{")
    assert run_directory.origins(run) == []
    run_directory.prepare(run, small_config())
    assert run_directory.origins(run) == [first]


@pytest.mark.parametrize(
    "change",
    [
        "train.steps=7",
        "train.log_every=3",
        "train.eval_envs=2",
        "train.keep_checkpoints=9",
        "replay.max_gb=3",
        "env.processes=2",
    ],
)
def test_what_does_not_touch_the_learner_may_change(run: Path, change: str) -> None:
    config = small_config(change)
    assert config != small_config()
    provenance = contents(run)["provenance.json"]
    run_directory.prepare(run, config)
    assert run_directory.load(run) == config
    assert contents(run)["provenance.json"] == provenance


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("env.id=Pendulum-v1", "env.id=CartPole-v1, but env.id=Pendulum-v1 is asked for"),
        ("env.num_envs=3", "env.num_envs=4, but env.num_envs=3 is asked for"),
        ("env.kwargs={a: {b: 1}}", "a run without env.kwargs.a.b, but env.kwargs.a.b=1 is asked for"),
        ("env.kwargs={a: null}", "without env.kwargs.a, but env.kwargs.a=None is asked for: give another run"),
        ("model.deter=64", "model.deter=32, but model.deter=64 is asked for"),
        ("model.channel_multipliers=[2, 3]", "model.channel_multipliers="),
        ("behaviour.entropy=0.1", "behaviour.entropy=0.0003, but behaviour.entropy=0.1"),
        ("replay.ratio=7", "replay.ratio=32.0, but replay.ratio=7.0"),
        ("seed=1", "seed=0, but seed=1"),
        ("precision=bfloat16", "precision=auto, but precision=bfloat16"),
    ],
)
def test_another_run_is_refused_and_changes_nothing(run: Path, change: str, told: str) -> None:
    before = contents(run)
    with pytest.raises(RunDirectoryError) as caught:
        run_directory.prepare(run, small_config(change, "train.steps=5"))
    assert told in str(caught.value)
    assert str(run) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(run) == before


def test_an_argument_that_is_none_is_not_one_that_is_missing(tmp_path: Path) -> None:
    run_directory.prepare(tmp_path / "run", small_config("env.kwargs={a: null}"))
    run_directory.prepare(tmp_path / "run", small_config("env.kwargs={a: null}"))
    with pytest.raises(RunDirectoryError, match=r"with env\.kwargs\.a=None, but none is asked for: give another"):
        run_directory.prepare(tmp_path / "run", small_config())


def test_another_size_is_refused(tmp_path: Path) -> None:
    run_directory.prepare(tmp_path / "run", load_config(["size/nano"]))
    before = contents(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"model\.classes=8, but model\.classes=4"):
        run_directory.prepare(tmp_path / "run", load_config(["size/1m"]))
    assert contents(tmp_path) == before


def test_keyword_arguments_of_the_environment_may_be_tuples(tmp_path: Path) -> None:
    """YAML writes them as lists; that is no difference."""
    config = replace(small_config(), env=EnvConfig(kwargs={"size": (3, 4), "deep": {"list": [(1, 2)]}}))
    run_directory.prepare(tmp_path / "run", config)
    run_directory.prepare(tmp_path / "run", config)
    assert run_directory.load(tmp_path / "run").env.kwargs == {"size": [3, 4], "deep": {"list": [[1, 2]]}}


def test_a_folder_with_other_files_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear to someone")
    before = contents(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"holds files but no run \(config.yaml is missing\)"):
        run_directory.prepare(tmp_path, small_config())
    assert contents(tmp_path) == before


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    run_directory.prepare(tmp_path, small_config())
    assert set(contents(tmp_path)) == {"config.yaml", "provenance.json"}


def test_a_file_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunDirectoryError, match="is a file"):
        run_directory.prepare(tmp_path / "file", small_config())
    assert (tmp_path / "file").read_text() == "x"


def test_loading_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunDirectoryError, match=r"no run directory: config.yaml is missing"):
            run_directory.load(folder)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("module", "setting"),
    [("evil", "plugins=[run.evil]"), ("evil", "env.id=run.evil:Env"), ("__init__", "plugins=[run]")],
)
def test_a_module_that_lies_in_a_run_directory_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, setting: str
) -> None:
    run_directory.prepare(tmp_path / "run", small_config(setting))
    (tmp_path / f"run/{module}.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"names the module 'run.*nothing of a run directory is executed"):
        run_directory.load(tmp_path / "run")


def test_a_run_directory_may_have_the_name_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config("env.id=gymnax:CartPole-v1")
    run_directory.prepare(tmp_path / "gymnax", config)
    monkeypatch.chdir(tmp_path)
    assert run_directory.load(tmp_path / "gymnax") == config
