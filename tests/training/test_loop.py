"""The host loop: the ratio, resuming, checkpoints, and that the same seed repeats a run."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from dreamer_agent.config import Config
from dreamer_agent.errors import ConfigError, EnvironmentFault, RunDirectoryError
from dreamer_agent.training import train
from dreamer_agent.training.callbacks import Callback
from dreamer_agent.training.checkpoint import newest
from dreamer_agent.training.progress import crossed
from dreamer_agent.training.run_directory import newest_step
from tests.conftest import small_config

SHORT = [
    "env.num_envs=2", "replay.ratio=16", "replay.prefill=64", "train.log_every=50",
    "train.checkpoint_every=100", "train.eval_episodes=2", "train.eval_envs=2",
]  # fmt: skip


def short(*overrides: str) -> Config:
    return small_config("env.id=CartPole-v1", *SHORT, *overrides)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_clock(row: dict) -> dict:
    return {key: value for key, value in row.items() if not key.startswith(("time/", "system/"))}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("loop") / "run"
    train(short("train.steps=200"), folder, quiet=True)
    return folder


def test_updates_follow_the_ratio(run: Path) -> None:
    scores = json.loads((run / "evaluation.json").read_text())
    assert scores["env_steps"] in (200, 201)
    # ratio / (B T) = 16 / 32 updates for each env step after the prefill of 64
    assert scores["updates"] == (scores["env_steps"] - 64) // 2
    last = rows(run)[-1]
    assert last["updates"] == (last["step"] - 64) // 2


def test_the_same_seed_repeats_the_run(run: Path, tmp_path: Path) -> None:
    train(short("train.steps=200"), tmp_path / "again", quiet=True)
    assert [without_clock(a) for a in rows(run)] == [without_clock(b) for b in rows(tmp_path / "again")]
    one, same = newest(run), newest(tmp_path / "again")
    assert one.commit["agent"] == same.commit["agent"]  # the digest of parameters, optimiser and random key
    assert one.commit["replay"] == same.commit["replay"]  # with the digests of its files
    train(short("train.steps=200", "seed=1"), tmp_path / "other", quiet=True)
    other = newest(tmp_path / "other")
    assert one.commit["agent"] != other.commit["agent"] and one.commit["replay"] != other.commit["replay"]
    assert without_clock(rows(run)[-1]) != without_clock(rows(tmp_path / "other")[-1])
    one, again, other = (newest(folder).commit for folder in (run, tmp_path / "again", tmp_path / "other"))
    digests = [[file["sha256"] for file in commit["replay"]["steps"]] for commit in (one, again, other)]
    assert one["agent"] == again["agent"] != other["agent"]
    assert digests[0] == digests[1] != digests[2]


def test_the_same_directory_resumes(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(short("train.steps=100"), folder, quiet=True)
    before = rows(folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 150, "from": "the future"}\n{"step": 16')  # what a kill may leave
    train(short("train.steps=200"), folder, quiet=True)
    after = rows(folder)
    assert after[: len(before)] == before
    assert not any("from" in row for row in after)
    scores = json.loads((folder / "evaluation.json").read_text())
    assert scores["env_steps"] >= 200 and scores["updates"] == (scores["env_steps"] - 64) // 2
    steps = sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    assert len(steps) == 2 and steps[-1] == scores["env_steps"]


def test_a_finished_run_is_only_scored_again(run: Path) -> None:
    rows_before, scores = rows(run), (run / "evaluation.json").read_text()
    train(short("train.steps=200"), run, quiet=True)
    assert rows(run) == rows_before
    assert (run / "evaluation.json").read_text() == scores


def test_a_checkpoint_gives_the_same_parameters(run: Path) -> None:
    from dreamer_agent import load_run

    _, first, _ = load_run(run)
    _, second, _ = load_run(run)
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    assert int(first.step) == json.loads((run / "evaluation.json").read_text())["updates"]


def test_another_size_is_refused_and_nothing_changes(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunDirectoryError, match=r"model\.units=16.*model\.units=24"):
        train(short("train.steps=300", "model.units=24"), run, quiet=True)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_an_environment_that_breaks_costs_nothing(tmp_path: Path) -> None:
    from dreamer_agent.envs import make_env

    config = short("train.steps=400", "train.checkpoint_every=10000")

    class Breaking:
        def __init__(self, env):
            self.env, self.calls = env, 0

        def __getattr__(self, name):
            return getattr(self.env, name)

        def step(self, actions):
            self.calls += 1
            if self.calls == 100:
                raise EnvironmentFault("The environment broke.")
            return self.env.step(actions)

    folder = tmp_path / "run"
    with pytest.raises(EnvironmentFault):
        train(config, folder, make=lambda count: Breaking(make_env(config.env, count)), quiet=True)
    assert newest_step(folder) > 150  # 100 calls of two environments, less their resets
    train(config, folder, quiet=True)
    assert json.loads((folder / "evaluation.json").read_text())["env_steps"] >= 400


def test_ctrl_c_ends_the_step_and_keeps_everything(tmp_path: Path) -> None:
    class Impatient(Callback):
        def on_step(self, trainer):
            if trainer.counters.env_steps >= 120 and not trainer.stopping:
                signal.raise_signal(signal.SIGINT)

    folder, before = tmp_path / "run", signal.getsignal(signal.SIGINT)
    config = short("train.steps=400", "train.checkpoint_every=10000")
    with pytest.raises(KeyboardInterrupt):
        train(config, folder, quiet=True, callbacks=Impatient())
    assert 120 <= newest_step(folder) <= 124
    assert signal.getsignal(signal.SIGINT) is before
    assert rows(folder)[-1]["step"] == 100  # a row that is not due would be one too many
    train(config, folder, quiet=True)
    assert json.loads((folder / "evaluation.json").read_text())["env_steps"] >= 400


def test_another_number_of_environments_is_refused(tmp_path: Path) -> None:
    from dreamer_agent.envs import make_env

    config = short()
    with pytest.raises(ConfigError, match=r"There are 3 environments, but env.num_envs=2: make them equal"):
        train(config, tmp_path / "run", make=lambda count: make_env(config.env, 3), quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("before", "now", "every", "expected"),
    [(0, 4, 10, False), (8, 12, 10, True), (10, 14, 10, False), (16, 20, 10, True), (0, 35, 10, True)],
)
def test_crossed_sees_multiples_in_a_half_open_interval(before, now, every, expected) -> None:
    assert crossed(before, now, every) is expected


def test_a_jax_native_environment_runs_through_the_same_loop(tmp_path: Path) -> None:
    pytest.importorskip("gymnax")
    train(short("train.steps=100", "env.id=gymnax:CartPole-v1"), tmp_path / "run", quiet=True)
    scores = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert scores["updates"] == (scores["env_steps"] - 64) // 2
    assert all(1 <= score["return_mean"] <= 500 for score in scores["scores"])
