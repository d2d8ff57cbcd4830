"""Memory known before the start, against the arrays that a run makes."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

from dreamer_agent.agent import Agent
from dreamer_agent.config import Config
from dreamer_agent.errors import MemoryBudgetError
from dreamer_agent.replay.host import map_layout
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training import budget, memory
from dreamer_agent.training.opening import make_replay
from tests.conftest import small_config

OBS = {"image": ArraySpec("image", (8, 8, 3)), "speed": ArraySpec("continuous", (3,))}
ACT = {"button": ArraySpec("discrete", (2,), 5)}
# image 192, speed 12, action 2 * 4, reward 4, flags 3, deter 32 * 4, stoch 4 * 1, the number of the last write 4
STEP_BYTES = 192 + 12 + 8 + 4 + 3 + 128 + 4 + 4


def make(*overrides: str) -> tuple[Config, Agent]:
    config = small_config("env.num_envs=2", "precision=float32", *overrides)
    return config, Agent.create(config, OBS, ACT)


def nbytes(tree: object) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("steps", [400, 1_000_000])
def test_the_estimate_is_what_the_replay_takes(steps: int) -> None:
    config, agent = make("replay.capacity=1000", f"train.steps={steps}")
    replay = make_replay(config, agent)
    kept = min(1000, 2 * (steps + 2))
    assert budget.estimate(config, agent).replay == nbytes([replay.data, replay.stamps]) == kept * STEP_BYTES


def test_half_precision_halves_the_stored_deter() -> None:
    config, agent = make("replay.capacity=1000", "precision=bfloat16")
    replay = make_replay(config, agent)
    held = nbytes([replay.data, replay.stamps])
    assert budget.estimate(config, agent).replay == held == 1000 * (STEP_BYTES - 64)


def test_a_capacity_that_does_not_divide_is_never_underestimated() -> None:
    config, agent = make("replay.capacity=1001")
    replay = make_replay(config, agent)
    assert nbytes([replay.data, replay.stamps]) == 1000 * STEP_BYTES
    assert budget.estimate(config, agent).replay == 1001 * STEP_BYTES


def test_the_model_is_counted_with_average_gradients_and_moments() -> None:
    config, agent = make()
    state = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    estimate = budget.estimate(config, agent)
    assert estimate.parameters == parameters
    assert estimate.model == parameters * 4 * 6


def test_a_replay_that_does_not_fit_is_refused_with_numbers_that_help() -> None:
    config, agent = make("replay.capacity=1000000", "train.steps=1000000")
    with pytest.raises(MemoryBudgetError) as caught:
        budget.check(config, agent, free=100 * 1_000_000)
    message = str(caught.value)
    assert "replay of 1,000,000 steps takes 0.35 GB" in message
    assert "0.10 GB are allowed" in message
    assert "\n" not in message
    fits = int(re.search(r"at most ([\d,]+),", message)[1].replace(",", ""))  # type: ignore[index]
    assert fits == 100_000_000 // STEP_BYTES
    config, agent = make(f"replay.capacity={fits}", "train.steps=1000000")
    assert budget.estimate(config, agent).replay <= 100_000_000


def test_the_advice_holds_where_a_short_run_needs_less_than_the_capacity() -> None:
    config, agent = make("replay.capacity=5000000", "train.steps=100000")
    with pytest.raises(MemoryBudgetError, match=r"replay of 200,004 steps takes 0\.07 GB") as caught:
        budget.check(config, agent, free=10_000_000)
    fits = int(re.search(r"at most ([\d,]+),", str(caught.value))[1].replace(",", ""))  # type: ignore[index]
    assert fits == 10_000_000 // STEP_BYTES
    config, agent = make(f"replay.capacity={fits}", "train.steps=100000")
    assert budget.estimate(config, agent).replay <= 10_000_000


def test_a_limit_of_the_users_own_holds_although_more_is_free() -> None:
    config, agent = make("replay.capacity=100000", "replay.max_gb=0.01")
    with pytest.raises(MemoryBudgetError, match=r"0\.01 GB are allowed"):
        budget.check(config, agent, free=10**12)


def test_a_model_that_does_not_fit_beside_the_replay_is_refused_with_numbers() -> None:
    config, agent = make("replay.capacity=1000")
    estimate = budget.estimate(config, agent)
    assert budget.check(config, agent, free=estimate.replay + estimate.model) == estimate
    with pytest.raises(MemoryBudgetError) as caught:
        budget.check(config, agent, free=estimate.replay + estimate.model - 1)
    message = str(caught.value)
    assert f"{estimate.parameters:,} parameters" in message
    assert f"{estimate.model / 1e9:.2f} GB to train" in message
    assert "\n" not in message


def test_a_run_never_stores_more_than_its_estimate() -> None:
    """The worst case: every episode has one step, so that every second row is a reset."""
    config, agent = make("train.steps=300")
    steps, rows = 0, 2  # the first rows of both environments
    while steps < 300:
        steps, rows = steps + 2, rows + 4
    assert rows <= budget.stored_steps(config)
    assert make_replay(config, agent).length * 2 >= rows


def test_a_spilled_replay_is_measured_against_the_disk(tmp_path) -> None:
    config, agent = make("replay.capacity=1000000", "train.steps=1000000", "replay.spill=true")
    estimate = budget.estimate(config, agent)
    assert budget.check(config, agent, free=estimate.model, disk=2 * estimate.replay) == estimate
    sentence = r"takes 0\.35 GB on disk and as much again in checkpoints, but 0\.05 GB are allowed"
    with pytest.raises(MemoryBudgetError, match=sentence):
        budget.check(config, agent, free=10**12, disk=10**8)
    config, agent = make("replay.capacity=1000000", "train.steps=1000000")
    with pytest.raises(MemoryBudgetError, match=r"replay\.spill=true"):
        budget.check(config, agent, free=10**8, disk=10**12)


def test_a_spilled_replay_holds_the_same_and_leaves_no_file(tmp_path) -> None:
    from tests.replay.stores import assert_same

    replays = []
    for spill in ("false", "true"):
        config, agent = make("replay.capacity=100", f"replay.spill={spill}")
        replay = make_replay(config, agent, tmp_path / "run")
        layout = budget.layout_of(agent)
        for number in range(30):
            rng = np.random.default_rng(number)
            replay.add(
                map_layout(lambda shape, dtype, r=rng: r.integers(0, 2, (2, *shape)).astype(dtype), layout)
            )
        replays.append(replay)
    assert isinstance(replays[1].data["reward"], np.memmap) and not list((tmp_path / "run").iterdir())
    assert_same(replays[1].save(), replays[0].save())
    jax.tree.map(np.testing.assert_array_equal, replays[1].sample(), replays[0].sample())


def test_the_outlook_grows_by_what_is_still_to_be_filled(monkeypatch) -> None:
    monkeypatch.setattr(memory, "resident", lambda: 10**6)
    config, agent = make("replay.capacity=5000", "train.steps=1000")
    assert memory.outlook(config, agent, 110, 100) == (10**6, 10**6 + (1100 - 110) * STEP_BYTES)
    config, agent = make("replay.capacity=500", "train.steps=1000")
    assert memory.outlook(config, agent, 110, 100) == (10**6, 10**6 + 390 * STEP_BYTES)
