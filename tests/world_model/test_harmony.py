"""HarmonyDream's learned scales: by hand, and where they settle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.world_model import fresh_scales, harmonised, price, sigmas

SCALES = {"rec/a": 1.0, "rec/b": 1.0, "reward": 1.0, "continue": 1.0, "dyn": 1.0, "rep": 0.1, "policy": 1.0}
LOSSES = {"rec/a": 40.0, "rec/b": 8.0, "reward": 0.5, "continue": 0.3, "dyn": 3.0, "rep": 3.0, "policy": 0.1}


def total(learned, losses=LOSSES, scales=SCALES):
    return sum(losses[name] * scale for name, scale in harmonised(scales, learned).items()) + price(learned)


def test_each_group_is_divided_by_its_sigma():
    learned = {"observation": jnp.log(2.0), "reward": jnp.log(4.0), "dynamics": jnp.log(5.0)}
    expected = {
        "rec/a": 1 / 2, "rec/b": 1 / 2, "reward": 1 / 4, "continue": 1, "dyn": 1 / 1.1 / 5, "rep": 0.1 / 1.1 / 5,
        "policy": 1,
    }  # fmt: skip
    found = harmonised(SCALES, learned)
    assert list(found) == list(SCALES)
    np.testing.assert_allclose([found[k] for k in expected], list(expected.values()), rtol=1e-6)
    np.testing.assert_allclose(price(learned), np.log(3) + np.log(5) + np.log(6), rtol=1e-6)
    np.testing.assert_allclose(list(sigmas(learned).values()), [2, 4, 5], rtol=1e-6)


def test_a_decoder_free_model_is_divided_by_what_it_learns_from():
    scales = {"rec/a": 1.0, "invariance": 0.05, "redundancy": 2.5e-5, "reward": 1.0, "dyn": 0.0, "rep": 0.0}
    found = harmonised(scales, fresh_scales() | {"observation": jnp.log(2.0), "dynamics": jnp.log(0.5)})
    np.testing.assert_allclose([found[k] for k in scales], [1, 0.025, 1.25e-5, 1, 0, 0], rtol=1e-6)


def test_the_gradient_by_hand():
    # Of L / sigma + log(1 + sigma) by s = log sigma: -L / sigma + sigma / (1 + sigma).
    learned = {"observation": jnp.log(2.0), "reward": jnp.log(4.0), "dynamics": jnp.log(5.0)}
    found = jax.grad(total)(learned)
    expected = {"observation": -48 / 2 + 2 / 3, "reward": -0.5 / 4 + 4 / 5, "dynamics": -3 / 5 + 5 / 6}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


@jax.jit
def settled(losses):
    def move(learned, _):
        slopes = jax.grad(total)(learned, losses)
        return jax.tree.map(lambda s, g: s - 0.05 * jnp.clip(g, -1, 1), learned, slopes), None

    return jax.lax.scan(move, fresh_scales(), length=500)[0]


@pytest.mark.parametrize("loss", [0.5, 3.0, 48.0])
def test_sigma_settles_where_the_paper_says(loss):
    losses = dict.fromkeys(LOSSES, loss) | {"rec/a": loss / 2, "rec/b": loss / 2}
    best = (loss + np.sqrt(loss**2 + 4 * loss)) / 2
    assert np.isclose(best**2, loss * (1 + best))  # -L / sigma^2 + 1 / (1 + sigma) = 0
    learned = settled(losses)
    np.testing.assert_allclose(list(sigmas(learned).values()), [best] * 3, rtol=1e-3)
    others = jax.tree.map(lambda s: s + 0.05, learned), jax.tree.map(lambda s: s - 0.05, learned)
    assert all(total(learned, losses) < total(other, losses) for other in others)
