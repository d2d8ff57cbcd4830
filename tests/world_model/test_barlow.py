"""The losses of a decoder-free model against hand-worked numbers, and which gradients they give."""

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.world_model.barlow import Projector, barlow_losses, standardised

UP, CROSS = [1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]  # standardised and not correlated


def columns(*values):
    return jnp.array(values).T


def test_a_batch_beside_itself_costs_nothing_on_the_diagonal():
    for batch in (columns(UP, CROSS), 3.0 * columns(UP, CROSS) + jnp.array([5.0, -2.0])):
        invariance, redundancy = barlow_losses(batch, batch)
        np.testing.assert_allclose([invariance, redundancy], [0, 0], atol=1e-10)


def test_both_losses_by_hand():
    # The first column is told rightly, the second one upside down; each once more in the other's place.
    told = columns(UP, [-x for x in CROSS])
    np.testing.assert_allclose(barlow_losses(told, columns(UP, CROSS)), [4.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(barlow_losses(columns(CROSS, UP), columns(UP, CROSS)), [2.0, 2.0], atol=1e-6)
    # (2, 0, 0, -2) is half of either: its deviation is sqrt(2), its correlation with both 1 / sqrt(2).
    half = columns([2.0, 0.0, 0.0, -2.0], CROSS)
    np.testing.assert_allclose(barlow_losses(half, columns(UP, CROSS)), [(1 - np.sqrt(0.5)) ** 2, 0.5], atol=1e-6)


def test_columns_are_standardised_by_the_whole_batch():
    x = standardised(jnp.array([[1.0, 7.0], [3.0, 7.0]]))
    np.testing.assert_allclose(x, [[-1, 0], [1, 0]], atol=1e-6)


def test_what_is_told_learns_and_the_tokens_do_not():
    told, tokens = columns([2.0, 0.0, 0.0, -2.0], CROSS), columns(UP, CROSS)
    by_told, by_tokens = jax.grad(lambda *x: sum(barlow_losses(*x)), (0, 1))(told, tokens)
    assert np.abs(by_told[:, 0]).max() > 0.1 and not by_tokens.any()
    # A column that never changes has a gradient, too.
    dead = jax.grad(lambda x: sum(barlow_losses(x, tokens)))(jnp.ones((4, 2)))
    assert np.isfinite(dead).all() and dead.any()


def test_the_projector_is_one_matrix():
    module, features = Projector(jnp.float32), jnp.ones((4, 3))
    params = module.init(jax.random.PRNGKey(0), features, jnp.zeros((4, 5)))["params"]
    assert jax.tree.map(jnp.shape, params) == {"matrix": {"kernel": (3, 5)}}
    told = module.apply({"params": params}, features, jnp.zeros((4, 5)))
    np.testing.assert_allclose(told, features @ params["matrix"]["kernel"], rtol=1e-6)
