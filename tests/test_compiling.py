"""The compiler's options for the learner: the same numbers, and nothing where XLA does not know them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent import compiling


@pytest.fixture
def unprobed():
    compiling._known.cache_clear()
    yield
    compiling._known.cache_clear()


def layer(weights, x):
    return jax.nn.silu(x @ weights["a"]) @ weights["b"]


def test_options_change_no_numbers():
    rng = np.random.default_rng(0)
    weights = {"a": rng.normal(size=(6, 5)).astype(np.float32), "b": rng.normal(size=(5, 4)).astype(np.float32)}
    x = rng.normal(size=(3, 6)).astype(np.float32)
    expected = layer(jax.tree.map(lambda w: w.astype(np.float64), weights), x.astype(np.float64))
    np.testing.assert_allclose(compiling.compiled(layer)(weights, x), expected, rtol=1e-5, atol=1e-6)


def test_what_is_compiled_takes_the_arguments_of_jit():
    double = compiling.compiled(lambda x, n: x * n, static_argnums=1, donate_argnums=0)
    x = jnp.ones(3)
    np.testing.assert_array_equal(double(x, 2), [2.0, 2.0, 2.0])
    assert x.is_deleted()


def test_an_option_that_xla_does_not_know_is_left_out(unprobed, monkeypatch):
    monkeypatch.setattr(compiling, "CPU", {"xla_cpu_no_such_option": "x"})
    assert compiling.compiler_options() == {}
    assert compiling.compiled(lambda x: x + 1)(1) == 2


def test_other_backends_get_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiling.compiler_options() == {}
