"""The command line as a person uses it: train, look, score, resume, and mistakes that cost nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dreamer_agent.config import all_keys
from tests.conftest import TEST_SIZE


def call(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dreamer_agent", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


SMALL = [
    *TEST_SIZE, "env.num_envs=2", "replay.ratio=16", "replay.prefill=64", "train.log_every=50",
    "train.eval_episodes=2", "train.eval_envs=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    folder = tmp_path_factory.mktemp("cli")
    result = call("train", "CartPole-v1", *SMALL, "--steps", "150", "--run", "run", folder=folder)
    assert result.returncode == 0, result.stderr
    return folder, result


def test_training_says_what_it_does_and_draws(trained) -> None:
    folder, result = trained
    assert "0.5 updates per env step" in result.stdout
    assert "replay" in result.stdout and "GB" in result.stdout
    assert "final policy, sample actions" in result.stdout and "final policy, mode actions" in result.stdout
    for picture in ("learning_curve.png", "dreams/open_loop.png"):
        content = (folder / "run" / picture).read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) > 5000


def test_evaluate_and_plot_use_the_run_alone(trained) -> None:
    folder, _ = trained
    result = call("evaluate", "run", "--episodes", "3", "--mode", folder=folder)
    assert result.returncode == 0 and "mode actions, 3 episodes" in result.stdout
    assert call("plot", "run", "--out", "curves.png", folder=folder).returncode == 0
    assert (folder / "curves.png").stat().st_size > 5000


def test_the_same_directory_resumes(trained) -> None:
    folder, _ = trained
    result = call("train", "CartPole-v1", *SMALL, "--steps", "200", "--run", "run", folder=folder)
    assert result.returncode == 0 and "resuming at env step 15" in result.stdout
    assert json.loads((folder / "run" / "evaluation.json").read_text())["env_steps"] >= 200


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "CartPol-v1"], "There is no environment 'CartPol-v1'"),
        (["train", "CartPole-v1", "batch_size=3"], "did you mean replay.batch_size"),
        (["train", "CartPole-v1", "--size", "2m"], "Unknown preset 'size/2m'"),
        (["train", "CartPole-v1", "replay.batch_size=many"], "takes a value of type int; got 'many'"),
        (["train", "Pendulum-v1", *SMALL, "--run", "run"], "env.id=CartPole-v1"),
        (["train", "CartPole-v1", "--size", "400m", "train.steps=100000000"], "GB"),
        (["evaluate", "nowhere"], "nowhere is no run directory"),
        (["train", "toy:chess"], "'toy' has the tasks catch, rooms"),
    ],
)
def test_a_mistake_is_one_sentence_and_harms_nothing(trained, arguments, sentence) -> None:
    folder, _ = trained
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = call(*arguments, folder=folder)
    assert result.returncode == 2
    assert sentence in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_config_prints_what_can_be_set(tmp_path: Path) -> None:
    result = call("config", "--preset", "classic", "replay.ratio=7", folder=tmp_path)
    assert result.returncode == 0
    assert "ratio: 7.0" in result.stdout and f"# {len(all_keys())} values" in result.stdout


def test_envs_lists_the_suites(tmp_path: Path) -> None:
    result = call("envs", folder=tmp_path)
    assert result.returncode == 0 and all(name in result.stdout for name in ("toy:", "gymnax:", "minigrid:"))
    for extra in ("dmc", "atari", "crafter", "bsuite", "box2d", "mujoco", "toy-text"):
        (line,) = (line for line in result.stdout.splitlines() if line.startswith((f"{extra}:", f"{extra} ")))
        assert line.endswith(("[installed]", f"[pip install 'dreamer-agent[{extra}]']"))


def test_envs_lists_the_tasks_of_a_suite(tmp_path: Path) -> None:
    classic = call("envs", "classic", folder=tmp_path)
    assert "CartPole-v1" in classic.stdout.splitlines() and "CartPole-v0" not in classic.stdout
    assert call("envs", "toy", folder=tmp_path).stdout == "toy:catch\ntoy:rooms\n"
    unknown = call("envs", "atarri", folder=tmp_path)
    assert unknown.returncode == 2 and "'atari' is the nearest" in unknown.stderr


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(75)])
def test_a_run_that_was_asked_to_stop_ends_with_the_code_for_trying_again(monkeypatch, tmp_path, end) -> None:
    from typer.testing import CliRunner

    from dreamer_agent import api, cli

    def stopped(*_: object, **__: object) -> None:
        raise end

    monkeypatch.setattr(api, "train", stopped)
    result = CliRunner().invoke(cli.app, ["train", "CartPole-v1", "--preset", "classic", "--run", str(tmp_path)])
    assert result.exit_code == 75 and "the same command goes on" in result.output


def test_another_end_is_no_reason_to_try_again(monkeypatch, tmp_path) -> None:
    from typer.testing import CliRunner

    from dreamer_agent import api, cli

    def ended(*_: object, **__: object) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(api, "train", ended)
    result = CliRunner().invoke(cli.app, ["train", "CartPole-v1", "--preset", "classic", "--run", str(tmp_path)])
    assert result.exit_code == 3 and "goes on" not in result.output


def signals_as_it_is_made(**_: object) -> None:
    """An environment on which a run waits while a scheduler takes back the machine."""
    signal.raise_signal(signal.SIGTERM)


def test_also_before_the_training_has_begun(tmp_path) -> None:
    from typer.testing import CliRunner

    from dreamer_agent import cli

    folder = tmp_path / "run"
    arguments = ["train", f"{__name__}:signals_as_it_is_made", "--preset", "classic", "--run", str(folder)]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 75 and "the same command goes on" in result.output
    assert not folder.exists() and "what was learned" not in result.output


def test_what_may_not_be_allowed_is_said(tmp_path) -> None:
    from dreamer_agent.config import load_config
    from dreamer_agent.errors import ConfigError
    from dreamer_agent.training import run_directory

    with pytest.raises(ConfigError, match=r"'model\.units' .* cannot be changed.*replay\.ratio"):
        run_directory.check(tmp_path, load_config(), allow=["model.units"])


@pytest.mark.parametrize("option", ["--length", "--sequences"])
def test_a_report_has_horizons_instead_of_a_length(option: str) -> None:
    from typer.testing import CliRunner

    from dreamer_agent import cli

    said = CliRunner().invoke(cli.app, ["dream", "pretrained:cartpole", "--report", option, "9"])
    assert "--horizons says how far" in str(said.exception)
