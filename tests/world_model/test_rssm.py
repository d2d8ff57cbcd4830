"""The recurrent state-space model against an independent NumPy step, and its identities over time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.config import ModelConfig
from dreamer_agent.nets import Net
from dreamer_agent.specs import ArraySpec
from dreamer_agent.world_model import RSSM, Latent, WorldModel, encode_actions
from dreamer_agent.world_model.cells import BlockGRU
from tests.compiling import quick_jit
from tests.conftest import small_config

ROWS, TIME, ACTION, TOKEN = 3, 6, 4, 5
SMALL = ModelConfig(deter=16, hidden=8, classes=4, units=8, depth=2, stoch=3)
KEY = jax.random.PRNGKey(7)


def random_params(init, *inputs, seed=0):
    """Random numbers in the shapes that `init` gives, so that biases and norms count too."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(init, KEY, *inputs)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes)


@pytest.fixture(scope="module")
def rssm():
    return RSSM.create(SMALL, jnp.float32)


@pytest.fixture(scope="module")
def params(rssm):
    params = random_params(rssm.init, jnp.zeros((1, ACTION)), jnp.zeros((1, TOKEN)))
    return jax.tree.map(lambda x: 0.4 * x, params)


@pytest.fixture(scope="module")
def advance(rssm):
    return quick_jit(rssm.advance)


@pytest.fixture(scope="module")
def observe(rssm):
    return quick_jit(rssm.observe)


@pytest.fixture(scope="module")
def observe_step(rssm):
    return quick_jit(rssm.observe_step)


def draw_latent(seed, rows=ROWS):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, SMALL.classes, (rows, SMALL.stoch))
    return Latent(
        jnp.asarray(rng.normal(size=(rows, SMALL.deter)), jnp.float32),
        jnp.asarray(np.eye(SMALL.classes)[index], jnp.float32),
    )


def draw_sequence(seed):
    rng = np.random.default_rng(seed)
    actions = jnp.asarray(rng.normal(size=(ROWS, TIME, ACTION)), jnp.float32)
    tokens = jnp.asarray(rng.normal(size=(ROWS, TIME, TOKEN)), jnp.float32)
    return actions, tokens, jnp.zeros((ROWS, TIME), bool)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normed_silu(x, scale):
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * scale
    return x * sigmoid(x)


def block_gru_in_numpy(p, h, z, a, blocks=8):
    """One step, block by block, from the description of the cell."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), p)
    a = a / np.maximum(1.0, np.abs(a))

    def embed(name, x):
        layer = p[f"embed_{name}"]
        x = x @ layer["linear"]["dense"]["kernel"] + layer["linear"]["dense"]["bias"]
        return normed_silu(x, layer["norm"]["scale"])

    x0, x1, x2 = embed("deter", h), embed("stoch", z), embed("action", a)
    parts = np.split(h, blocks, -1)
    mixed = [np.concatenate([part, x0, x1, x2], -1) @ p["mix"]["kernel"][k] for k, part in enumerate(parts)]
    x = normed_silu(np.concatenate(mixed, -1) + p["mix"]["bias"], p["mix_norm"]["scale"])
    new = []
    for k, (part, old) in enumerate(zip(np.split(x, blocks, -1), parts, strict=True)):
        width = old.shape[-1]
        gates = part @ p["gates"]["kernel"][k] + p["gates"]["bias"][3 * width * k : 3 * width * (k + 1)]
        reset, candidate, update = np.split(gates, 3, -1)
        candidate = np.tanh(sigmoid(reset) * candidate)
        update = sigmoid(update - 1)
        new.append(update * candidate + (1 - update) * old)
    return np.concatenate(new, -1)


def test_block_gru_equals_an_independent_one():
    cell = BlockGRU(hidden=5, blocks=8)
    rng = np.random.default_rng(3)
    h, z, a = rng.normal(size=(4, 24)), rng.normal(size=(4, 6)), rng.normal(size=(4, 3)) * 2
    inputs = [jnp.asarray(x, jnp.float32) for x in (h, z, a)]
    params = random_params(cell.init, *inputs)
    expected = block_gru_in_numpy(params["params"], h, z, a)
    np.testing.assert_allclose(quick_jit(cell.apply)(params, *inputs), expected, rtol=1e-3, atol=1e-5)


def test_large_actions_are_scaled_to_one(params, advance):
    latent = draw_latent(0)
    huge = advance(params, latent, jnp.tile(jnp.array([50.0, -3.0, 0.5, 1.0]), (ROWS, 1)))
    unit = advance(params, latent, jnp.tile(jnp.array([1.0, -1.0, 0.5, 1.0]), (ROWS, 1)))
    np.testing.assert_allclose(huge, unit, rtol=1e-6)


def test_scale_of_an_action_carries_no_gradient(rssm, params):
    latent = draw_latent(0)
    slope = quick_jit(jax.grad(lambda a: rssm.advance(params, latent, a).sum()))
    one, four = (np.asarray(slope(jnp.full((ROWS, ACTION), value))) for value in (1.0, 4.0))
    assert np.abs(one).min() > 0
    np.testing.assert_allclose(four, one / 4, rtol=1e-4, atol=1e-7)  # the slope of a / sg(|a|) is 1 / |a|


def test_cell_starts_by_keeping_most_of_h():
    cell = BlockGRU(hidden=5, blocks=8)
    inputs = jnp.ones((1, 24)), jnp.zeros((1, 6)), jnp.zeros((1, 3))
    params = jax.tree.map(jnp.zeros_like, random_params(cell.init, *inputs))
    new = cell.apply(params, *inputs)
    np.testing.assert_allclose(new, 1 - sigmoid(-1.0), rtol=1e-6)  # candidate is zero


def test_initial_latent_is_zero(rssm):
    latent = rssm.initial(2, 3)
    assert latent.deter.shape == (2, 3, 16) and latent.stoch.shape == (2, 3, 3, 4)
    assert latent.features.shape == (2, 3, 16 + 12)
    assert not latent.features.any()


def test_sample_is_one_hot_and_follows_the_mixed_probabilities(rssm):
    logits = jnp.tile(jnp.log(jnp.array([0.6, 0.4, 1e-30, 1e-30])), (10_000, SMALL.stoch, 1))
    sample = np.asarray(rssm.sample(KEY, logits))
    np.testing.assert_allclose(sample.sum(-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(sample.max(-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(sample.mean((0, 1)), [0.5965, 0.3985, 0.0025, 0.0025], atol=0.01)


def test_step_by_step_equals_over_time(rssm, params, observe, observe_step):
    actions, tokens, is_first = draw_sequence(1)
    is_first = is_first.at[1, 3].set(True)
    latents, logits = observe(params, KEY, draw_latent(1), actions, tokens, is_first)
    latent, keys = draw_latent(1), jax.random.split(KEY, TIME)
    for t in range(TIME):
        latent, step_logits = observe_step(params, keys[t], latent, actions[:, t], tokens[:, t], is_first[:, t])
        np.testing.assert_allclose(latent.deter, latents.deter[:, t], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(latent.stoch, latents.stoch[:, t], atol=1e-6)
        np.testing.assert_allclose(step_logits, logits[:, t], rtol=1e-4, atol=1e-5)


def test_gradients_over_time_are_those_step_by_step(rssm, params):
    latent, (actions, tokens, is_first) = draw_latent(0), draw_sequence(1)
    is_first = is_first.at[1, 3].set(True)

    def loss(latents, logits):
        return (latents.deter**2).sum() + jnp.sin(latents.stoch).sum() + (logits**2).mean()

    def over_time(params, latent, tokens):
        return loss(*rssm.observe(params, KEY, latent, actions, tokens, is_first))

    def step_by_step(params, latent, tokens):
        steps = []
        for t, key in enumerate(jax.random.split(KEY, TIME)):
            steps.append(rssm.observe_step(params, key, latent, actions[:, t], tokens[:, t], is_first[:, t]))
            latent = steps[-1][0]
        return loss(*jax.tree.map(lambda *x: jnp.stack(x, 1), *steps))

    gradients = [quick_jit(jax.grad(f, (0, 1, 2)))(params, latent, tokens) for f in (over_time, step_by_step)]
    for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4)
    assert all(np.abs(x).max() > 1e-4 for x in jax.tree.leaves((gradients[0][0]["cell"], gradients[0][1:])))


def test_reset_forgets_what_came_before(params, observe):
    cut = 3
    first, second = draw_sequence(2), draw_sequence(3)
    is_first = first[2].at[:, cut].set(True)
    after = [jnp.concatenate([b[:, :cut], a[:, cut:]], 1) for a, b in zip(first, second, strict=True)]
    after[0] = after[0].at[:, cut].set(123.0)  # the action before a reset belongs to the old episode
    one, _ = observe(params, KEY, draw_latent(2), *first[:2], is_first)
    other, _ = observe(params, KEY, draw_latent(3), *after[:2], is_first)
    assert not np.allclose(one.deter[:, cut - 1], other.deter[:, cut - 1])
    np.testing.assert_array_equal(one.deter[:, cut:], other.deter[:, cut:])
    np.testing.assert_array_equal(one.stoch[:, cut:], other.stoch[:, cut:])


def test_reset_equals_a_fresh_start(rssm, params, observe_step):
    actions, tokens, _ = draw_sequence(4)
    reset = jnp.array([True, False, True])
    latent, _ = observe_step(params, KEY, draw_latent(4), actions[:, 0], tokens[:, 0], reset)
    fresh, _ = observe_step(
        params, KEY, rssm.initial(ROWS), jnp.zeros((ROWS, ACTION)), tokens[:, 0], jnp.zeros(ROWS, bool)
    )
    same = np.isclose(latent.deter, fresh.deter, rtol=1e-5, atol=1e-6).all(-1)
    np.testing.assert_array_equal(same, reset)


def test_rows_are_independent(params, observe):
    actions, tokens, is_first = draw_sequence(5)
    whole, _ = observe(params, KEY, draw_latent(5), actions, tokens, is_first)
    changed, _ = observe(
        params, KEY, draw_latent(5), actions.at[0].add(1.0), tokens.at[0].set(0.0), is_first.at[0, 2].set(True)
    )
    assert not np.allclose(whole.deter[0], changed.deter[0])
    np.testing.assert_array_equal(whole.deter[1:], changed.deter[1:])
    np.testing.assert_array_equal(whole.stoch[1:], changed.stoch[1:])


def test_later_tokens_do_not_change_earlier_latents(params, observe):
    actions, tokens, is_first = draw_sequence(6)
    whole, _ = observe(params, KEY, draw_latent(6), actions, tokens, is_first)
    changed, _ = observe(params, KEY, draw_latent(6), actions, tokens.at[:, 4:].add(2.0), is_first)
    np.testing.assert_array_equal(whole.deter[:, :5], changed.deter[:, :5])  # h_4 has not seen token 4
    np.testing.assert_array_equal(whole.stoch[:, :4], changed.stoch[:, :4])


def test_imagine_step_draws_from_the_prior(rssm, params, advance):
    latent, action = draw_latent(8), jnp.ones((ROWS, ACTION))
    new = quick_jit(rssm.imagine_step)(params, KEY, latent, action)
    deter = advance(params, latent, action)
    logits = rssm.prior.apply(params["prior"], deter)
    np.testing.assert_allclose(new.deter, deter, rtol=1e-6)
    level = jax.random.uniform(KEY, logits.shape[:-1])
    hot = np.eye(SMALL.classes)[np.asarray(rssm.distribution(logits).quantile(level))]
    np.testing.assert_allclose(new.stoch, hot, atol=1e-6)


def test_latent_survives_pack_and_unpack():
    latent = draw_latent(9)
    stored = latent.pack()
    assert stored["stoch"].dtype == jnp.uint8 and stored["stoch"].shape == (ROWS, SMALL.stoch)
    back = Latent.unpack(stored, SMALL.classes, jnp.float32)
    np.testing.assert_array_equal(back.deter, latent.deter)
    np.testing.assert_array_equal(back.stoch, latent.stoch)
    assert Latent.unpack(stored, SMALL.classes, jnp.bfloat16).deter.dtype == jnp.bfloat16


def test_pack_keeps_the_highest_of_256_classes():
    stoch = jnp.eye(256)[jnp.array([[0, 255]])]
    back = Latent.unpack(Latent(jnp.zeros((1, 2)), stoch).pack(), 256, jnp.float32)
    np.testing.assert_array_equal(back.stoch, stoch)


def test_features_are_h_then_z():
    latent = draw_latent(10)
    features = np.asarray(latent.features)
    np.testing.assert_array_equal(features[:, :16], latent.deter)
    np.testing.assert_array_equal(features[:, 16:].reshape(ROWS, 3, 4), latent.stoch)


def test_actions_are_encoded_in_the_order_of_their_names():
    specs = {"move": ArraySpec("continuous", (2,)), "button": ArraySpec("discrete", (2,), 3)}
    actions = {"move": jnp.array([[0.5, -7.0]]), "button": jnp.array([[2, 0]])}
    encoded = encode_actions(specs, actions, jnp.float32)
    np.testing.assert_array_equal(encoded, [[0, 0, 1, 1, 0, 0, 0.5, -7.0]])


def kl_and_gradients(post, prior, unimix):
    """KL `[...]` summed over latents and its gradients by both logits, from the calculus."""

    def probs(logits):
        soft = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        return soft, (1 - unimix) * soft + unimix / logits.shape[-1]

    def through_softmax(gradient, soft):
        gradient = (1 - unimix) * gradient
        return soft * (gradient - (soft * gradient).sum(-1, keepdims=True))

    (soft_p, p), (soft_q, q) = probs(post), probs(prior)
    kl = (p * np.log(p / q)).sum((-1, -2))
    return kl, through_softmax(np.log(p / q) + 1, soft_p), through_softmax(-p / q, soft_q)


@pytest.fixture(scope="module")
def kl_model():
    """A world model whose "prior network" is its logits themselves, so that they can be differentiated."""
    obs, act = {"x": ArraySpec("continuous", (2,))}, {"a": ArraySpec("discrete", (), 3)}
    model = WorldModel.create(obs, act, small_config().model, jnp.float32)
    prior = Net(lambda *_: None, lambda logits, _: logits)
    return dataclasses.replace(model, rssm=dataclasses.replace(model.rssm, prior=prior))


def kl_losses(model, post, prior, free_nats):
    latents = model.rssm.initial(*post.shape[:2])
    return model.kl_losses({"rssm": {"prior": prior}}, latents, post, jnp.float32(free_nats))[0]


def draw_logits(seed, scale=2.0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(2, 3, 4, 4)) * scale, jnp.float32)


def test_kl_losses_equal_the_formula(kl_model):
    post, prior = draw_logits(0), draw_logits(1)
    expected, _, _ = kl_and_gradients(np.asarray(post, np.float64), np.asarray(prior, np.float64), 0.01)
    losses = kl_losses(kl_model, post, prior, 0.0)
    assert set(losses) == {"dyn", "rep"}
    for value in losses.values():
        np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_kl_gradient_is_split_between_prior_and_posterior(kl_model):
    post, prior = draw_logits(0), draw_logits(1)

    def total(post, prior):
        losses = kl_losses(kl_model, post, prior, 1.0)
        return 1.0 * losses["dyn"].sum() + 0.1 * losses["rep"].sum()

    kl, by_post, by_prior = kl_and_gradients(np.asarray(post, np.float64), np.asarray(prior, np.float64), 0.01)
    assert (kl > 1).all()
    got_post, got_prior = jax.grad(total, (0, 1))(post, prior)
    np.testing.assert_allclose(got_post, 0.1 * by_post, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(got_prior, 1.0 * by_prior, rtol=1e-3, atol=1e-5)


def test_free_nats_clamp_value_and_gradient(kl_model):
    post = draw_logits(2)
    prior = post + 0.01 * draw_logits(3)
    losses = kl_losses(kl_model, post, prior, 1.0)
    np.testing.assert_array_equal(losses["dyn"], 1.0)
    np.testing.assert_array_equal(losses["rep"], 1.0)

    def total(post, prior):
        losses = kl_losses(kl_model, post, prior, 1.0)
        return losses["dyn"].sum() + losses["rep"].sum()

    for gradient in jax.grad(total, (0, 1))(post, prior):
        np.testing.assert_array_equal(gradient, 0.0)
