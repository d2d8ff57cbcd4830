"""The optimiser against hand-worked numbers and an independent LaProp."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.config import OptimizerConfig
from dreamer_agent.optim import (
    GROUPS,
    clip_per_tensor,
    descend,
    group_of,
    laprop,
    make_optimizer,
    slow_rate,
    warmed_up,
)


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


ADAM = OptimizerConfig(
    name="adam", clip=10.0, eps=1e-5, weight_decay=1e-2, learning_rate=0.1, actor_learning_rate=0.02, warmup=0
)


def adam_in_numpy(nets, gradients, rate, config):
    """A group of networks after each step, in float64: clip over all of them, Adam, decay of what was before."""
    nets = {k: v.astype(np.float64) for k, v in nets.items()}
    m, v = ({k: np.zeros_like(x) for k, x in nets.items()} for _ in range(2))
    history = []
    for t, gradient in enumerate(gradients, 1):
        norm = np.sqrt(sum((gradient[k] ** 2).sum() for k in nets))
        for k in nets:
            g = gradient[k] * min(1.0, config.clip / norm)
            m[k], v[k] = 0.9 * m[k] + 0.1 * g, 0.999 * v[k] + 0.001 * g**2
            step = m[k] / (1 - 0.9**t) / (np.sqrt(v[k] / (1 - 0.999**t)) + config.eps)
            nets[k] = (1 - config.weight_decay) * nets[k] - rate * step
        history.append(dict(nets))
    return history


def test_three_adams_clip_and_step_for_themselves():
    rng = np.random.default_rng(0)
    start = {name: rng.normal(size=(3, 2)) for name in ("encoder", "rssm", "actor", "critic")}
    sizes = {"encoder": 30.0, "rssm": 1.0, "actor": 0.01, "critic": 100.0}
    gradients = [{k: rng.normal(size=v.shape) * sizes[k] for k, v in start.items()} for _ in range(4)]
    groups = {
        "encoder": ("encoder", "rssm"),
        "rssm": ("encoder", "rssm"),
        "actor": ("actor",),
        "critic": ("critic",),
    }
    expected = {
        k: adam_in_numpy({n: start[n] for n in groups[k]}, gradients, 0.02 if k == "actor" else 0.1, ADAM)
        for k in start
    }
    optimizer, params = make_optimizer(ADAM), {k: {"w": jnp.float32(v)} for k, v in start.items()}
    state = optimizer.init(params)
    for t, gradient in enumerate(gradients):
        given = {k: {"w": jnp.float32(v)} for k, v in gradient.items()}
        updates, state = optimizer.update(given, state, params)
        params = descend(ADAM, params, updates, jnp.float32(0.1), jnp.float32(0), jnp.int32(t))
        for k in start:
            np.testing.assert_allclose(params[k]["w"], expected[k][t][k], rtol=2e-4, atol=1e-5)


def test_networks_belong_to_three_groups():
    assert [group_of(name) for name in ("encoder", "rssm", "cont", "actor", "critic")] == [
        "model", "model", "model", "actor", "critic",
    ]  # fmt: skip
    assert set(map(group_of, ("mask", "actor", "critic"))) == set(GROUPS)


def test_rates_of_their_own_are_warmed_up_too():
    params = {"actor": jnp.zeros(1), "critic": jnp.zeros(1)}
    updates = {"actor": jnp.ones(1), "critic": jnp.ones(1)}
    config = OptimizerConfig(actor_learning_rate=8.0)
    new = descend(config, params, updates, jnp.float32(0.3), jnp.float32(10), jnp.int32(5))
    assert float(new["actor"][0]) == -4.0 and float(new["critic"][0]) == pytest.approx(-0.3)


def test_the_slow_critic_moves_in_the_first_of_every_hundred_updates():
    rates = np.asarray([slow_rate(jnp.float32(1.0), 100, jnp.int32(step)) for step in range(0, 301)])
    assert np.flatnonzero(rates).tolist() == [0, 100, 200, 300] and rates.max() == 1.0
    assert slow_rate(0.02, 1, jnp.int32(7)) == 0.02
