"""Losses and gradients that are not finite: skipped inside the program, counted, kept, and at last given up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.config import Config
from dreamer_agent.errors import NumericsError
from dreamer_agent.files import read_tree
from dreamer_agent.training.callbacks import Callback
from dreamer_agent.training.checkpoint import complete
from dreamer_agent.training.device_loop import DeviceTrainer
from dreamer_agent.training.loop import HostTrainer
from dreamer_agent.training.metrics import read_metrics
from dreamer_agent.training.trainer import Trainer
from tests.conftest import random_batch, small_config


def test_an_update_that_is_not_finite_changes_nothing_but_the_counts(learner) -> None:
    good = random_batch(learner.agent)
    bad = random_batch(learner.agent, 1)
    bad["reward"][1, 3] = np.nan
    state, _, metrics = learner.update(learner.state, good)
    assert metrics["skipped"] == 0 and all(np.isfinite(value) for value in metrics.values())
    skipped, _, metrics = learner.update(state, bad)
    assert metrics.pop("skipped") == 1 and all(np.isnan(value) for value in metrics.values())
    assert int(skipped.step) == int(state.step) + 1
    assert [int(x) for x in skipped.skips] == [1, 1]
    same = skipped._replace(step=state.step, skips=state.skips)
    jax.tree.map(np.testing.assert_array_equal, same, state)
    again, _, _ = learner.update(skipped, bad)
    assert [int(x) for x in again.skips] == [2, 2]
    after, _, metrics = learner.update(again, good)
    assert [int(x) for x in after.skips] == [2, 0] and metrics["skipped"] == 0
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (after.params, state.params)), strict=True))


def test_a_gradient_alone_that_is_not_finite_is_enough(learner) -> None:
    huge = jax.tree.map(lambda x: x, learner.state)
    huge = huge._replace(hyper=huge.hyper | {"scales": {k: jnp.float32(3e38) for k in huge.hyper["scales"]}})
    skipped, _, metrics = learner.update(huge, random_batch(learner.agent))
    assert metrics["skipped"] == 1
    jax.tree.map(np.testing.assert_array_equal, skipped.params, huge.params)


def short(*overrides: str) -> Config:
    return small_config(
        "env.id=tests.envs.jax_envs:Drift", "env.num_envs=2", "replay.ratio=10", "replay.prefill=50",
        "train.log_every=50", "train.checkpoint_every=60", "train.max_skipped=3", "train.steps=400", *overrides,
    )  # fmt: skip


class Poison(Callback):
    """Writes NaN into the rewards of the replay at env step `at`, once, or again and again."""

    def __init__(self, at: int, often: bool = False, some: bool = False):
        self.at, self.often, self.some, self.healthy = at, often, some, None

    def on_step(self, trainer: Trainer) -> None:
        if trainer.counters.env_steps >= self.at and (self.often or self.healthy is None):
            rewards = trainer.replay.data["reward"]
            self.healthy = rewards.copy()
            rewards[0 if self.some else slice(None), :] = np.nan


def test_skips_are_counted_and_their_batches_kept_and_their_latents_not(tmp_path: Path) -> None:
    trainer = HostTrainer.open(short("train.max_skipped=1000"), tmp_path / "run", quiet=True)
    trainer.run(160, Poison(100, some=True))
    trainer.close()
    counted = trainer.counters.skipped
    assert 0 < counted < trainer.counters.updates == int(trainer.state.step)
    assert counted == int(trainer.state.skips.total)
    rows = read_metrics(trainer.folder)
    assert rows[-1]["updates_skipped"] == counted and rows[0]["updates_skipped"] == 0
    assert rows[-1]["loss/policy"] is not None  # of the updates that were made
    kept = sorted((trainer.folder / "skipped").iterdir())
    assert 1 <= len(kept) <= 3
    content = read_tree(kept[-1])
    assert np.isnan(content["batch"]["reward"]).any()
    assert content["batch"]["reward"].shape == (4, 9) and content["ids"].shape == (4, 2)
    for leaf in jax.tree.leaves((trainer.state.params, trainer.replay.data["latent"])):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory) -> tuple[Trainer, Path]:
    """A run whose whole replay was poisoned at env step 150, and which went back to the checkpoint before."""
    folder = tmp_path_factory.mktemp("numerics") / "run"
    trainer = HostTrainer.open(short(), folder, quiet=True)
    trainer.run(260, Poison(150))
    yield trainer, folder
    trainer.close()


def test_too_many_in_a_row_go_back_to_the_last_good_checkpoint(poisoned) -> None:
    trainer, folder = poisoned
    assert trainer.counters.rollbacks == 1 and trainer.counters.env_steps >= 260
    assert trainer.counters.skipped == 0 and np.isfinite(trainer.replay.data["reward"]).all()
    steps = [row["step"] for row in read_metrics(folder)]
    assert steps == sorted(set(steps)) and steps[-1] > 150 and complete(folder / "checkpoints")[-1] >= 260
    assert trainer.replay.seed != trainer.config.seed


def test_a_second_time_ends_the_run_with_a_sentence_and_its_checkpoint_goes_on(poisoned, tmp_path) -> None:
    trainer, folder = poisoned
    copy = shutil.copytree(folder, tmp_path / "copy")
    again = HostTrainer.open(short("train.steps=600"), copy, quiet=True)
    assert again.counters.rollbacks == 1 and again.replay.seed == trainer.replay.seed
    with pytest.raises(
        NumericsError, match=r"3 updates in a row .* again after .* lower optimizer\.learning_rate"
    ):
        again.run(400, Poison(0, often=True))
    again.close()
    allowed = HostTrainer.open(
        short("optimizer.learning_rate=1e-5"), copy, quiet=True, allow=["optimizer.learning_rate"]
    )
    np.testing.assert_allclose(allowed.state.hyper["learning_rate"], 1e-5)
    assert np.isfinite(allowed.replay.data["reward"]).all()
    allowed.close()


def test_without_a_checkpoint_it_stops_at_once(tmp_path: Path) -> None:
    trainer = HostTrainer.open(short("train.checkpoint_every=10000"), tmp_path / "run", quiet=True)
    with pytest.raises(NumericsError, match="3 updates in a row was not finite"):
        trainer.run(200, Poison(60, often=True))
    trainer.close()


def test_on_the_device_skips_are_counted_and_go_back_too(tmp_path: Path) -> None:
    trainer: Any = DeviceTrainer.open(short("train.loop=device"), tmp_path / "run", quiet=True)

    class PoisonDevice(Callback):
        done = False

        def on_step(self, trainer: Any) -> None:
            if trainer.counters.env_steps >= 150 and not self.done:
                self.done = True
                data = trainer.replay.state.data
                data = data | {"reward": data["reward"] * jnp.nan}
                trainer.replay.state = trainer.replay.state._replace(data=data)

    program = trainer.program
    trainer.run(200, PoisonDevice())
    assert trainer.counters.rollbacks == 1 and trainer.counters.skipped == 0
    assert trainer.program is program and program.chunk._cache_size() <= 2
    assert np.isnan(read_tree(next((trainer.folder / "skipped").iterdir()))["batch"]["reward"]).any()
    for leaf in jax.tree.leaves((trainer.state.params, trainer.replay.state.data)):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()
    trainer.close()
