"""Environments that fail while a run trains on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamer_agent.config import Config, merge
from dreamer_agent.envs import VectorEnv, make_env
from dreamer_agent.errors import EnvironmentFault
from dreamer_agent.training.checkpoint import newest
from dreamer_agent.training.loop import HostTrainer
from dreamer_agent.training.metrics import read_metrics
from tests.conftest import small_config


def config_of(folder: Path, plan: dict, *overrides: str) -> Config:
    config = small_config(
        "env.id=tests.envs.faulty:Faulty", "env.num_envs=2", "replay.ratio=1", "replay.prefill=1000",
        "train.log_every=20", "train.checkpoint_every=40", "train.steps=200", *overrides,
    )  # fmt: skip
    return merge(config, {"env": {"kwargs": {"memory": str(folder / "memory"), "plan": plan}}})


@pytest.mark.parametrize("processes", [0, 1])
def test_a_run_goes_on_and_counts(tmp_path: Path, processes: int, capsys) -> None:
    plan = {"raise": [31], "nan": [50], "shape": [77]} | ({"exit": [90]} if processes else {})
    trainer = HostTrainer.open(config_of(tmp_path, plan, f"env.processes={processes}"), tmp_path / "run")
    trainer.run(120)
    trainer.close()
    faults = len(plan)
    assert trainer.counters.faults == faults and trainer.counters.env_steps >= 120
    counted = [row["env_faults"] for row in read_metrics(tmp_path / "run")]
    assert counted[0] == 0 and counted[-1] == faults and counted == sorted(counted)
    said = capsys.readouterr().out
    assert "ValueError: the arm fell off" in said and f"({faults} in all)" in said
    data = trainer.replay.save().steps
    cut = data["is_last"] & ~data["is_terminal"]
    assert np.isfinite(data["obs"]["numbers"]).all() and cut.sum() >= faults
    assert (data["is_last"][:-1] == data["is_first"][1:]).sum() >= len(data["is_last"]) - 3


def test_one_that_keeps_failing_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"raise": list(range(100, 1000))}, "env.max_faults=2")
    trainer = HostTrainer.open(config, tmp_path / "run", quiet=True)
    with pytest.raises(
        EnvironmentFault, match=r"Environment \d .* failed 3 times in a row.*the arm fell off.*check"
    ):
        trainer.run(200)
    trainer.close()
    checkpoint = newest(tmp_path / "run")
    assert 80 < checkpoint.step == trainer.counters.env_steps <= 110
    mended = HostTrainer.open(merge(config, {"env": {"max_faults": 2}}), tmp_path / "run", quiet=True)
    assert mended.counters.env_steps == checkpoint.step and not mended.whole  # it failed in the middle of a step
    mended.close()


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"raise": [31, 71]})
    trainer = HostTrainer.open(config, tmp_path / "run", quiet=True)
    trainer.run(50)
    trainer.close()
    assert trainer.counters.faults == 1
    resumed = HostTrainer.open(config, tmp_path / "run", quiet=True)
    assert resumed.whole and resumed.counters.faults == 1
    resumed.run(100)
    resumed.close()
    assert resumed.counters.faults == 2


class OnlyTrains:
    """Makes environments; after the first evaluation those that are asked for one fail as they are made."""

    def __init__(self, config: Config, good: int):
        self.config, self.left = config, good + 1  # with those of the training

    def __call__(self, count: int) -> VectorEnv:
        self.left -= 1
        if self.left < 0:
            raise OSError("the simulator did not start")
        return make_env(self.config.env, count)


def test_a_later_evaluation_that_fails_is_left_out(tmp_path: Path, capsys) -> None:
    config = config_of(tmp_path, {}, "train.eval_every=40", "train.eval_episodes=2")
    trainer = HostTrainer.open(config, tmp_path / "run", OnlyTrains(config, good=1))
    trainer.run(130)
    trainer.close()
    said = capsys.readouterr().out
    assert said.count("evaluation: return") == 1
    assert said.count("evaluation: left out, since it failed (OSError: the simulator did not start)") == 2
    assert trainer.counters.env_steps >= 130 and trainer.counters.evaluated >= 120


def test_a_first_evaluation_that_fails_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    config = config_of(tmp_path, {}, "train.eval_every=30", "train.checkpoint_every=1000")
    trainer = HostTrainer.open(config, tmp_path / "run", OnlyTrains(config, good=0), quiet=True)
    with pytest.raises(OSError, match="did not start"):
        trainer.run(130)
    trainer.close()
    assert newest(tmp_path / "run").step == trainer.counters.env_steps == 30


def test_faults_in_an_evaluation_are_counted_and_told(tmp_path: Path, capsys) -> None:
    config = config_of(tmp_path, {}, "train.eval_episodes=4")
    trainer = HostTrainer.open(config, tmp_path / "run")
    trainer.run(40)
    trainer.make = lambda count: make_env(config_of(tmp_path / "elsewhere", {"raise": [9, 20]}).env, count)
    (tmp_path / "elsewhere").mkdir()
    evaluation = trainer.evaluate(explore=True)
    assert evaluation.faults == 2 == trainer.counters.faults == evaluation.summary()["faults"]
    trainer.close()
