"""The GRUs of V1 and V2 against independent NumPy steps, and the block GRU's place among them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.config import ModelConfig
from dreamer_agent.nets import Style, from_linen
from dreamer_agent.world_model.cells import GRU, NormGRU, make_cell
from tests.compiling import quick_jit
from tests.world_model.test_rssm import random_params, sigmoid

RNG = np.random.default_rng(5)
H, Z, A = RNG.normal(size=(4, 6)), RNG.normal(size=(4, 5)), RNG.uniform(-1, 1, size=(4, 2))
PLAIN = Style("elu", "none")


def elu(x):
    return np.where(x > 0, x, np.expm1(x))


def normed(x, p):
    gap = x - x.mean(-1, keepdims=True)
    return gap / np.sqrt((gap**2).mean(-1, keepdims=True) + 1e-3) * p["scale"] + p["bias"]


def embedded(p, normalise=lambda x: x):
    layer = p["embed"]["linear"]["dense"]
    return elu(normalise(np.concatenate([Z, A], -1) @ layer["kernel"] + layer["bias"]))


def stepped(module):
    inputs = [jnp.asarray(x, jnp.float32) for x in (H, Z, A)]
    net = from_linen(module)
    params = random_params(net.init, *inputs)
    return quick_jit(net.apply)(params, *inputs), jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def test_the_gru_of_v1_equals_an_independent_one():
    new, p = stepped(GRU(hidden=3, style=PLAIN))
    x, cell = embedded(p), p["cell"]

    def gate(name):
        bias = cell[f"i{name}"]["bias"]
        return x @ cell[f"i{name}"]["kernel"] + bias, H @ cell[f"h{name}"]["kernel"]

    reset, keep = (sigmoid(sum(gate(name))) for name in ("r", "z"))
    seen, remembered = gate("n")
    candidate = np.tanh(seen + reset * (remembered + cell["hn"]["bias"]))
    np.testing.assert_allclose(new, (1 - keep) * candidate + keep * H, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_the_gru_of_v2_equals_an_independent_one(norm):
    new, p = stepped(NormGRU(hidden=3, style=Style("elu", norm)))
    layer = (lambda x: normed(x, p["embed"]["norm"]["layer"])) if norm == "layer" else (lambda x: x)
    both = np.concatenate([embedded(p, layer), H], -1)
    dense = p["gates"]["dense"]
    gates = normed(both @ dense["kernel"] + dense["bias"], p["gates_norm"]["layer"])
    reset, candidate, update = np.split(gates, 3, -1)
    update = sigmoid(update - 1)
    expected = update * np.tanh(sigmoid(reset) * candidate) + (1 - update) * H
    np.testing.assert_allclose(new, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("cell", ["block_gru", "norm_gru", "gru"])
def test_rows_are_independent_in_every_cell(cell):
    net = make_cell(ModelConfig(deter=16, hidden=4, blocks=4, cell=cell), jnp.float32)
    h, z, a = (jnp.asarray(RNG.normal(size=(3, n)), jnp.float32) for n in (16, 5, 2))
    params = random_params(net.init, h, z, a)
    apply = quick_jit(net.apply)
    whole = apply(params, h, z, a)
    changed = apply(params, *(x.at[0].set(9.0) for x in (h, z, a)))
    np.testing.assert_array_equal(changed[1:], whole[1:])
    assert (changed[0] != whole[0]).any()
    assert whole.shape == h.shape and (np.abs(whole) <= np.maximum(1, np.abs(h)) + 1e-5).all()


def test_the_cells_keep_the_type_they_compute_in():
    for cell in ("block_gru", "norm_gru", "gru"):
        net = make_cell(ModelConfig(deter=16, hidden=4, blocks=4, cell=cell), jnp.bfloat16)
        inputs = [jnp.zeros((2, n), jnp.bfloat16) for n in (16, 5, 2)]
        params = jax.eval_shape(net.init, jax.random.PRNGKey(0), *inputs)
        assert jax.eval_shape(net.apply, params, *inputs).dtype == jnp.bfloat16
        assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}
