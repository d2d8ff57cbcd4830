"""Seeds trained together: what each computes is what it would alone, and each leaves a run of its own."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent import load_run, train_population
from dreamer_agent.api import population_configs
from dreamer_agent.config import Config, merge
from dreamer_agent.errors import ConfigError
from dreamer_agent.hyper import hyper_parameters
from dreamer_agent.training import train
from dreamer_agent.training.checkpoint import complete, newest
from dreamer_agent.training.population import (
    BESIDE,
    HYPER,
    NOWHERE,
    Population,
    common_updates,
    group_by_program,
)
from dreamer_agent.training.run_directory import load
from dreamer_agent.values import flatten, parse_override, to_dict
from tests.compiling import quick_jit
from tests.conftest import Learner, random_batch
from tests.training.device_runs import rows, scores, short, without_clock

RATES = {"optimizer.learning_rate": [1e-4, 1e-3]}


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("population")
    train_population(short("train.steps=150", "train.eval_every=70"), 2, folder, RATES, quiet=True)
    return folder


def folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir())


def test_each_seed_has_a_run_of_its_own(parent: Path) -> None:
    assert [path.name for path in folders(parent)] == [f"tests.envs.jax_envs_Drift-{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders(parent)):
        config = load(folder)
        assert config.seed == seed and config.optimizer.learning_rate == RATES["optimizer.learning_rate"][seed]
        _, state, _ = load_run(folder)
        assert int(state.step) == scores(folder)["updates"]
        np.testing.assert_allclose(state.hyper["learning_rate"], config.optimizer.learning_rate)
        assert (folder / "spaces.json").is_file() and len(scores(folder)["scores"]) == 2
        assert rows(folder)[-1]["step"] == scores(folder)["env_steps"]
        assert any("evaluation/return_mean" in row for row in rows(folder))
    assert without_clock(rows(folders(parent)[0])[-1]) != without_clock(rows(folders(parent)[1])[-1])


def test_no_seed_runs_away_and_updates_follow_the_last(parent: Path) -> None:
    made = [scores(folder)["env_steps"] for folder in folders(parent)]
    assert min(made) >= 150 and max(made) - min(made) < 4  # twice the number of environments
    updates = {scores(folder)["updates"] for folder in folders(parent)}
    assert updates == {int((min(made) - 50) * 10 / 32)}


def test_a_population_goes_on_together_and_a_seed_alone(parent: Path) -> None:
    train_population(short("train.steps=200", "train.eval_every=70"), 2, parent, RATES, quiet=True)
    made = [scores(folder)["env_steps"] for folder in folders(parent)]
    assert min(made) >= 200
    config = dataclasses.replace(load(folders(parent)[1]))
    train(merge(config, {"train": {"steps": 230}}), folders(parent)[1], quiet=True)
    alone = scores(folders(parent)[1])
    assert alone["updates"] == int((alone["env_steps"] - 50) * 10 / 32)
    with pytest.raises(ConfigError, match=r"have made \d+ to \d+ updates, so that they cannot go on together"):
        train_population(short("train.steps=300", "train.eval_every=70"), 2, parent, RATES, quiet=True)


def test_a_population_that_was_killed_between_two_checkpoints_goes_on_from_those_that_all_have(
    tmp_path: Path,
) -> None:
    config = short("train.steps=150", "train.checkpoint_every=50")
    train_population(config, 2, tmp_path / "whole", quiet=True)
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    whole, killed = folders(tmp_path / "whole"), folders(tmp_path / "killed")
    steps = complete(killed[1] / "checkpoints")
    assert len(steps) == 2
    shutil.rmtree(killed[1] / f"checkpoints/{steps[1]}")
    train_population(config, 2, tmp_path / "killed", quiet=True)
    for one, other in zip(whole, killed, strict=True):
        assert newest(one).commit["agent"] == newest(other).commit["agent"]
        assert [without_clock(row) for row in rows(one)] == [without_clock(row) for row in rows(other)]
    assert (killed[0] / "damaged").is_dir()
    shutil.rmtree(killed[1] / "checkpoints")  # and what the others have is more than their first one
    with pytest.raises(ConfigError, match="cannot go on together"):
        train_population(config, 2, tmp_path / "killed", quiet=True)


def test_runs_that_others_join_lose_nothing(tmp_path: Path) -> None:
    config = short("train.steps=120")
    train_population(config, 2, tmp_path, quiet=True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"have made 0 to \d+ updates, so that they cannot go on together"):
        train_population(short("train.steps=200"), 3, tmp_path, quiet=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_population_that_was_killed_while_it_wrote_its_first_checkpoints_begins_anew(tmp_path: Path) -> None:
    config = short("train.steps=120")
    train_population(config, 2, tmp_path, quiet=True)
    one, other = folders(tmp_path)
    shutil.rmtree(other / "checkpoints")
    for old in complete(one / "checkpoints")[:-1]:
        shutil.rmtree(one / "checkpoints" / str(old))
    assert common_updates([one, other]) == NOWHERE
    (other / BESIDE).unlink()
    with pytest.raises(ConfigError, match="cannot go on together"):
        common_updates([one, other])


def test_until_it_learns_a_seed_stores_what_it_stores_alone(tmp_path: Path) -> None:
    config = short("train.steps=400", "replay.prefill=1000")
    configs = population_configs(config, [3, 5])
    together = Population.open(configs, [tmp_path / "three", tmp_path / "five"], quiet=True)
    together.run(60)
    from dreamer_agent.training.device_loop import DeviceTrainer

    alone = DeviceTrainer.open(configs[1], tmp_path / "alone", quiet=True)
    alone.run(60)
    one, other = (each.replay.state for each in (alone, together.members[1]))
    count = min(int(one.added[0]), int(other.added[0]))  # the clock of a population is its slowest seed
    assert count > 25

    def same(a: Any, b: Any) -> None:
        np.testing.assert_allclose(a[:, :count], b[:, :count], atol=1e-4)

    jax.tree.map(same, one.data, other.data)
    jax.tree.map(np.testing.assert_array_equal, alone.state.params, together.members[1].state.params)
    together.close()
    alone.close()


@pytest.fixture(scope="module")
def pair(learner: Learner) -> list[Any]:
    """States of two seeds with numbers of their own, past the warm-up."""

    def one(seed: int, **numbers: float) -> Any:
        state = jax.jit(learner.agent.init)(jax.random.PRNGKey(seed))
        hyper = state.hyper | jax.tree.map(jnp.float32, numbers)
        return state._replace(step=jnp.int32(2000), hyper=hyper)

    return [one(1, learning_rate=1e-4, entropy=1e-3), one(2, learning_rate=1e-3, free_nats=0.5)]


def test_updates_of_a_seed_are_those_it_makes_alone(learner: Learner, pair: list[Any]) -> None:
    """To 1e-4 of the largest change of a parameter after one update, and to 1e-2 after five: the programs add up
    in other orders, and where an update is almost zero its direction is that of the rounding.
    """
    batch = random_batch(learner.agent)
    together = jax.tree.map(lambda *x: jnp.stack(x), *pair)
    update = quick_jit(jax.vmap(learner.agent.update, in_axes=(0, None)))
    alone = list(pair)
    for number in range(1, 6):
        together, _, metrics = update(together, batch)
        results = [learner.update(state, batch) for state in alone]
        alone = [state for state, _, _ in results]
        for index, (state, _, own) in enumerate(results):
            for key, value in own.items():
                np.testing.assert_allclose(metrics[key][index], value, rtol=2e-2, atol=1e-3, err_msg=key)
            if number in (1, 5):
                tolerance = 1e-4 if number == 1 else 1e-2
                assert difference(pair[index], state, jax.tree.map(lambda x, i=index: x[i], together)) < tolerance


def difference(before: Any, one: Any, other: Any) -> float:
    """The largest difference of a parameter, as a share of the largest change."""
    before, one, other = (jax.tree.leaves(state.params) for state in (before, one, other))
    change = max(float(jnp.abs(a - b).max()) for a, b in zip(one, before, strict=True))
    return max(float(jnp.abs(a - b).max()) for a, b in zip(one, other, strict=True)) / change


def test_what_may_differ_is_what_enters_the_update_as_data() -> None:
    config, plain = merge(Config(), {"model": {"decoder_free": True}}), flatten(to_dict(Config()))
    for key, value in plain.items():
        if isinstance(value, float) or key == "optimizer.warmup":
            other = merge(
                config, parse_override(f"{key}={value * 0.5 + 0.25 if isinstance(value, float) else 7}")
            )
            numbers = [jax.tree.leaves(hyper_parameters(each, {"obs": None})) for each in (config, other)]  # type: ignore[dict-item]
            assert (numbers[0] != numbers[1]) == (key in HYPER), key
    assert set(HYPER) <= plain.keys()


def test_runs_are_grouped_by_what_makes_a_program() -> None:
    configs = [
        short(), short("seed=4"), short("replay.ratio=20"), short("optimizer.learning_rate=0.1", "seed=2"),
        short("model.units=8"), short("replay.ratio=20", "loss.free_nats=2"),
    ]  # fmt: skip
    assert group_by_program(configs) == [[0, 1, 3], [2, 5], [4]]


@pytest.mark.parametrize(
    ("seeds", "hyper", "sentence"),
    [
        ([1, 1], {}, "2 runs need as many run directories"),
        ([], {}, "no seeds was asked for"),
        (2, {"replay.ratio": [1, 2]}, "'replay.ratio' is the same in all of a population: what may differ is"),
        (3, {"behaviour.entropy": [1, 2]}, "'behaviour.entropy' has 2 values for 3 seeds"),
    ],
)
def test_what_is_no_population_is_refused(tmp_path: Path, seeds: Any, hyper: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        train_population(short(), seeds, tmp_path / "runs", hyper, quiet=True)
    assert not (tmp_path / "runs").exists()


def test_several_programs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="several programs"):
        Population.open([short(), short("replay.ratio=3")], [tmp_path / "a", tmp_path / "b"], quiet=True)
    assert not any(tmp_path.iterdir())
