"""Convolutions by phases against the plain ones: the same parameters, numbers and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.nets import PooledConv, UpsampledConv, from_linen
from dreamer_agent.nets.convs import (
    FEW_CHANNELS,
    _convolve_on_cpu,
    _plain,
    depth_to_space,
    phase_taps,
    space_to_depth,
)
from tests.compiling import quick_jit

RNG = np.random.default_rng(0)
KEY = jax.random.PRNGKey(0)


def plain_conv(params, x):
    y = jax.lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    return y + params["bias"]


def plain_pooled(params, x):
    return nn.max_pool(plain_conv(params, x), (2, 2), (2, 2), "SAME")


def plain_upsampled(size):
    return lambda params, x: plain_conv(params, x.repeat(2, 1).repeat(2, 2)[:, : size[0], : size[1]])


def compare(module, plain, x):
    """Outputs, and gradients by the input and the parameters of a random weighting of them."""
    x = jnp.asarray(x, jnp.float32)
    net = from_linen(module)
    params = jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape), p.dtype), net.init(KEY, x))
    out = net.apply(params, x)
    weights = RNG.normal(size=out.shape).astype(np.float32)
    np.testing.assert_allclose(out, plain(params, x), rtol=1e-4, atol=1e-4)
    ours = jax.grad(lambda p, x: (weights * net.apply(p, x)).sum(), (0, 1))(params, x)
    theirs = jax.grad(lambda p, x: (weights * plain(p, x)).sum(), (0, 1))(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), ours, theirs)


@pytest.mark.parametrize("kernel", [3, 4, 5])
@pytest.mark.parametrize("size", [(8, 6), (7, 6)])
@pytest.mark.parametrize("features", [3, FEW_CHANNELS + 1])
def test_pooled_convolution_is_a_convolution_and_a_pool(kernel, size, features):
    compare(PooledConv(features, kernel), plain_pooled, RNG.normal(size=(2, *size, 3)))


@pytest.mark.parametrize("kernel", [3, 4, 5])
@pytest.mark.parametrize("size", [(8, 6), (7, 6), (7, 5)])
def test_upsampled_convolution_is_a_convolution_of_repeated_pixels(kernel, size):
    compare(UpsampledConv(5, kernel, size), plain_upsampled(size), RNG.normal(size=(2, 4, 3, 3)))


@pytest.mark.parametrize("module", [PooledConv(3, 5), UpsampledConv(3, 5, (8, 8))])
def test_parameters_are_those_of_a_linen_convolution(module):
    x = jnp.zeros((1, 4, 4, 2))
    params, reference = from_linen(module).init(KEY, x), nn.Conv(3, (5, 5)).init(KEY, x)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, reference)


@pytest.mark.parametrize("module", [PooledConv(3, 5, jnp.bfloat16), UpsampledConv(3, 5, (8, 8), jnp.bfloat16)])
def test_half_precision_over_float32_parameters(module):
    net, x = from_linen(module), jnp.ones((1, 4, 4, 2))
    params = net.init(KEY, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert net.apply(params, x).dtype == jnp.bfloat16


def test_taps_by_hand():
    # Three taps, padded by one: at phase 0 they meet phase 1 of the pixel before, then both phases of the same.
    taps, padding = phase_taps(3)
    assert padding == (1, 1)
    assert taps.shape == (2, 3, 2, 3)
    assert [tuple(index) for index in np.argwhere(taps[0])] == [(0, 1, 0), (1, 0, 1), (1, 1, 2)]
    assert [tuple(index) for index in np.argwhere(taps[1])] == [(1, 0, 0), (1, 1, 1), (2, 0, 2)]


def test_phases_become_channels_and_back():
    x = jnp.arange(4 * 6 * 2.0).reshape(1, 4, 6, 2)
    deep = space_to_depth(x)
    assert deep.shape == (1, 2, 3, 8)
    np.testing.assert_array_equal(deep[0, 1, 2], np.concatenate([x[0, 2, 4], x[0, 2, 5], x[0, 3, 4], x[0, 3, 5]]))
    np.testing.assert_array_equal(depth_to_space(deep), x)


@pytest.mark.parametrize("padding", [((2, 2), (2, 2)), ((1, 2), (0, 1)), ((0, 0), (0, 0))])
def test_gradients_of_a_convolution_are_those_that_jax_derives(padding):
    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    x, kernel = jax.random.normal(keys[0], (2, 3, 6, 5, 4)), jax.random.normal(keys[1], (2, 4, 3, 4, 7))
    weights = jax.random.normal(keys[2], _plain(x[0], kernel[0], padding).shape)

    def gradients(convolve):
        loss = lambda x, kernel: (jnp.sin(convolve(x, kernel, padding)) * weights).sum()  # noqa: E731
        return quick_jit(jax.vmap(jax.grad(loss, (0, 1))))(x, kernel)

    ours, derived = gradients(_convolve_on_cpu), gradients(_plain)
    for one, other in zip(ours, derived, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
