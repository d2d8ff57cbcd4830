"""Doubt: what members that disagree tell, by hand, and that the model learns nothing from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.agent import Agent
from dreamer_agent.distributions import Categorical, Normal
from dreamer_agent.errors import ConfigError
from dreamer_agent.specs import ArraySpec
from dreamer_agent.world_model.ensemble import gain
from tests.compiling import quick_jit
from tests.conftest import random_batch, small_config

OBS, ACT = {"vector": ArraySpec("continuous", (3,))}, {"move": ArraySpec("continuous", (2,))}


def categorical(*probs):
    return Categorical(jnp.log(jnp.asarray(probs)), event_ndim=1)


def test_the_gain_of_two_categoricals_by_hand():
    # Mixture (1/2, 1/2): ln 2. Members (3/4, 1/4), (1/4, 3/4): each 3/4 ln 4/3 + 1/4 ln 4.
    members = categorical([[[0.75, 0.25]]], [[[0.25, 0.75]]])
    expected = np.log(2) - (0.75 * np.log(4 / 3) + 0.25 * np.log(4))
    np.testing.assert_allclose(gain(members), [expected], rtol=1e-6)


def test_what_all_members_expect_is_no_gain_however_uncertain():
    assert gain(categorical([[[0.5, 0.5]]], [[[0.5, 0.5]]])) == pytest.approx(0, abs=1e-6)
    assert gain(Normal(jnp.ones((3, 1, 2)), 2 * jnp.ones((3, 1, 2)), 1)) == pytest.approx(0, abs=1e-6)


def test_members_that_are_each_certain_of_something_else_gain_their_number():
    certain = 200.0 * jnp.eye(4)[:, None, None]  # [4, 1, 1, 4]: without unimix, probabilities are zero
    members = Categorical.from_logits(certain, event_ndim=1)
    np.testing.assert_allclose(gain(members), [np.log(4)], rtol=1e-5)
    both = Categorical.from_logits(
        jnp.concatenate([certain, certain], -2), event_ndim=1
    )  # two parts of z: summed
    np.testing.assert_allclose(gain(both), [2 * np.log(4)], rtol=1e-5)


def test_the_gain_of_two_normals_by_hand():
    # Means -3 and 3, std 1: variance 1 + 9, entropy 1/2 ln 10 above that of each.
    members = Normal(jnp.array([[[-3.0]], [[3.0]]]), jnp.ones((2, 1, 1)), 1)
    np.testing.assert_allclose(gain(members), [0.5 * np.log(10)], rtol=1e-6)


@pytest.fixture(scope="module", params=["categorical", "gaussian"])
def agent(request):
    return Agent.create(small_config("model.ensemble=3", f"model.latent={request.param}"), OBS, ACT)


def test_the_loss_trains_the_ensemble_alone(agent):
    params, batch = agent.model.init(jax.random.PRNGKey(0)), random_batch(agent)

    def loss(params):
        losses, latents, _ = agent.model.loss(
            params, batch, jax.random.PRNGKey(1), jnp.float32(1), jnp.float32(0.9)
        )
        return losses["ensemble"].mean(), (losses["ensemble"], agent.model.doubt(params, latents.features[:, 0]))

    gradients, (losses, doubt) = quick_jit(jax.grad(loss, has_aux=True))(params)
    assert losses.shape == batch["reward"][:, 1:].shape and (losses > 0).all()
    norms = {name: sum(np.abs(x).sum() for x in jax.tree.leaves(tree)) for name, tree in gradients.items()}
    assert norms.pop("ensemble") > 0 and not any(norms.values())
    assert doubt.shape == (4,) and (doubt > 1e-3).all()  # members begin apart
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(params["ensemble"]))


def test_members_that_are_equal_have_no_doubt(agent):
    params = agent.model.init(jax.random.PRNGKey(0))
    same = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), params["ensemble"])
    features = jax.random.normal(jax.random.PRNGKey(1), (5, agent.model.rssm.initial(1).features.shape[-1]))
    np.testing.assert_allclose(agent.model.doubt({"ensemble": same}, features), np.zeros(5), atol=1e-5)


def test_a_model_without_one_says_how_to_get_it():
    agent = Agent.create(small_config(), OBS, ACT)
    with pytest.raises(ConfigError, match=r"model\.ensemble=8"):
        agent.model.doubt({}, jnp.zeros((1, 4)))
