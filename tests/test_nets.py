"""Layers by hand, their initialisation, and the seam to neural-network libraries."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.nets import (
    MLP,
    ActionHead,
    Activated,
    BlockLinear,
    Head,
    Linear,
    RMSNorm,
    from_haiku,
    from_linen,
    join_blocks,
    split_blocks,
    truncated_normal,
)
from dreamer_agent.specs import ArraySpec

KEY = jax.random.PRNGKey(0)
RNG = np.random.default_rng(0)


def random_params(net, *inputs):
    """Random numbers in the shapes that `net.init` gives, so that biases and norms count too."""
    shapes = jax.eval_shape(net.init, KEY, *inputs)
    return jax.tree.map(lambda x: jnp.asarray(RNG.normal(size=x.shape), jnp.float32), shapes)


def test_rms_norm_by_hand():
    x = np.array([[3.0, 4.0], [0.0, 0.0], [-1.0, 1.0]])
    y = RMSNorm().apply({"params": {"scale": jnp.array([2.0, 10.0])}}, jnp.asarray(x, jnp.float32))
    rms = np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4)
    np.testing.assert_allclose(y, x / rms * [2.0, 10.0], rtol=1e-6)


@pytest.mark.parametrize("batch", [(3,), (2, 3)])
def test_rms_norm_of_blocks_is_that_of_the_whole(batch):
    x, scale = RNG.normal(size=(*batch, 8)).astype(np.float32), RNG.normal(size=8).astype(np.float32)
    params = {"params": {"scale": jnp.asarray(scale)}}
    whole = RMSNorm().apply(params, jnp.asarray(x))
    blocks = RMSNorm(blocks=True).apply(params, split_blocks(jnp.asarray(x), 4))
    np.testing.assert_allclose(join_blocks(blocks), whole, rtol=1e-6)
    fresh = from_linen(RMSNorm(blocks=True)).init(KEY, jnp.zeros((4, 1, 2)))
    np.testing.assert_array_equal(fresh["scale"], np.ones(8))


def test_rms_norm_has_a_scale_of_one_and_nothing_else():
    params = from_linen(RMSNorm()).init(KEY, jnp.zeros((1, 7)))
    assert list(params) == ["scale"]
    np.testing.assert_array_equal(params["scale"], np.ones(7))


def test_rms_norm_computes_in_float32_and_keeps_the_type():
    x = jnp.array([[1e-3, 300.0, 300.0, 1.0]], jnp.bfloat16)
    y = RMSNorm().apply({"params": {"scale": jnp.ones(4)}}, x)
    wide = np.asarray(x, np.float64)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float64), wide / np.sqrt((wide**2).mean() + 1e-4), rtol=2**-8)


def test_activated_by_hand():
    net = from_linen(Activated(4))
    x = RNG.normal(size=(5, 3))
    params = random_params(net, jnp.zeros((1, 3)))
    y = x @ np.asarray(params["linear"]["dense"]["kernel"], np.float64) + params["linear"]["dense"]["bias"]
    y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-4) * params["norm"]["scale"]
    np.testing.assert_allclose(net.apply(params, jnp.asarray(x)), y / (1 + np.exp(-y)), rtol=1e-4, atol=1e-5)


def test_linear_with_an_array_of_outputs():
    net = from_linen(Linear((2, 3)))
    params = random_params(net, jnp.zeros((1, 4)))
    x = RNG.normal(size=(5, 7, 4))
    expected = x @ np.asarray(params["dense"]["kernel"], np.float64) + params["dense"]["bias"]
    y = net.apply(params, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(y, expected.reshape(5, 7, 2, 3), rtol=1e-4, atol=1e-5)


def block_diagonal(kernel, width):
    """The dense matrix of a block kernel `[g, width + S, out]`: own block above, shared rows below."""
    g, rows, out = kernel.shape
    dense = np.zeros((g * width + rows - width, g * out))
    for k in range(g):
        dense[k * width : (k + 1) * width, k * out : (k + 1) * out] = kernel[k, :width]
        dense[g * width :, k * out : (k + 1) * out] = kernel[k, width:]
    return dense


@pytest.mark.parametrize("shared_size", [0, 5])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_block_linear_is_a_block_diagonal_matrix(batch, shared_size):
    net = from_linen(BlockLinear(features=12, blocks=4))
    x = RNG.normal(size=(*batch, 8)).astype(np.float32)
    inputs = [x] if not shared_size else [x, RNG.normal(size=(*batch, shared_size)).astype(np.float32)]
    given = [split_blocks(jnp.asarray(x), 4), *map(jnp.asarray, inputs[1:])]
    params = random_params(net, *given)
    assert params["kernel"].shape == (4, 2 + shared_size, 3)
    dense = block_diagonal(np.asarray(params["kernel"], np.float64), width=2)
    expected = np.concatenate(inputs, -1) @ dense + np.asarray(params["bias"])
    y = net.apply(params, *given)
    assert y.shape == (4, *batch, 3)  # blocks first
    for k in range(4):
        np.testing.assert_allclose(y[k], expected[..., 3 * k : 3 * (k + 1)], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(join_blocks(y), expected, rtol=1e-4, atol=1e-5)


def test_blocks_do_not_see_each_other():
    net = from_linen(BlockLinear(features=12, blocks=4))
    params = random_params(net, jnp.zeros((4, 2)))
    jacobian = np.asarray(jax.jacobian(lambda x: net.apply(params, split_blocks(x, 4)))(jnp.ones(8)))
    assert jacobian.shape == (4, 3, 8)
    seen = np.abs(jacobian).reshape(4, 3, 4, 2).max((1, 3)) > 0
    np.testing.assert_array_equal(seen, np.eye(4, dtype=bool))


def test_blocks_are_split_to_the_front_and_joined_again():
    x = jnp.arange(12.0).reshape(2, 6)
    split = split_blocks(x, 3)
    np.testing.assert_array_equal(split, [[[0, 1], [6, 7]], [[2, 3], [8, 9]], [[4, 5], [10, 11]]])
    np.testing.assert_array_equal(join_blocks(split), x)


def test_block_linear_starts_with_the_fan_in_of_the_whole_input():
    kernel = from_linen(BlockLinear(1024, 8)).init(KEY, jnp.zeros((8, 1, 64)))["kernel"]
    assert float(kernel.std()) == pytest.approx(1 / np.sqrt(512), rel=0.02)
    # Every block repeats the shared part, as if it were appended to each.
    with_shared = from_linen(BlockLinear(1024, 8)).init(KEY, jnp.zeros((8, 1, 64)), jnp.zeros((1, 32)))
    assert float(with_shared["kernel"].std()) == pytest.approx(1 / np.sqrt(512 + 8 * 32), rel=0.02)
    assert not with_shared["bias"].any()


@pytest.mark.parametrize("fan_in", [None, 100])
def test_truncated_normal_has_the_promised_std(fan_in):
    kernel = truncated_normal(0.5, fan_in)(KEY, (100, 1000), jnp.float32)
    std = 0.5 / np.sqrt(100)
    assert float(kernel.std()) == pytest.approx(std, rel=0.02)
    assert float(kernel.mean()) == pytest.approx(0.0, abs=0.02 * std)
    assert float(jnp.abs(kernel).max()) <= 2 * std / 0.8796 * 1.001


def test_convolutions_count_the_whole_patch_as_fan_in():
    kernel = truncated_normal()(KEY, (5, 5, 16, 128), jnp.float32)
    assert float(kernel.std()) == pytest.approx(1 / np.sqrt(5 * 5 * 16), rel=0.02)


def test_scale_zero_gives_zeros():
    assert not truncated_normal(0.0)(KEY, (10, 10), jnp.float32).any()
    head = from_linen(Head(1, 8, 5, scale=0.0))
    params = head.init(KEY, jnp.zeros((1, 3)))
    np.testing.assert_array_equal(head.apply(params, jnp.ones((4, 3))), np.zeros((4, 5)))


def test_bfloat16_computes_in_half_precision_over_float32_parameters():
    x = jnp.ones((4, 2, 16))
    for module in (Linear(8, dtype=jnp.bfloat16), MLP(2, 8, jnp.bfloat16), BlockLinear(8, 4, jnp.bfloat16)):
        net = from_linen(module)
        params = net.init(KEY, x)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
        assert net.apply(params, x).dtype == jnp.bfloat16


def test_heads_answer_in_float32():
    net = from_linen(Head(1, 8, (2, 3), dtype=jnp.bfloat16))
    x = jnp.ones((4, 5, 6), jnp.bfloat16)
    y = net.apply(net.init(KEY, x), x)
    assert y.dtype == jnp.float32 and y.shape == (4, 5, 2, 3)


def test_action_head_has_one_output_for_each_parameter_of_a_distribution():
    specs = {"move": ArraySpec("continuous", (2,)), "keys": ArraySpec("discrete", (4,), 3)}
    net = from_linen(ActionHead(1, 8, specs))
    params = net.init(KEY, jnp.zeros((1, 5)))
    out = net.apply(params, jnp.ones((7, 5)))
    shapes = jax.tree.map(jnp.shape, out)
    assert shapes == {"move": {"mean": (7, 2), "std": (7, 2)}, "keys": {"logits": (7, 4, 3)}}
    assert all(float(jnp.abs(leaf).max()) < 0.2 for leaf in jax.tree.leaves(out))


def test_linen_and_haiku_enter_through_the_same_pair():
    x = jnp.ones((2, 3))
    for net in (from_linen(nn.Dense(4)), from_haiku(lambda x: hk.Linear(4)(x))):
        params = net.init(KEY, x)
        assert {leaf.shape for leaf in jax.tree.leaves(params)} == {(3, 4), (4,)}
        assert net.apply(params, x).shape == (2, 4)


def test_linen_modules_with_hidden_state_are_refused():
    class Counting(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=False)(nn.Dense(3)(x))

    with pytest.raises(ValueError, match=r"Counting.*batch_stats.*hidden state"):
        from_linen(Counting()).init(KEY, jnp.ones((2, 3)))


def test_haiku_functions_with_hidden_state_are_refused():
    def counting(x):
        return x + hk.get_state("count", (), init=jnp.zeros)

    with pytest.raises(ValueError, match="state"):
        from_haiku(counting).init(KEY, jnp.ones(3))


def test_a_linen_module_without_parameters_is_a_net():
    class Double(nn.Module):
        @nn.compact
        def __call__(self, x):
            return 2 * x

    net = from_linen(Double())
    params = net.init(KEY, jnp.ones(3))
    assert not jax.tree.leaves(params)
    np.testing.assert_array_equal(net.apply(params, jnp.ones(3)), 2.0)
