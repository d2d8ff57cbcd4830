"""Updates in flight beside the environments: the same as waiting for each, and exact lags and counts."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.agent import Agent
from dreamer_agent.config import Config, load_config
from dreamer_agent.envs import Rows
from dreamer_agent.envs.interface import interface_of_specs
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training import updates
from dreamer_agent.training.callbacks import Callback
from dreamer_agent.training.loop import HostTrainer
from dreamer_agent.training.mesh import Placement
from dreamer_agent.training.trainer import Trainer
from dreamer_agent.training.updates import updates_per_dispatch
from tests.conftest import random_batch, small_config

OBS = {"obs": ArraySpec("continuous", (3,))}
ACT = {"action": ArraySpec("discrete", (), 2)}
LENGTHS = (3, 5, 4)  # of the episodes of each environment


def short(ratio: float, *overrides: str) -> Config:
    """Three environments, `ratio` updates per env step, from 24 env steps on."""
    return small_config(
        "env.num_envs=3", "replay.batch_size=2", "model.deter=16", "model.hidden=8", "model.units=8",
        f"replay.ratio={16 * ratio}", "replay.prefill=24", "train.log_every=20", "train.checkpoint_every=1000",
        "optimizer.learning_rate=1e-2", "optimizer.warmup=2", *overrides,
    )  # fmt: skip


class Reusing:
    """Every step writes over the arrays that the last one gave, which JAX may read without copying them.

    An ended episode is followed by the next one's first row at once. Observes (environment, episode, step).
    """

    num_envs, obs_specs, act_specs = len(LENGTHS), OBS, ACT

    def __init__(self) -> None:
        self.interface = interface_of_specs(OBS, ACT)
        self.buffers = [aligned((3, 3)), aligned((3, 3))]
        self.flags = [np.zeros(3, bool) for _ in range(4)]
        self.rewards = np.zeros(3, np.float32)
        self.truth: list[list[np.ndarray]] = [[] for _ in LENGTHS]
        self.in_flight: list[bool] = []
        self.watch: Any = lambda: False

    def reset(self, seed: int) -> list[Rows]:
        self.now = np.array([[i, 0, 0] for i in range(3)], np.float32)
        return [self._rows(0, np.ones(3, bool), np.zeros(3, bool), None)]

    def step(self, actions: Any) -> list[Rows]:
        self.in_flight.append(self.watch())
        for array in (*self.buffers, self.rewards, *self.flags):
            array.fill(1)  # what the next rows do not overwrite would show
        self.rewards[:] = actions["action"]
        self.now[:, 2] += 1
        last = self.now[:, 2] == LENGTHS
        rows = [self._rows(0, np.zeros(3, bool), last, None)]
        if last.any():
            self.now[last] += [0, 1, 0]
            self.now[last, 2] = 0
            self.flags[3][:] = last
            zeros = np.zeros(3, bool)
            rows.append(self._rows(1, self.flags[3], zeros, self.flags[3]))
        return rows

    def get_state(self) -> Any:
        return {"now": self.now.copy()}

    def set_state(self, state: Any) -> None:
        self.now = state["now"].copy()

    def close(self) -> None:
        pass

    def _rows(self, which: int, first: np.ndarray, last: np.ndarray, mask: np.ndarray | None) -> Rows:
        self.buffers[which][:] = self.now
        for stream in range(3) if mask is None else np.flatnonzero(mask):
            self.truth[stream].append(self.now[stream].copy())
        if mask is not None:
            return Rows({"obs": self.buffers[which]}, np.zeros(3, np.float32), first, last, last, mask)
        self.flags[1][:], self.flags[2][:] = first, last
        return Rows({"obs": self.buffers[which]}, self.rewards, *self.flags[1:3], self.flags[2])


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """float32 zeros that begin where JAX on a CPU takes them as they lie."""
    size = 4 * int(np.prod(shape))
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(np.float32).reshape(shape)


@pytest.fixture(scope="module")
def shared(learner) -> Iterator[Agent]:
    """One agent for all runs here, so that its programs are compiled once. That of the session is made before."""
    agent = Agent.create(short(1), OBS, ACT)
    patch = pytest.MonkeyPatch()
    patch.setattr(Agent, "create", lambda *_: agent)
    patch.setattr(updates, "program_of", functools.cache(updates.program_of))
    yield agent
    patch.undo()


def opened(config: Config, folder: Path) -> tuple[Trainer, Reusing]:
    env = Reusing()
    trainer = HostTrainer.open(config, folder, lambda _: env, quiet=True)
    env.watch = lambda: trainer.updates.flight is not None
    return trainer, env


def everything(trainer: Trainer) -> Any:
    """All that a run leaves behind, as NumPy arrays."""
    counters = {key: np.array(value) for key, value in vars(trainer.counters).items()}
    return jax.tree.map(np.asarray, (trainer.state, trainer.replay.save(), counters))


def metrics_of(folder: Path) -> list[dict]:
    from dreamer_agent.training.metrics import read_metrics

    return [
        {k: v for k, v in row.items() if not k.startswith(("time/", "system/"))} for row in read_metrics(folder)
    ]


@pytest.mark.parametrize(
    ("ratio", "dispatch", "count"), [(1 / 3, 0, 1), (1, 1, 1), (1, 0, 3)], ids=["one", "three", "three at once"]
)
def test_overlapping_gives_what_waiting_gives(shared, tmp_path, ratio, dispatch, count) -> None:
    given, programs = [], updates.program_of(shared, Placement())._cache_size()
    for overlap in (True, False):
        folder = tmp_path / str(overlap)
        config = short(ratio, f"train.overlap={overlap}".lower(), f"train.updates_per_dispatch={dispatch}")
        trainer, env = opened(config, folder)
        trainer.run(90)
        given.append((everything(trainer), metrics_of(folder)))
        trainer.close()
        assert trainer.updates.count == count
        assert any(env.in_flight)  # environments were stepped after an update was launched
        owed = int((trainer.counters.env_steps - 24) * config.updates_per_env_step)
        assert trainer.counters.updates == owed // count * count == int(trainer.state.step)
        for stream, rows in enumerate(env.truth):  # whatever became of the environment's own arrays
            stored = trainer.replay.data["obs"]["obs"][stream, : trainer.replay.added[stream]]
            np.testing.assert_array_equal(stored, rows[: len(stored)])
    jax.tree.map(np.testing.assert_array_equal, *(first for first, _ in given))
    assert given[0][1] == given[1][1] and any("loss/policy" in row for row in given[0][1])
    assert updates.program_of(shared, Placement())._cache_size() <= programs + 1  # one serves all dispatches


def test_what_a_dispatch_sees_lags_by_one_act_and_one_dispatch(shared, tmp_path) -> None:
    trainer, _ = opened(short(1 / 3), tmp_path / "run")
    seen: list[tuple] = []
    sample, write = trainer.replay.sample, trainer.replay.update_latents
    trainer.replay.sample = lambda: (seen.append(("sample", int(trainer.replay.added.sum()))), sample())[1]
    trainer.replay.update_latents = lambda *x: (seen.append(("write",)), write(*x))[1]

    class Watching(Callback):
        def on_step(self, trainer):
            seen.append(("stored", int(trainer.replay.added.sum())))

    trainer.run(40, Watching())
    first = seen.index(next(event for event in seen if event[0] == "sample"))
    stored = seen[first - 1][1]
    names = [event[0] for event in seen[first:]]
    assert seen[first] == ("sample", stored)  # without the rows of this act
    assert names[:5] == ["sample", "stored", "sample", "write", "stored"]
    assert names.count("sample") == names.count("write")  # the last ones are written at the end
    trainer.close()


@pytest.mark.parametrize("captured", [True, False], ids=["exact", "cut"])
def test_a_run_goes_on_from_a_checkpoint_as_one_that_is_resumed_from_it(shared, tmp_path, captured) -> None:
    folder, copies = tmp_path / "run", [tmp_path / "one", tmp_path / "other"]

    class Keep(Callback):
        def on_step(self, trainer):
            if trainer.counters.env_steps >= 60 and not copies[0].exists():
                assert trainer.updates.flight is not None
                trainer.save()
                assert trainer.updates.flight is not None  # nothing is changed by it
                trainer.checkpoints.settle()
                for copy in copies:
                    shutil.copytree(trainer.folder, copy)

    trainer, env = opened(short(1), folder)
    if not captured:
        env.get_state = lambda: None
    trainer.run(90, Keep())
    trainer.close()
    given = []
    for copy in copies:
        resumed, env = opened(short(1), copy)
        assert resumed.counters.cuts == (0 if captured else 1)
        resumed.run(90)
        resumed.close()
        given.append((everything(resumed), metrics_of(copy)))
    if captured:
        given.append((everything(trainer), metrics_of(folder)))
    for other in given[1:]:
        jax.tree.map(np.testing.assert_array_equal, other[0], given[0][0])
        for a, b in zip(other[1], given[0][1], strict=True):
            assert a == b, {k: (a.get(k), b.get(k)) for k in a | b if a.get(k) != b.get(k)}
    ends = given[0][0][1].steps
    assert ends["is_last"].sum() > ends["is_terminal"].sum() - 1


def test_an_evaluation_changes_nothing_of_the_training(shared, tmp_path) -> None:
    class Evaluate(Callback):
        def on_step(self, trainer):
            if trainer.counters.env_steps in range(40, 50):
                trainer.make = lambda count: Reusing()
                trainer.evaluate(explore=True, episodes=3)

    given = []
    for name, callback in (("with", Evaluate()), ("without", None)):
        trainer, _ = opened(short(1), tmp_path / name)
        trainer.run(70, callback)
        given.append(everything(trainer))
        trainer.close()
    jax.tree.map(np.testing.assert_array_equal, *given)


def test_callbacks_get_metrics_on_the_device_and_whole_steps(shared, tmp_path) -> None:
    calls: list[tuple] = []

    class Watching(Callback):
        def on_update(self, trainer, metrics):
            assert all(isinstance(value, jax.Array) and value.shape == () for value in metrics.values())
            added = trainer.replay.added.sum()
            calls.append((trainer.counters.updates, trainer.counters.env_steps, int(added)))

    trainer, env = opened(short(1), tmp_path / "run")
    trainer.run(60, Watching())
    assert [updates for updates, _, _ in calls] == [3 * (i + 1) for i in range(len(calls))]
    assert all(updates == (steps - 24) // 3 * 3 for updates, steps, _ in calls)
    waiting = sum(3 if rows.mask is None else int(rows.mask.sum()) for rows in trainer.driver.pending)
    assert calls[-1][2] == sum(map(len, env.truth)) - waiting  # the step beside the updates is whole
    trainer.close()


def test_several_updates_in_one_dispatch_are_the_single_ones(learner) -> None:
    batches = [random_batch(learner.agent, seed) for seed in range(3)]
    copy = lambda: jax.tree.map(jnp.copy, learner.state)  # noqa: E731  the state is donated
    update_many = updates.program_of(learner.agent, Placement())
    stacked = jax.tree.map(lambda *x: np.stack(x), *batches)
    state, latents, metrics, *_ = update_many(copy(), stacked)
    one, rows, packed = copy(), [], []
    for batch in batches:
        one, given, row, *_ = update_many(one, jax.tree.map(lambda x: x[None], batch))
        rows.append(row)
        packed.append(given)
    assert int(state.step) == int(one.step) == 3
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)  # noqa: E731
    jax.tree.map(close, state, one)
    jax.tree.map(lambda x, *y: close(x, np.mean(y, 0)), metrics, *rows)
    jax.tree.map(lambda x, *y: close(x, np.concatenate(y)), latents, *packed)


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        ((), 1),  # a ratio of 32 by 1,024 steps of a batch: an update in 8 acts
        (("replay.ratio=512",), 2),
        (("replay.ratio=1000",), 3),
        (("replay.ratio=65536",), 16),
        (("replay.ratio=65536", "train.updates_per_dispatch=40"), 40),
        (("replay.ratio=65536", "replay.batch_size=2048", "replay.batch_length=512"), 1),  # bytes
    ],
)
def test_updates_of_a_dispatch_are_those_of_an_act(overrides, count) -> None:
    config = load_config(["size/nano"], ["env.num_envs=4", *overrides])
    assert updates_per_dispatch(config, Agent.create(config, OBS, ACT)) == count
