"""The on-device loop beside the host loop: the same rules, the same run directory, one program."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.errors import ConfigError, EnvironmentFault
from dreamer_agent.training import train
from dreamer_agent.training.callbacks import Callback
from dreamer_agent.training.device_loop import DeviceTrainer, span
from dreamer_agent.training.loop import HostTrainer
from dreamer_agent.training.run_directory import newest_step
from dreamer_agent.training.trainer import Trainer
from tests.training.device_runs import rows, scores, short, without_clock


class Notes(Callback):
    """What was called, and with what counts."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.episodes: list[Any] = []
        self.evaluations = self.updates = 0

    def on_step(self, trainer: Trainer) -> None:
        self.steps.append((trainer.counters.env_steps, trainer.counters.updates))

    def on_episode(self, trainer: Trainer, episode: Any) -> None:
        self.episodes.append(episode)

    def on_update(self, trainer: Trainer, metrics: Any) -> None:
        self.updates += 1

    def on_evaluation(self, trainer: Trainer, evaluation: Any) -> None:
        self.evaluations += 1


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, Notes]:
    folder, notes = tmp_path_factory.mktemp("device") / "run", Notes()
    train(short("train.steps=200", "train.eval_every=150"), folder, quiet=True, callbacks=notes)
    return folder, notes


@pytest.fixture(scope="module")
def trainer(tmp_path_factory) -> Any:
    """A run that has just begun to learn."""
    trainer = DeviceTrainer.open(short("train.steps=400"), tmp_path_factory.mktemp("open") / "run", quiet=True)
    trainer.run(70)
    yield trainer
    trainer.close()


def due(env_steps: int) -> int:
    """ratio / (B T) = 10 / 32 updates for each env step after the prefill of 50."""
    return int((env_steps - 50) * 10 / 32) if env_steps >= 50 else 0


def test_updates_follow_the_ratio_to_the_step(run: tuple[Path, Notes]) -> None:
    folder, notes = run
    assert [updates for _, updates in notes.steps] == [due(env_steps) for env_steps, _ in notes.steps]
    # Chunks end where a row of metrics is due, with the first update, and after eight updates.
    assert {50, 100, 150, 200} <= {env_steps // 50 * 50 for env_steps, _ in notes.steps}
    assert 1 in [updates for _, updates in notes.steps]
    assert all(after - before <= 8 for (_, before), (_, after) in itertools.pairwise(notes.steps))
    assert scores(folder)["env_steps"] in (200, 201)
    assert scores(folder)["updates"] == due(scores(folder)["env_steps"]) == rows(folder)[-1]["updates"]


def test_a_run_directory_is_as_the_host_loop_leaves_it(run: tuple[Path, Notes], tmp_path: Path) -> None:
    folder, _ = run
    train(short("train.steps=200", "train.eval_every=150", "train.loop=host"), tmp_path / "host", quiet=True)
    assert {path.name for path in folder.iterdir() if not path.name.startswith("events")} == {
        path.name for path in (tmp_path / "host").iterdir() if not path.name.startswith("events")
    }
    ours, theirs = (
        [{key for key in row if not key.startswith("time/start")} for row in rows(where)]
        for where in (folder, tmp_path / "host")
    )
    assert ours == theirs


def test_callbacks_see_chunks_episodes_and_evaluations(run: tuple[Path, Notes]) -> None:
    folder, notes = run
    assert rows(folder)[-1]["episode/count"] == len(notes.episodes) > 10
    assert {episode.env for episode in notes.episodes} == {0, 1}
    assert all(1 <= episode.length <= 6 and episode.score < 0 for episode in notes.episodes)  # Drift's time limit
    assert sum(episode.length for episode in notes.episodes) <= notes.steps[-1][0]
    assert notes.updates == 0 and notes.evaluations == 3  # at step 150, and two at the end


def test_the_same_seed_repeats_the_run(run: tuple[Path, Notes], tmp_path: Path) -> None:
    train(short("train.steps=200", "train.eval_every=150"), tmp_path / "again", quiet=True)
    assert [without_clock(a) for a in rows(run[0])] == [without_clock(b) for b in rows(tmp_path / "again")]


def test_it_goes_on_from_a_checkpoint_in_either_loop(run: tuple[Path, Notes]) -> None:
    folder, _ = run
    before = newest_step(folder)
    for steps, loop in ((230, "host"), (260, "device")):
        train(short(f"train.steps={steps}", f"train.loop={loop}"), folder, quiet=True)
        now = scores(folder)
        assert now["env_steps"] in (steps, steps + 1) and now["updates"] == due(now["env_steps"])
    assert newest_step(folder) > before
    steps = [row["step"] for row in rows(folder)]
    assert steps == sorted(steps)


def test_until_it_learns_it_stores_what_the_host_loop_stores(tmp_path: Path) -> None:
    saved = []
    for loop in ("host", "device"):
        config = short("train.steps=400", "replay.prefill=1000", f"train.loop={loop}")
        kind = DeviceTrainer if loop == "device" else HostTrainer
        trainer = kind.open(config, tmp_path / loop, quiet=True)
        trainer.run(60)
        saved.append(trainer.replay.save().steps)
        trainer.close()
    host, device = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in saved)
    assert host.keys() == device.keys()
    for path, value in host.items():
        # Floating-point sums of two programs differ in their order.
        exact = value.dtype.kind != "f" and value.dtype.name != "bfloat16"
        np.testing.assert_allclose(device[path], value, atol=0 if exact else 1e-4)


def test_chunks_may_end_anywhere(trainer: DeviceTrainer) -> None:
    """One program for all, and what it computes does not depend on where Python looked at it."""
    program, counters, rule = trainer.program, trainer.counters, trainer.updates_due

    def go(*stops: int) -> Any:
        loop, first, updates = jax.tree.map(jnp.copy, trainer.loop), counters.env_steps, counters.updates
        for stop in stops:
            loop, _, updates = program.chunk(loop, program.plan(first, stop, int(updates), rule))
            first = int(loop.acting.env_steps)
        return loop

    whole, parts = go(94), go(72, 85, 94)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    assert int(whole.agent.step) == due(int(whole.acting.env_steps))
    assert program.chunk._cache_size() == 1


def test_it_goes_on_from_a_checkpoint_exactly(tmp_path: Path) -> None:
    trainer = DeviceTrainer.open(short("train.steps=400"), tmp_path / "run", quiet=True)
    copy = tmp_path / "copy"

    class Keep(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.counters.env_steps >= 110 and not copy.exists():
                trainer.save()
                trainer.checkpoints.settle()
                shutil.copytree(trainer.folder, copy)

    trainer.run(200, Keep())
    resumed = DeviceTrainer.open(trainer.config, copy, quiet=True)
    assert 110 <= resumed.counters.env_steps < 150 and resumed.whole
    resumed.run(200)
    loops = [jax.tree.map(np.asarray, each.loop) for each in (trainer, resumed)]
    stamps = [loop.replay._replace(stamps=0, writes=0) for loop in loops]  # count from the resume on
    jax.tree.map(
        np.testing.assert_array_equal, *[loop._replace(replay=x) for loop, x in zip(loops, stamps, strict=True)]
    )
    assert vars(trainer.counters) == vars(resumed.counters)
    trainer.close()
    resumed.close()
    assert [without_clock(row) for row in rows(trainer.folder)] == [without_clock(row) for row in rows(copy)]


def test_a_callback_ends_it_after_the_chunk(trainer: DeviceTrainer) -> None:
    class Stop(Callback):
        def on_episode(self, trainer: Trainer, episode: Any) -> bool:
            return False

    trainer.run(400, Stop())
    assert (
        trainer.counters.env_steps == newest_step(trainer.folder) <= 101
    )  # the chunk ends where a row is due, if not before


def poison(trainer: DeviceTrainer, faults: int) -> None:
    """Let the next rows be faulty, after so many `faults` in a row."""
    carry = trainer.driver.acting.env
    counts = carry.faults._replace(in_a_row=carry.faults.in_a_row + faults)
    broken = (carry.state[0] * jnp.nan, *carry.state[1:])
    trainer.driver.acting = trainer.driver.acting._replace(env=carry._replace(state=broken, faults=counts))


def test_a_fault_is_mended_by_a_restart(trainer: DeviceTrainer) -> None:
    trainer.run(120)
    poison(trainer, 0)
    trainer.run(126)
    faults = trainer.program.env.faults_of(trainer.driver.acting.env)
    assert 1 <= int(faults.total.sum()) <= trainer.env.num_envs  # one of them may just have ended
    assert trainer.counters.env_steps >= 126 and not trainer.program.env.failed(trainer.driver.acting.env)
    assert trainer.counters.faults == int(faults.total.sum())
    assert np.isfinite(trainer.replay.save().steps["obs"]["place"]).all()


def test_a_fault_is_passed_on_and_what_came_before_is_kept(trainer: DeviceTrainer) -> None:
    trainer.run(132)
    poison(trainer, 5)  # as often as env.max_faults
    with pytest.raises(
        EnvironmentFault,
        match=r"environment Drift gave NaN or infinity in 'place'.* 6 times in a row.*: mend its step",
    ):
        trainer.run(200)
    assert newest_step(trainer.folder) == trainer.counters.env_steps < 140
    for leaf in jax.tree.leaves((trainer.state.params, trainer.replay.save().steps)):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()


def test_environments_of_another_kind_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.loop=device needs environments written in JAX"):
        train(short("env.id=CartPole-v1"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [((), 25), (("train.log_every=9",), 9), (("replay.ratio=100000", "train.log_every=9"), 1)],
)
def test_a_chunk_is_no_longer_than_a_row_of_metrics_or_so_many_updates(overrides: tuple, expected: int) -> None:
    assert span(short(*overrides)) == expected  # 8 updates of 10 / 32 for each env step
