"""Both kinds of latents, and the KL losses that V1, V2 and V3 make of their distributions."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.distributions import Normal
from dreamer_agent.nets import Net
from dreamer_agent.replay import HostReplay, step_layout
from dreamer_agent.specs import ArraySpec
from dreamer_agent.world_model import RSSM, Latent, WorldModel
from dreamer_agent.world_model.latent import Categoricals, GaussianLatent, Gaussians, latent_kind
from tests.compiling import quick_jit
from tests.conftest import small_config

KEY = jax.random.PRNGKey(0)
RNG = np.random.default_rng(1)
KINDS = {"categorical": Categoricals(4, 5, 0.01), "gaussian": Gaussians(4)}


def drawn(kind, *batch):
    """Random latents of one kind."""
    statistics = jnp.asarray(RNG.normal(size=(*batch, kind.stoch, kind.outputs)), jnp.float32)
    stoch = kind.chosen(kind.noise(KEY, statistics.shape[:-1]), statistics)
    return kind.join(jnp.asarray(RNG.normal(size=(*batch, 8)), jnp.float32), stoch)


@pytest.mark.parametrize("name", KINDS)
def test_a_latent_comes_back_from_its_stored_form(name):
    kind = KINDS[name]
    latent = drawn(kind, 3, 2)
    back = kind.unpack(jax.tree.map(np.asarray, latent.pack()), jnp.float32)
    assert type(back) is type(latent) is type(kind.initial(latent.deter))
    np.testing.assert_array_equal(back.deter, latent.deter)
    np.testing.assert_allclose(back.stoch, latent.stoch, atol=1e-6)
    assert latent.features.shape == (3, 2, 8 + latent.flat.shape[-1])
    kept = latent.masked(jnp.array([[True, False]] * 3))
    np.testing.assert_array_equal(kept.deter[:, 1], 0)
    np.testing.assert_array_equal(kept.stoch[:, 0], latent.stoch[:, 0])


@pytest.mark.parametrize("name", KINDS)
def test_a_latent_comes_back_from_the_replay(name):
    kind = KINDS[name]
    latents = drawn(kind, 2, 12)  # two environments
    layout = {key: (x.shape[2:], x.dtype) for key, x in latents.pack().items()}
    replay = HostReplay(
        step_layout({"x": ((1,), np.float32)}, {"a": ((), np.int32)}, layout), num_envs=2, capacity=40,
        batch_size=3, batch_length=4, seed=0,
    )  # fmt: skip
    packed = jax.tree.map(np.asarray, latents.pack())
    for t in range(12):
        flags = {key: np.zeros(2, bool) for key in ("is_first", "is_last", "is_terminal")}
        replay.add(
            {
                "obs": {"x": np.array([[t], [t + 100]], np.float32)}, "action": {"a": np.zeros(2, np.int32)},
                "reward": np.zeros(2, np.float32), **flags, "latent": {k: x[:, t] for k, x in packed.items()},
            }
        )  # fmt: skip
    batch, _ = replay.sample()
    back = kind.unpack(batch["latent"], jnp.float32)
    env, time = np.divmod(batch["obs"]["x"][..., 0].astype(int), 100)
    np.testing.assert_array_equal(back.deter, np.asarray(latents.deter)[env, time])
    np.testing.assert_allclose(back.stoch, np.asarray(latents.stoch)[env, time], atol=1e-6)
    assert back.stoch.shape == (3, 5, *latents.stoch.shape[2:]) and type(back) is type(latents)


@pytest.mark.parametrize(("cell", "latent"), [("gru", "gaussian"), ("norm_gru", "categorical")])
def test_steps_equal_a_sequence_with_every_cell(cell, latent):
    config = small_config(f"model.cell={cell}", f"model.latent={latent}", "model.norm=none").model
    rssm = RSSM.create(config, jnp.float32)
    actions, tokens = (jnp.asarray(RNG.normal(size=(3, 4, n)), jnp.float32) for n in (2, 5))
    first = jnp.zeros((3, 4), bool).at[1, 2].set(True)
    params = jax.jit(rssm.init)(KEY, actions[:1, 0], tokens[:1, 0])
    whole, statistics = quick_jit(rssm.observe)(params, KEY, rssm.initial(3), actions, tokens, first)
    step, state = quick_jit(rssm.observe_step), rssm.initial(3)
    for t, key in enumerate(jax.random.split(KEY, 4)):
        state, raw = step(params, key, state, actions[:, t], tokens[:, t], first[:, t])
        np.testing.assert_allclose(state.deter, whole.deter[:, t], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state.stoch, whole.stoch[:, t], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(raw, statistics[:, t], rtol=1e-4, atol=1e-5)


def test_gaussian_std_and_sample_by_hand():
    kind = Gaussians(2)
    statistics = jnp.array([[1.0, 0.0], [-2.0, 3.0]])
    dist = kind.distribution(statistics)
    std = np.log1p(np.exp([0.0, 3.0])) + 0.1
    np.testing.assert_allclose(dist.std, std, rtol=1e-6)
    noise = jnp.array([0.5, -1.0])
    np.testing.assert_allclose(kind.chosen(noise, statistics), [1.0 + 0.5 * std[0], -2.0 - std[1]], rtol=1e-6)
    slope = jax.jacobian(lambda s: kind.chosen(noise, s))(statistics)
    np.testing.assert_allclose(slope[0, 0], [1.0, 0.5 * 0.5], rtol=1e-6)  # d softplus(0) = 1/2


def test_gaussian_kl_is_the_closed_form():
    mean, std, other_mean, other_std = RNG.normal(size=(4, 3, 2))
    std, other_std = np.exp(std), np.exp(other_std)
    one, other = (Normal(*map(jnp.float32, pair), 1) for pair in ((mean, std), (other_mean, other_std)))
    expected = np.log(other_std / std) + (std**2 + (mean - other_mean) ** 2) / (2 * other_std**2) - 0.5
    np.testing.assert_allclose(one.kl(other), expected.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(one.kl(one), 0.0, atol=1e-6)


def test_the_models_latents_are_of_the_kind_that_was_asked_for():
    for name, kind in (("categorical", Latent), ("gaussian", GaussianLatent)):
        config = small_config(f"model.latent={name}").model
        rssm = RSSM.create(config, jnp.float32)
        params = jax.eval_shape(rssm.init, KEY, jnp.zeros((1, 2)), jnp.zeros((1, 3)))
        latent = jax.eval_shape(rssm.imagine_step, params, KEY, rssm.initial(5), jnp.zeros((5, 2)))
        assert type(latent) is kind and type(rssm.initial(5)) is kind
        assert jax.tree.map(jnp.shape, latent) == jax.tree.map(jnp.shape, rssm.initial(5))
        assert latent_kind(config).outputs == {"categorical": config.classes, "gaussian": 2}[name]


def kl_model(kind, free_nats_of="step"):
    """A model whose prior is what its parameters say."""
    obs, act = {"x": ArraySpec("continuous", (1,))}, {"a": ArraySpec("discrete", (), 2)}
    model = WorldModel.create(obs, act, small_config().model, jnp.float32, free_nats_of)
    prior = Net(lambda *_: None, lambda params, deter: params)
    return dataclasses.replace(model, rssm=SimpleNamespace(prior=prior, distribution=kind.distribution))


def kl_loss(model, prior, posterior, dyn, rep, free=0.0):
    """The scaled KL losses, and their gradients by the prior and the posterior."""

    @quick_jit
    def both(prior, posterior, dyn, rep, free):
        def loss(prior, posterior):
            losses, _ = model.kl_losses({"rssm": {"prior": prior}}, SimpleNamespace(deter=None), posterior, free)
            return dyn * losses["dyn"].mean() + rep * losses["rep"].mean()

        return jax.value_and_grad(loss, (0, 1))(prior, posterior)

    return both(prior, posterior, dyn, rep, jnp.float32(free))


def test_each_kl_loss_trains_one_side_only():
    for kind in KINDS.values():
        prior, posterior = (jnp.asarray(RNG.normal(size=(6, 4, kind.outputs)), jnp.float32) for _ in range(2))
        by_prior, by_posterior = kl_loss(kl_model(kind), prior, posterior, 1.0, 0.0)[1]
        assert np.abs(by_prior).max() > 0 and not by_posterior.any()
        by_prior, by_posterior = kl_loss(kl_model(kind), prior, posterior, 0.0, 1.0)[1]
        assert np.abs(by_posterior).max() > 0 and not by_prior.any()


def test_balance_is_a_pair_of_scales_by_hand():
    kind = Categoricals(1, 3, 0.0)
    prior, posterior = jnp.array([[[0.0, 1.0, -1.0]]]), jnp.array([[[2.0, 0.0, 0.5]]])
    q, p = (np.exp(x) / np.exp(x).sum() for x in (np.asarray(prior[0, 0]), np.asarray(posterior[0, 0])))
    kl = (p * np.log(p / q)).sum()
    loss, (by_prior, by_posterior) = kl_loss(kl_model(kind), prior, posterior, 0.8, 0.2)
    assert float(loss) == pytest.approx(kl, rel=1e-5)  # 0.8 KL + 0.2 KL
    np.testing.assert_allclose(by_prior[0, 0], 0.8 * (q - p), rtol=1e-4)
    np.testing.assert_allclose(by_posterior[0, 0], 0.2 * p * (np.log(p / q) - kl), rtol=1e-4)


def test_equal_scales_are_the_plain_kl_of_v1():
    kind = Gaussians(2)
    prior, posterior = (jnp.asarray(RNG.normal(size=(3, 2, 2)), jnp.float32) for _ in range(2))

    def plain(a, b):
        return kind.distribution(b).kl(kind.distribution(a)).mean()

    split = kl_loss(kl_model(kind, "mean"), prior, posterior, 1.0, 1.0)[1]
    for one, other in zip(quick_jit(jax.grad(plain, (0, 1)))(prior, posterior), split, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)


def test_free_nats_of_the_mean_and_of_every_step_by_hand():
    # Normals with std 1 that lie apart: KLs of 0.5 d^2 = 0.5 and 3.5, whose mean is 2.
    raw = float(np.log(np.expm1(0.9)))
    prior = jnp.array([[[0.0, raw]], [[0.0, raw]]])
    posterior = prior.at[:, 0, 0].set(jnp.sqrt(jnp.array([1.0, 7.0])))
    kind = Gaussians(1)

    def both(free_nats_of, free):
        loss, (moved, _) = kl_loss(kl_model(kind, free_nats_of), prior, posterior, 1.0, 0.0, free)
        return float(loss), np.abs(moved[:, 0, 0]) > 0

    for free_nats_of, free, loss, trained in (
        ("step", 1.0, (1.0 + 3.5) / 2, [False, True]), ("mean", 1.0, 2.0, [True, True]),
        ("mean", 3.0, 3.0, [False, False]), ("step", 3.0, (3.0 + 3.5) / 2, [False, True]),
    ):  # fmt: skip
        value, moved = both(free_nats_of, free)
        assert value == pytest.approx(loss, rel=1e-4) and moved.tolist() == trained
