"""Planning with the networks of an agent: the world model is the one that imagination uses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.agent import Agent
from dreamer_agent.planning import CEM, MPPI, RandomShooting, TreeSearch, learned_model
from dreamer_agent.specs import ArraySpec
from dreamer_agent.world_model import Latent
from tests.compiling import quick_jit
from tests.conftest import small_config

KEY = jax.random.PRNGKey(0)
OBS = {"obs": ArraySpec("continuous", (3,))}
ACT = {"push": ArraySpec("continuous", (2,)), "which": ArraySpec("discrete", (), 3)}


@pytest.fixture(scope="module")
def agent() -> Agent:
    return Agent.create(small_config(), OBS, ACT)


@pytest.fixture(scope="module")
def params(agent: Agent) -> Any:
    """Random numbers everywhere, so that no head says zero."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(agent.init, KEY).params
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), shapes)


def latents(agent: Agent, rows: int) -> Latent:
    rng = np.random.default_rng(1)
    c = agent.config.model
    stoch = np.eye(c.classes)[rng.integers(0, c.classes, (rows, c.stoch))]
    return Latent(jnp.asarray(rng.normal(size=(rows, c.deter)), jnp.float32), jnp.asarray(stoch, jnp.float32))


def test_a_step_is_that_of_imagination(agent: Agent, params: Any) -> None:
    model, latent = learned_model(agent.model, agent.nets), latents(agent, 4)
    actions = quick_jit(lambda: model.policy(params, latent).sample(KEY))()
    outcome, new = quick_jit(model.step)(params, KEY, actions, latent)
    from dreamer_agent.world_model.imagine import imagine_step

    expected = quick_jit(lambda: imagine_step(agent.model, params, KEY, latent, actions))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), new, expected)
    features = expected.features
    np.testing.assert_allclose(outcome.reward, agent.model.predict_reward(params, features).mean(), rtol=1e-4)
    np.testing.assert_allclose(outcome.discount, agent.model.predict_continue(params, features).prob(), rtol=1e-4)
    np.testing.assert_allclose(outcome.value, agent.nets.value(params["critic"], features).mean(), rtol=1e-4)


@pytest.mark.parametrize(
    "planner",
    [RandomShooting(8, 3), CEM(8, 2, 4, 3, guided=2), MPPI(8, 2, 4, 3, guided=2), TreeSearch(4, 3)],
    ids=lambda planner: type(planner).__name__,
)
def test_planners_choose_actions_of_the_spaces(agent: Agent, params: Any, planner: Any) -> None:
    if isinstance(planner, TreeSearch):
        pytest.importorskip("mctx")
    model, latent = learned_model(agent.model, agent.nets), latents(agent, 2)
    traced = []

    @quick_jit
    def plan(params: Any, key: Any, latent: Any, held: Any) -> Any:
        traced.append(1)
        return planner.plan(model, params, key, latent, held)

    actions, held = plan(params, KEY, latent, planner.begin(model, 2))
    again, _ = plan(params, KEY, latent, held)
    assert len(traced) == 1
    for chosen in (actions, again):
        assert chosen["push"].shape == (2, 2) and (jnp.abs(chosen["push"]) <= 1.0).all()
        assert chosen["which"].shape == (2,) and ((chosen["which"] >= 0) & (chosen["which"] < 3)).all()


def test_a_planner_follows_other_rewards_at_once(agent: Agent, params: Any) -> None:
    """The learned dynamics with a reward of our own: the policy cannot know of it."""
    own, latent = learned_model(agent.model, agent.nets), latents(agent, 3)
    planner = CEM(128, 4, 8, 1)
    for sign in (1.0, -1.0):
        swapped = own.rewarded(lambda state, actions, new, sign=sign: sign * actions["push"][:, 0])
        actions, _ = quick_jit(
            lambda swapped=swapped: planner.plan(swapped, params, KEY, latent, planner.begin(own, 3))
        )()
        assert (sign * actions["push"][:, 0] > 0.6).all()
