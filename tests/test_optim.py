"""The optimiser against hand-worked numbers and an independent LaProp."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.config import OptimizerConfig
from dreamer_agent.optim import clip_per_tensor, laprop, warmed_up


def clipped(gradients, params, clip=0.3):
    transform = clip_per_tensor(clip)
    return transform.update(gradients, transform.init(params), params)[0]


def test_clip_scales_a_large_gradient_to_a_share_of_the_parameter():
    params = {"w": jnp.array([[3.0, 0.0], [0.0, 4.0]])}  # norm 5, limit 1.5
    gradient = {"w": jnp.array([[0.0, 6.0], [8.0, 0.0]])}  # norm 10
    np.testing.assert_allclose(clipped(gradient, params)["w"], [[0.0, 0.9], [1.2, 0.0]], rtol=1e-6)


def test_clip_leaves_a_small_gradient_alone():
    params, gradient = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.9, 1.1])}  # norm 1.42 < 1.5
    np.testing.assert_array_equal(clipped(gradient, params)["w"], gradient["w"])


def test_clip_of_tiny_parameters_uses_the_least_norm():
    params, gradient = {"b": jnp.zeros(2)}, {"b": jnp.array([3.0, 4.0])}  # limit 0.3 * 1e-3
    np.testing.assert_allclose(clipped(gradient, params)["b"], [1.8e-4, 2.4e-4], rtol=1e-5)
    np.testing.assert_array_equal(clipped({"b": jnp.zeros(2)}, params)["b"], 0.0)


def test_clip_is_by_tensor_and_not_by_unit():
    # One column is large and one small against its own parameters: both shrink by the same factor.
    params = {"a": jnp.ones((4, 4)), "b": jnp.ones(4)}  # norms 4 and 2, limits 1.2 and 0.6
    gradient = {"a": jnp.ones((4, 4)).at[:, 0].set(10.0), "b": jnp.full(4, 0.1)}
    out = clipped(gradient, params)
    factor = 1.2 / np.sqrt(4 * 100 + 12)
    np.testing.assert_allclose(out["a"], np.asarray(gradient["a"]) * factor, rtol=1e-5)
    np.testing.assert_array_equal(out["b"], gradient["b"])


def test_clip_needs_the_parameters():
    transform = clip_per_tensor(0.3)
    with pytest.raises(ValueError, match="hand them to update"):
        transform.update({"w": jnp.ones(2)}, transform.init(None))


def laprop_in_numpy(params, gradients, rate, clip=0.3, beta1=0.9, beta2=0.999, eps=1e-20):
    """Parameters after each step, written from the paper in float64."""
    params = params.astype(np.float64)
    nu, momentum, history = np.zeros_like(params), np.zeros_like(params), []
    for t, gradient in enumerate(gradients, 1):
        limit = clip * max(1e-3, np.sqrt((params**2).sum()))
        gradient = gradient / max(1.0, np.sqrt((gradient**2).sum()) / limit)
        nu = beta2 * nu + (1 - beta2) * gradient**2
        normalised = gradient / (np.sqrt(nu / (1 - beta2**t)) + eps)
        momentum = beta1 * momentum + (1 - beta1) * normalised
        params = params - rate * momentum / (1 - beta1**t)
        history.append(params)
    return history


@pytest.mark.parametrize("size", [1e-3, 0.1, 100.0])
def test_laprop_equals_an_independent_one(size):
    rng = np.random.default_rng(0)
    start = {"w": rng.normal(size=(3, 4)), "b": np.zeros(4)}
    gradients = [{k: rng.normal(size=v.shape) * size for k, v in start.items()} for _ in range(6)]
    optimizer, rate = laprop(OptimizerConfig()), 0.05
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), start)
    state = optimizer.init(params)
    expected = {k: laprop_in_numpy(start[k], [g[k] for g in gradients], rate) for k in start}
    for t, gradient in enumerate(gradients):
        updates, state = optimizer.update(jax.tree.map(jnp.float32, gradient), state, params)
        params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        for k in start:
            np.testing.assert_allclose(params[k], expected[k][t], rtol=2e-4, atol=2e-5)


def test_first_update_of_laprop_is_the_sign_of_the_gradient():
    params = {"w": jnp.ones(4)}
    gradient = {"w": jnp.array([1e-9, -1e-9, 1e-2, -5.0])}
    optimizer = laprop(OptimizerConfig())
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], [1.0, -1.0, 1.0, -1.0], rtol=1e-3)


def test_laprop_of_a_zero_gradient_is_zero():
    params = {"w": jnp.ones(4)}
    optimizer = laprop(OptimizerConfig())
    updates, _ = optimizer.update({"w": jnp.zeros(4)}, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["w"], 0.0)


def test_optimizer_numbers_come_from_the_configuration():
    params, gradient = {"w": jnp.ones(3)}, {"w": jnp.array([0.1, -0.02, 0.3])}
    optimizer = laprop(OptimizerConfig(clip=0.1, beta1=0.5, beta2=0.9, eps=1e-3))
    state, now = optimizer.init(params), params
    expected = laprop_in_numpy(
        np.ones(3), [np.array([0.1, -0.02, 0.3])] * 3, 1.0, clip=0.1, beta1=0.5, beta2=0.9, eps=1e-3
    )
    for t in range(3):
        updates, state = optimizer.update(gradient, state, now)
        now = jax.tree.map(lambda p, u: p - u, now, updates)
        np.testing.assert_allclose(now["w"], expected[t], rtol=1e-4)


@pytest.mark.parametrize("step, share", [(0, 0.0), (1, 0.001), (500, 0.5), (1000, 1.0), (5000, 1.0)])
def test_learning_rate_warms_up_linearly(step, share):
    rate = warmed_up(jnp.float32(4e-5), jnp.float32(1000), jnp.int32(step))
    np.testing.assert_allclose(rate, 4e-5 * share, rtol=1e-5)


def test_without_warmup_the_rate_is_full():
    rates = [float(warmed_up(jnp.float32(0.5), jnp.float32(0), jnp.int32(step))) for step in (1, 2, 100)]
    assert rates == [0.5, 0.5, 0.5]
