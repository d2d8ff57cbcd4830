"""Tests that need eight devices; `test_mesh.py` runs them in a process that has them."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from dreamer_agent import Dreamer
from dreamer_agent.agent import Agent, AgentState
from dreamer_agent.api import population_configs
from dreamer_agent.errors import ConfigError
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training import population
from dreamer_agent.training.checkpoint import newest
from dreamer_agent.training.mesh import Placement, over_seeds, sizes_of
from dreamer_agent.training.population import Population
from dreamer_agent.training.trainer import Trainer
from dreamer_agent.training.updates import program_of
from tests.conftest import TEST_SIZE, random_batch, small_config
from tests.training.device_runs import short

MESHES = {"data": ["mesh.data=8"], "both": ["mesh.data=2", "mesh.fsdp=4"]}
SMALL = [
    *TEST_SIZE, "env.num_envs=2", "replay.batch_size=8", "replay.ratio=32", "replay.prefill=64",
    "train.log_every=50", "train.eval_envs=2", "train.eval_episodes=2", "optimizer.learning_rate=1e-3",
    "optimizer.warmup=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def agent() -> Agent:
    config = small_config("replay.batch_size=8", "optimizer.learning_rate=1e-3", "optimizer.warmup=0")
    obs = {"vector": ArraySpec("continuous", (3,)), "integer": ArraySpec("discrete", (), 4)}
    return Agent.create(
        config, obs, {"move": ArraySpec("continuous", (2,)), "button": ArraySpec("discrete", (), 3)}
    )


@pytest.fixture(scope="module")
def fresh(agent: Agent) -> AgentState:
    """The first state, as NumPy arrays, so that no program can use it up."""
    return jax.device_get(jax.jit(agent.init)(jax.random.PRNGKey(0)))


def updated(agent: Agent, fresh: AgentState, placement: Placement) -> tuple[list[Any], Any]:
    """What five updates give, after one and after all of them, on the devices of `placement`; and its program."""
    program, state, given = program_of(agent, placement), placement.state(fresh), []
    for seed in range(5):
        batches = placement.batches(jax.tree.map(lambda x: x[None], random_batch(agent, seed)))
        state, latents, metrics, *_ = program(state, batches)
        assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(
            lambda x: x.sharding, placement.state(state)
        )
        given.append(jax.device_get((state._asdict(), latents, metrics)))
    return [given[0], given[-1]], program


@pytest.fixture(scope="module")
def alone(agent: Agent, fresh: AgentState) -> list[Any]:
    return updated(agent, fresh, Placement())[0]


@pytest.mark.parametrize("name", MESHES)
def test_the_same_batch_gives_the_same_parameters(agent, fresh, alone, name) -> None:
    """Sums over rows are made in another order: 1e-6 of the largest number of an array after one update, 1e-3
    after five; latents, which are drawn, are the same but for the rounding of h."""
    mesh = Placement.of(small_config("replay.batch_size=8", *MESHES[name])).mesh
    given, program = updated(agent, fresh, Placement(mesh, split=64))
    assert program._cache_size() == 1
    for one, other, tolerance in zip(alone, given, (1e-6, 1e-3), strict=True):
        for part in ("params", "average", "slow_critic", "norm"):
            for a, b in zip(*map(jax.tree.leaves, (one[0][part], other[0][part])), strict=True):
                assert np.abs(a - b).max() <= tolerance * max(np.abs(a).max(), 1e-3), part
        np.testing.assert_array_equal(one[1]["stoch"], other[1]["stoch"])
    moved = [
        np.abs(a - b).max()
        for a, b in zip(*map(jax.tree.leaves, (fresh.params, given[1][0]["params"])), strict=True)
    ]
    assert np.median(moved) > 1e-3  # five updates did something


def test_devices_exchange_nothing_at_the_steps_of_a_sequence(agent, fresh) -> None:
    """XLA's CPU backend leaves in a loop what it finds there: a sum of gradients at each of its steps."""
    placement = Placement.of(small_config("replay.batch_size=8", *MESHES["both"]))
    batches = placement.batches(jax.tree.map(lambda x: x[None], random_batch(agent, 0)))
    text = program_of(agent, placement).lower(placement.state(fresh), batches).compile().as_text()
    where, found = "", []
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            where = line.split()[0]
        if re.search(r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\(", line):
            found.append(where)
    assert found and set(found) == {"ENTRY"}


def test_rows_and_large_parameters_are_divided(agent, fresh) -> None:
    mesh = Placement.of(small_config("replay.batch_size=8", *MESHES["both"])).mesh
    placement = Placement(mesh, split=64)
    state = placement.state(fresh)
    share = partial(jax.tree.map, lambda x: x.addressable_data(0).size / x.size)
    shares = {path: part for path, part in jax.tree_util.tree_flatten_with_path(share(state.params))[0]}
    assert set(shares.values()) == {0.25, 1.0}
    large = sum(np.size(x) for x, s in zip(jax.tree.leaves(fresh.params), shares.values(), strict=True) if s < 1)
    assert large > 0.9 * sum(np.size(x) for x in jax.tree.leaves(fresh.params))
    assert jax.tree.leaves(share(state.average)) == jax.tree.leaves(share(state.params))
    batch = placement.batches({"x": np.arange(3 * 8 * 2).reshape(3, 8, 2)})["x"]
    assert batch.addressable_data(0).shape == (3, 1, 2)
    for a, b in zip(*map(jax.tree.leaves, (placement.whole(state.params), fresh.params)), strict=True):
        assert len(a.devices()) == 1
        np.testing.assert_array_equal(a, b)


def test_a_run_goes_on_with_other_numbers_of_devices(tmp_path: Path) -> None:
    run, seen = tmp_path / "run", []
    for steps, devices, mesh in (
        (90, 4, ["mesh.data=4"]), (120, 1, []), (150, 4, ["mesh.data=2", "mesh.fsdp=2"]),
    ):  # fmt: skip
        with Dreamer("CartPole-v1", config=[*SMALL, *mesh], run=run, quiet=True) as agent:
            trainer: Trainer = agent._open()
            if seen:
                for a, b in zip(*map(jax.tree.leaves, (trainer.state._asdict(), seen[-1])), strict=True):
                    np.testing.assert_array_equal(a, b)
            trainer.run(steps)
            assert trainer.placement.devices == devices
            assert trainer.updates.program._cache_size() == 1
            assert len(agent.evaluate(2).returns) == 2
            seen.append(jax.device_get(trainer.state._asdict()))
    assert seen[-1]["step"] > seen[0]["step"] > 0


def test_training_is_that_of_one_device(tmp_path: Path) -> None:
    """As long as no rounding has changed an action: 20 updates here."""
    given = []
    for name, mesh in (("one", []), ("four", ["mesh.data=4"])):
        with Dreamer("CartPole-v1", config=[*SMALL, *mesh], run=tmp_path / name, quiet=True) as agent:
            trainer = agent._open()
            trainer.run(104)
            given.append(jax.device_get((trainer.state.params, trainer.replay.save().steps)))
    (one, steps), (other, others) = given
    np.testing.assert_array_equal(steps["action"]["action"], others["action"]["action"])
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        assert np.abs(a - b).max() <= 1e-2 * max(np.abs(a).max(), 1e-3)


def test_seeds_of_a_population_are_divided(tmp_path: Path, monkeypatch) -> None:
    """Four seeds on four devices are those of one device; each is evaluated and saved from one."""
    config, given = short("train.steps=120", "optimizer.learning_rate=1e-3"), []
    assert over_seeds(6).num_devices == 6 and over_seeds(9).num_devices == 3 and over_seeds(11) is None
    for name in ("four", "one"):
        folders = [tmp_path / name / str(seed) for seed in range(4)]
        together = Population.open(population_configs(config, 4), folders, quiet=True)
        together.run(120)
        assert together.program.chunk._cache_size() == 1
        states = [member.state for member in together.members]
        assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(states))
        assert [len(each) for each in together.score()] == [2] * 4
        assert all(newest(folder).step >= 120 for folder in folders)
        given.append(jax.device_get([state.params for state in states]))
        together.close()
        monkeypatch.setattr(population, "over_seeds", lambda _: None)
    moved = jax.device_get(jax.jit(together.members[0].agent.init)(jax.random.PRNGKey(0)).params)
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (moved, given[0][0])), strict=True))
    for a, b in zip(*map(jax.tree.leaves, given), strict=True):
        assert np.abs(a - b).max() <= 1e-2 * max(np.abs(a).max(), 1e-3)


def test_what_cannot_be_divided_is_said() -> None:
    with pytest.raises(ConfigError, match="A batch of 4 sequences cannot be divided among 8 devices"):
        sizes_of(small_config("mesh.data=8"))
    assert sizes_of(small_config("replay.batch_size=8", "mesh.data=0", "mesh.fsdp=2")) == (4, 2)
    with pytest.raises(ConfigError, match="makes 16 devices, but there are 8"):
        sizes_of(small_config("replay.batch_size=16", "mesh.data=8", "mesh.fsdp=2"))
