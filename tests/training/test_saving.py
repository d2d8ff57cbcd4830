"""What a checkpoint holds of a run, where that is not as usual."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from dreamer_agent import files
from dreamer_agent.envs.gymnasium_adapter import make_vector
from dreamer_agent.errors import ConfigError, RunDirectoryError
from dreamer_agent.training import train
from dreamer_agent.training.callbacks import Callback, StopOnReturn
from dreamer_agent.training.loop import HostTrainer
from tests.conftest import small_config
from tests.replay.stores import assert_same

FEW = ("env.id=CartPole-v1", "env.num_envs=2", "replay.ratio=16", "replay.prefill=1000")  # no updates


def test_a_longer_run_after_a_full_disk_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def config(steps: int) -> Any:
        return small_config(*FEW, f"train.steps={steps}")

    trainer = HostTrainer.open(config(60), tmp_path / "run", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(files.np, "savez", full)
        with pytest.raises(RunDirectoryError, match="No space left"):
            trainer.run(60)
        trainer.begin(400)  # in a larger replay
    trainer.run(400)
    expected = trainer.replay.save()
    trainer.close()
    again = HostTrainer.open(config(400), tmp_path / "run", quiet=True)
    assert again.counters.env_steps >= 400
    assert_same(again.replay.save(), expected)
    again.close()


class Remembers(Callback):
    """Keeps what it saw, and hands out the very list that it goes on writing to."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_step(self, trainer: Any) -> None:
        self.seen.append(np.int64(trainer.counters.env_steps))

    def get_state(self) -> Any:
        return {"seen": self.seen}

    def set_state(self, state: Any) -> None:
        self.seen = state["seen"]


def test_a_callback_goes_on_with_a_copy_of_what_it_knew(tmp_path: Path) -> None:
    config = small_config(*FEW, "train.steps=40", "train.eval_episodes=1")
    first, second = Remembers(), Remembers()
    train(config, tmp_path / "run", quiet=True, callbacks=first)
    trainer = HostTrainer.open(small_config(*FEW, "train.steps=60"), tmp_path / "run", quiet=True)
    trainer.run(60, second)
    trainer.close()
    assert second.seen[: len(first.seen)] == first.seen and second.seen[-1] >= 60
    assert all(isinstance(step, np.int64) for step in second.seen)


def test_what_a_callback_cannot_have_kept_is_said(tmp_path: Path) -> None:
    class Holds(Remembers):
        def get_state(self) -> Any:
            return {"file": object()}

    trainer = HostTrainer.open(small_config(*FEW, "train.steps=20"), tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match=r"get_state\(\) of the callback Holds .* a object.*plain data"):
        trainer.run(20, Holds())
    trainer.close()


def test_the_returns_of_a_stop_are_replaced() -> None:
    stop = StopOnReturn(10.0, episodes=5)
    for _ in range(2):
        stop.set_state([1.0, 2.0])
    assert stop.get_state() == [1.0, 2.0]


def test_a_resumed_run_tells_of_an_environment_that_was_made_differently(tmp_path: Path, capsys) -> None:
    def with_gravity(*numbers: float) -> Any:
        left = itertools.chain(numbers, itertools.repeat(9.8))

        def one() -> gym.Env:
            env = gym.make("CartPole-v1")
            env.unwrapped.gravity = next(left)  # type: ignore[attr-defined]
            return env

        return lambda count: make_vector([one] * count, 1, max_faults=1)

    config = small_config(*FEW, "train.steps=200")
    first = HostTrainer.open(config, tmp_path / "run", with_gravity(9.0, 9.5), quiet=True)
    first.run(40)
    first.close()
    with pytest.warns(UserWarning, match="Environment 1 does not go on as it was.*another gravity"):
        second = HostTrainer.open(config, tmp_path / "run", with_gravity(9.0, 9.7))
    assert "exactly where it was, but for 1 environments that were made differently" in capsys.readouterr().out
    before = first.counters.episodes
    second.run(50)
    assert second.counters.episodes > before and second.counters.faults == 0
    second.close()
