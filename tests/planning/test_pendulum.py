"""Planners on an exact model of the pendulum: what each must reach, and what values at the end are worth."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.exact.pendulum import Unplanned, advance, exact_value, model, noisy, returns
from dreamer_agent.planning import CEM, MPPI, GradientPlanner, RandomShooting, TreeSearch

value = cache(exact_value)


def test_the_model_is_gymnasiums() -> None:
    gym = pytest.importorskip("gymnasium")
    env, rng = gym.make("Pendulum-v1").unwrapped, np.random.default_rng(0)
    env.reset(seed=0)
    state = jnp.asarray(env.state, jnp.float32)[None]
    for _ in range(50):
        torque = rng.uniform(-2, 2, 1).astype(np.float32)
        _, reward, *_ = env.step(torque)
        state, said = advance(state, jnp.asarray(torque))
        np.testing.assert_allclose(state[0], env.state, atol=2e-3)
        np.testing.assert_allclose(said[0], reward, atol=2e-3)
        state = jnp.asarray(env.state, jnp.float32)[None]


def test_chance_is_poor() -> None:
    assert returns(Unplanned(), model()).mean() <= -1000


@pytest.mark.parametrize(
    ("planner", "least"),
    [(RandomShooting(128, 30), -400), (CEM(64, 4), -200), (MPPI(64, 4), -200), (GradientPlanner(), -230)],
    ids=lambda x: type(x).__name__ if not isinstance(x, int) else "",
)
def test_planners_swing_it_up(planner: Any, least: float) -> None:
    found = returns(planner, model())
    assert found.mean() >= least, found


def test_a_value_at_the_end_makes_up_for_a_short_horizon() -> None:
    short = CEM(64, 4, horizon=5)
    assert returns(short, model(value())).mean() >= -200
    assert returns(short, model()).mean() <= -700


def test_a_longer_horizon_helps_where_the_value_is_noisy() -> None:
    one, three = (
        np.mean([returns(CEM(64, 4, horizon=horizon), model(noisy(value(), seed))) for seed in range(3)])
        for horizon in (1, 3)
    )
    assert three > one


def test_sampled_tree_search_improves_on_its_policy() -> None:
    assert returns(TreeSearch(16, 8), model(value())).mean() > returns(Unplanned(), model()).mean() + 500
