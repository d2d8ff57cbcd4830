"""What every registered encoder must satisfy, and how one from outside enters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from dreamer_agent.agent import Agent
from dreamer_agent.errors import ConfigError
from dreamer_agent.nets import Net
from dreamer_agent.specs import ArraySpec
from dreamer_agent.world_model import ENCODERS, make_encoder, register_encoder
from tests.compiling import quick_jit
from tests.conftest import random_batch, small_config

VECTOR = {"position": ArraySpec("continuous", (3,)), "holding": ArraySpec("discrete", (2,), 3)}
IMAGE = {"image": ArraySpec("image", (8, 8, 1))}
SPACES = {"vector": VECTOR, "image": IMAGE, "both": VECTOR | IMAGE}
KEY = jax.random.PRNGKey(0)


class Encoder:
    """One encoder with its parameters and its jitted application, shared by the tests below."""

    def __init__(self, name: str, specs: dict[str, ArraySpec]):
        config = small_config(f"model.encoder={name}", "model.encoder_layers=2").model
        self.specs = specs
        self.net = make_encoder(specs, config, jnp.float32)
        over_keys = quick_jit(jax.vmap(self.net.init, (0, None)))
        self.stacked = over_keys(jax.random.split(KEY, 3), self.draw(1))
        self.params = jax.tree.map(lambda x: x[0], self.stacked)
        self.apply = quick_jit(self.net.apply)

    def draw(self, *batch: int, seed: int = 0) -> dict[str, jax.Array]:
        """Random observations with the leading axes `batch`."""
        rng, obs = np.random.default_rng(seed), {}
        for key, spec in self.specs.items():
            top = {"continuous": None, "discrete": spec.classes, "image": 256}[spec.kind]
            shape = (*batch, *spec.shape)
            x = rng.normal(size=shape) * 3 if top is None else rng.integers(0, top, shape)
            obs[key] = jnp.asarray(x.astype(spec.dtype))
        return obs


@pytest.fixture(
    scope="module", params=[(name, space) for name in sorted(ENCODERS) for space in SPACES], ids="-".join
)
def encoder(request):
    name, space = request.param
    return Encoder(name, SPACES[space])


def test_output_has_the_leading_axes_of_its_input(encoder):
    width = encoder.apply(encoder.params, encoder.draw(1)).shape[-1]
    for batch in ((), (5,), (2, 3), (2, 1, 3)):
        shape = jax.eval_shape(encoder.net.apply, encoder.params, encoder.draw(*batch)).shape
        assert shape == (*batch, width)


def test_leading_axes_do_not_mix(encoder):
    obs = encoder.draw(2, 3)
    flat = jax.tree.map(lambda x: x.reshape(6, *x.shape[2:]), obs)
    tokens = np.asarray(encoder.apply(encoder.params, obs)).reshape(6, -1)
    np.testing.assert_allclose(encoder.apply(encoder.params, flat), tokens, rtol=1e-4, atol=1e-5)
    assert not np.allclose(tokens[0], tokens[1])


def test_jit_equals_eager(encoder):
    obs = encoder.draw(2)
    np.testing.assert_allclose(
        encoder.apply(encoder.params, obs), encoder.net.apply(encoder.params, obs), rtol=1e-4, atol=1e-5
    )


def test_gradient_reaches_every_parameter(encoder):
    obs = encoder.draw(8)
    gradient = quick_jit(jax.grad(lambda p: jnp.square(encoder.net.apply(p, obs)).sum()))(encoder.params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_vmapped_init_gives_one_set_of_parameters_for_each_key(encoder):
    shapes = jax.eval_shape(encoder.net.init, KEY, encoder.draw(1))
    for one, many in zip(jax.tree.leaves(shapes), jax.tree.leaves(encoder.stacked), strict=True):
        assert many.shape == (3, *one.shape) and many.dtype == one.dtype
    kernels = [leaf for leaf in jax.tree.leaves(encoder.stacked) if np.ptp(leaf[0]) > 0]
    assert kernels
    for leaf in kernels:
        assert not np.array_equal(leaf[0], leaf[1]) and not np.array_equal(leaf[1], leaf[2])


def test_parameters_survive_a_checkpoint(encoder, tmp_path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "encoder", encoder.params)
        checkpointer.wait_until_finished()
        template = jax.tree.map(ocp.utils.to_shape_dtype_struct, encoder.params)
        restored = checkpointer.restore(tmp_path / "encoder", template)
    assert jax.tree.structure(restored) == jax.tree.structure(encoder.params)
    for one, other in zip(jax.tree.leaves(encoder.params), jax.tree.leaves(restored), strict=True):
        np.testing.assert_array_equal(one, other)


def test_loss_falls_when_fitted(encoder):
    obs = encoder.draw(8, seed=1)
    tokens = encoder.apply(encoder.params, obs)
    target = jnp.asarray(np.random.default_rng(2).uniform(0, 1, tokens.shape), jnp.float32)
    adam = optax.adam(1e-2)

    def loss(params):
        return jnp.square(encoder.net.apply(params, obs) - target).mean()

    @quick_jit
    def fit(params):
        def step(carry, _):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params)
            updates, state = adam.update(gradient, state)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, adam.init(params)), length=60)[1]

    values = np.asarray(fit(encoder.params))
    assert np.isfinite(values).all()
    assert values[-1] < 0.7 * values[0]


@pytest.fixture
def outside_encoder():
    """An encoder without any library: one random-feature layer in plain JAX."""

    @register_encoder("outside")
    def factory(specs, config, dtype):
        def init(key, obs):
            return {"matrix": jax.random.normal(key, (specs["position"].shape[0], config.units), dtype)}

        return Net(init, lambda params, obs: jnp.tanh(obs["position"].astype(dtype) @ params["matrix"]))

    yield factory
    ENCODERS.pop("outside")


def test_an_encoder_from_outside_is_trained(outside_encoder):
    assert ENCODERS.get("outside") is outside_encoder
    config = small_config(
        "model.encoder=outside", "model.stoch=2", "replay.batch_size=2", "replay.batch_length=2",
        "behaviour.imagination_horizon=2", "optimizer.learning_rate=0.01",
        "model.policy_layers=1", "model.decoder_layers=1",
    )  # fmt: skip
    agent = Agent.create(config, {"position": VECTOR["position"]}, {"button": ArraySpec("discrete", (), 3)})
    state = quick_jit(agent.init)(KEY)._replace(step=jnp.int32(1000))  # past the warm-up
    new, _, metrics = quick_jit(agent.update)(state, random_batch(agent))
    assert np.isfinite(metrics["optimizer/gradient_norm"])
    assert new.params["encoder"]["matrix"].shape == (3, 16)
    assert (new.params["encoder"]["matrix"] != state.params["encoder"]["matrix"]).any()


def test_unknown_encoder_names_the_registered():
    with pytest.raises(ConfigError, match=r"'linnen'.*haiku.*linen.*register_encoder"):
        make_encoder(VECTOR, small_config("model.encoder=linnen").model, jnp.float32)
