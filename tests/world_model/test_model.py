"""The world model as a whole: its size, its losses, the images it takes, and the context step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.agent import Agent, count_parameters
from dreamer_agent.config import load_config
from dreamer_agent.errors import ConfigError
from dreamer_agent.specs import ArraySpec
from dreamer_agent.world_model import Latent, WorldModel, drop_context
from tests.compiling import quick_jit
from tests.conftest import random_batch, small_config

KEY = jax.random.PRNGKey(0)
SIZES = {
    "1m": (640_867, 686_456),
    "12m": (9_738_019, 10_492_616),
    "25m": (21_782_947, 23_487_016),
    "50m": (38_612_003, 41_646_984),
    "100m": (86_622_499, 93_463_624),
    "200m": (153_769_507, 165_942_536),
    "400m": (345_473_059, 372_887_176),
}
BUTTONS = {"button": ArraySpec("discrete", (), 6)}


def shapes_of_state(config, obs, act):
    return jax.eval_shape(Agent.create(config, obs, act).init, KEY)


@pytest.mark.parametrize("size", SIZES)
def test_parameters_with_a_vector(size):
    obs, act = {"vector": ArraySpec("continuous", (24,))}, {"move": ArraySpec("continuous", (6,))}
    state = shapes_of_state(load_config([f"size/{size}"]), obs, act)
    assert count_parameters(state.params) == SIZES[size][0]


@pytest.mark.parametrize("size", SIZES)
def test_parameters_with_an_image(size):
    state = shapes_of_state(load_config([f"size/{size}"]), {"image": ArraySpec("image", (64, 64, 3))}, BUTTONS)
    assert count_parameters(state.params) == SIZES[size][1]


def test_slow_critic_is_a_copy_outside_the_parameters():
    state = shapes_of_state(small_config(), {"vector": ArraySpec("continuous", (3,))}, BUTTONS)
    assert set(state.params) == {"encoder", "rssm", "decoder", "reward", "cont", "actor", "critic"}
    assert jax.tree.structure(state.slow_critic) == jax.tree.structure(state.params["critic"])
    assert jax.tree.map(lambda x: x.shape, state.slow_critic) == jax.tree.map(
        lambda x: x.shape, state.params["critic"]
    )


@pytest.fixture(scope="module")
def batch(learner):
    return jax.tree.map(jnp.asarray, random_batch(learner.agent, seed=3))


@pytest.fixture(scope="module")
def observe(learner):
    return quick_jit(learner.agent.model.observe)


def test_losses_have_their_names_and_one_number_for_each_step(learner, batch):
    model, c = learner.agent.model, learner.agent.config
    losses, latents, metrics = jax.eval_shape(
        model.loss, learner.state.params, batch, KEY, jnp.float32(1), jnp.float32(0.99)
    )
    expected = {"rec/vector", "rec/integer", "reward", "continue", "dyn", "rep"}
    assert set(losses) == expected
    assert {loss.shape for loss in losses.values()} == {(4, 8)}
    assert {loss.dtype for loss in losses.values()} == {jnp.dtype("float32")}
    assert latents.deter.shape == (4, 8, c.model.deter)
    assert latents.stoch.shape == (4, 8, c.model.stoch, c.model.classes)
    assert all(value.shape == () for value in metrics.values())


def test_heads_start_at_zero_reward(learner):
    features = jax.random.normal(KEY, (5, learner.agent.model.rssm.initial(1).features.shape[-1]))
    reward = learner.agent.model.predict_reward(learner.state.params, features)
    np.testing.assert_array_equal(reward.mean(), np.zeros(5))
    assert learner.agent.model.predict_continue(learner.state.params, features).prob().shape == (5,)


def test_continue_target_holds_the_discount(learner, batch):
    # With a continue head that always answers logit l, the loss is the cross-entropy to (1 - terminal) gamma.
    model, gamma, logit = learner.agent.model, 0.9, 0.7
    params = dict(learner.state.params)
    params["cont"] = jax.tree.map(jnp.zeros_like, params["cont"])
    params["cont"]["out"]["dense"]["bias"] = jnp.array([logit])
    losses = quick_jit(model.loss)(params, batch, KEY, jnp.float32(1), jnp.float32(gamma))[0]
    p = 1 / (1 + np.exp(-logit))
    target = gamma * (1 - np.asarray(batch["is_terminal"])[:, 1:])
    assert 0 < (target == 0).sum() < target.size
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    np.testing.assert_allclose(losses["continue"], expected, rtol=1e-5)
    np.testing.assert_allclose(losses["reward"], np.log(31), rtol=1e-5)  # uniform over the bins at the start


def test_first_step_continues_from_the_stored_latent_and_the_action_of_the_context(learner, batch, observe):
    model, params = learner.agent.model, learner.state.params
    batch = batch | {"is_first": jnp.zeros_like(batch["is_first"])}
    latents, _ = observe(params, batch, KEY)
    stored = np.eye(4, dtype=np.float32)[np.asarray(batch["latent"]["stoch"])[:, 0]]
    start = Latent(batch["latent"]["deter"][:, 0], jnp.asarray(stored))
    step = quick_jit(model.observe_step)
    keys, latent = jax.random.split(KEY, 8), start
    for t in range(2):  # row t + 1 of the batch is trained step t; the action before it stands in row t
        obs = jax.tree.map(lambda x, t=t: x[:, t + 1], batch["obs"])
        action = jax.tree.map(lambda x, t=t: x[:, t], batch["action"])
        latent = step(params, keys[t], latent, action, obs, batch["is_first"][:, t + 1])
        np.testing.assert_allclose(latent.deter, latents.deter[:, t], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(latent.stoch, latents.stoch[:, t], atol=1e-6)


def test_only_the_latent_and_action_of_the_context_count(learner, batch, observe):
    params = learner.state.params
    batch = batch | {"is_first": jnp.zeros_like(batch["is_first"])}
    before, _ = observe(params, batch, KEY)

    def changed(**parts):
        latents, _ = observe(params, batch | parts, KEY)
        return not np.array_equal(latents.deter[:, 0], before.deter[:, 0])

    def at(tree, row):
        return jax.tree.map(lambda x: x.at[:, row].set(x[:, row] + jnp.ones((), x.dtype)), tree)

    assert changed(latent=at(batch["latent"], 0))
    assert changed(action=at({"move": batch["action"]["move"]}, 0) | {"button": batch["action"]["button"]})
    assert not changed(latent=at(batch["latent"], 1))
    assert not changed(action=at({"move": batch["action"]["move"]}, 1) | {"button": batch["action"]["button"]})
    assert not changed(obs=at(batch["obs"], 0))
    assert not changed(is_first=batch["is_first"].at[:, 0].set(True))


def test_start_of_an_episode_forgets_the_stored_latent(learner, batch, observe):
    batch = batch | {"is_first": jnp.zeros_like(batch["is_first"]).at[:, 1].set(True)}
    one, _ = observe(learner.state.params, batch, KEY)
    other, _ = observe(
        learner.state.params, batch | {"latent": jax.tree.map(jnp.zeros_like, batch["latent"])}, KEY
    )
    np.testing.assert_array_equal(one.deter, other.deter)


def test_drop_context_keeps_the_trained_steps(batch):
    trained = drop_context(batch)
    assert "latent" not in trained
    np.testing.assert_array_equal(trained["reward"], batch["reward"][:, 1:])
    np.testing.assert_array_equal(trained["obs"]["vector"], batch["obs"]["vector"][:, 1:])


def image_shapes(obs, *overrides, depth=4):
    """Shapes of the tokens and of the reconstruction for a batch `[2, 3]`, without computing them."""
    model = WorldModel.create(obs, BUTTONS, small_config(f"model.depth={depth}", *overrides).model, jnp.float32)
    params = jax.eval_shape(model.init, KEY)
    data = {k: jax.ShapeDtypeStruct((2, 3, *spec.shape), spec.dtype) for k, spec in obs.items()}
    tokens = jax.eval_shape(model.encoder.apply, params["encoder"], data)
    latent = jax.eval_shape(lambda: model.rssm.initial(2, 3))
    raw = jax.eval_shape(model.decoder.apply, params["decoder"], latent)

    def score(params, latent, data):
        return {k: p.loss(data[k]) for k, p in model.reconstruct(params, latent).items()}

    losses = jax.eval_shape(score, params, latent, data)
    assert {loss.shape for loss in losses.values()} == {(2, 3)}
    assert set(raw) == set(losses) == set(obs)
    return tokens.shape, {key: value.shape for key, value in raw.items()}


@pytest.mark.parametrize(
    "shape, tokens",
    [
        # smallest feature map times the channels of the last stage, 4 * depth = 16
        ((64, 64, 3), 4 * 4 * 16),
        ((16, 16, 3), 4 * 4 * 16),
        ((28, 28, 1), 4 * 4 * 16),
        ((7, 9, 3), 4 * 5 * 16),
        ((210, 160, 3), 14 * 10 * 16),
    ],
)
@pytest.mark.parametrize("options", [[], ["model.strided=true"], ["model.encoder=haiku"]])
def test_images_of_every_size(shape, tokens, options):
    got_tokens, raw = image_shapes({"image": ArraySpec("image", shape)}, *options)
    assert got_tokens == (2, 3, tokens)
    assert raw == {"image": (2, 3, *shape)}


@pytest.mark.parametrize("options", [[], ["model.encoder=haiku"]])
def test_images_of_two_sizes_beside_vectors(options):
    obs = {
        "big": ArraySpec("image", (16, 16, 3)),
        "depth": ArraySpec("image", (16, 16, 1)),
        "little": ArraySpec("image", (8, 8, 2)),
        "vector": ArraySpec("continuous", (5,)),
        "grid": ArraySpec("discrete", (2, 3), 7),
        "number": ArraySpec("continuous", ()),
    }
    tokens, raw = image_shapes(obs, *options)
    assert tokens == (2, 3, 16 + 4 * 4 * 16 + 4 * 4 * 16)  # units, then one stack of images for each size
    expected = {key: (2, 3, *spec.shape) for key, spec in obs.items()}
    assert raw == expected | {"grid": (2, 3, 2, 3, 7)}


def test_reconstructed_images_are_pixels():
    obs = {"one": ArraySpec("image", (8, 8, 1)), "two": ArraySpec("image", (8, 8, 2))}
    model = WorldModel.create(obs, BUTTONS, small_config().model, jnp.float32)
    shapes = jax.eval_shape(model.init, KEY)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes)
    latent = Latent(jax.random.normal(KEY, (2, 32)), jnp.ones((2, 4, 4)) / 4)
    raw = quick_jit(model.decoder.apply)(params["decoder"], latent)
    for key, channels in (("one", 1), ("two", 2)):
        assert raw[key].shape == (2, 8, 8, channels)
        assert 0 <= raw[key].min() < raw[key].max() <= 1


def test_channels_that_the_blocks_do_not_divide_are_refused_where_there_are_images():
    config = small_config("model.depth=3")
    vectors = {"x": ArraySpec("continuous", (3,))}
    WorldModel.create(vectors, BUTTONS, config.model, jnp.float32)
    with pytest.raises(ConfigError, match=r"gives 12 channels, which model\.blocks=8 should divide"):
        WorldModel.create({"x": ArraySpec("image", (16, 16, 3))}, BUTTONS, config.model, jnp.float32)
