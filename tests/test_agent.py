"""The learner as three pure functions: traced once, repeatable, and able to learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.agent import Agent
from dreamer_agent.distributions import Number
from dreamer_agent.hyper import weighted_sum
from dreamer_agent.specs import ArraySpec
from tests.compiling import quick_jit
from tests.conftest import Learner, random_batch, small_config


def with_hyper(state, **numbers):
    return state._replace(hyper=state.hyper | jax.tree.map(jnp.float32, numbers))


def equal(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


@pytest.fixture(scope="module")
def batch(learner):
    return random_batch(learner.agent)


@pytest.fixture(scope="module")
def state(learner):
    """Past the warm-up, so that an update moves the parameters."""
    return learner.state._replace(step=jnp.int32(1000))


@pytest.fixture(scope="module")
def act(learner):
    return quick_jit(learner.agent.act)


def test_update_traces_once(learner, batch):
    state = learner.state
    for seed in range(5):
        state, _, _ = learner.update(state, random_batch(learner.agent, seed))
    assert learner.traces == 1
    assert state.step == 5


@pytest.mark.parametrize(
    "numbers",
    [
        {"learning_rate": 1e-2},
        {"warmup": 1e6},
        {"entropy": 1.0},
        {"discount_horizon": 10.0},
        {"free_nats": 0.0},
        {"slow_critic_rate": 0.5},
        {"return_rate": 0.5},
        {"lambda": 0.3},
        {"average": 1.0},
    ],
    ids=lambda numbers: next(iter(numbers)),
)
def test_hyper_parameters_are_data(learner, state, batch, numbers):
    # After one update the critic is no longer zero, so that every number has something to act on.
    state = learner.update(with_hyper(state, learning_rate=1e-3), batch)[0]
    one = learner.update(state, batch)[0]
    other = learner.update(with_hyper(state, **numbers), batch)[0]
    assert learner.traces == 1
    fields = ("params", "slow_critic", "average", "norm")
    assert not equal([getattr(one, f) for f in fields], [getattr(other, f) for f in fields])


def test_scales_are_data(learner, state, batch):
    before = learner.update(state, batch)[0].params
    for key in state.hyper["scales"]:
        scales = state.hyper["scales"] | {key: jnp.float32(7.0)}
        after = learner.update(state._replace(hyper=state.hyper | {"scales": scales}), batch)[0].params
        assert not equal(before, after), key
    assert learner.traces == 1


def test_same_seed_gives_the_same_bits(learner, state, batch):
    again = jax.jit(learner.agent.init)(jax.random.PRNGKey(0))
    assert equal(again, learner.state)
    assert equal(learner.update(state, batch), learner.update(state, batch))


def test_another_seed_gives_other_numbers(learner, state, batch):
    other = jax.jit(learner.agent.init)(jax.random.PRNGKey(1))
    assert not equal(other.params, learner.state.params)
    assert not equal(learner.update(state, batch)[1], learner.update(state._replace(key=other.key), batch)[1])


def test_every_update_draws_anew(learner, state, batch):
    later = state._replace(step=state.step + 1)
    assert not equal(learner.update(state, batch)[1], learner.update(later, batch)[1])


def test_world_model_overfits_one_batch(learner, batch):
    state = with_hyper(learner.state, learning_rate=3e-3, warmup=0.0)
    history = []
    for _ in range(80):
        state, _, metrics = learner.update(state, batch)
        history.append({key: float(value) for key, value in metrics.items() if key.startswith("loss/")})
    for name in ("rec/vector", "rec/integer", "reward", "continue"):
        first, last = (np.mean([row[f"loss/{name}"] for row in rows]) for rows in (history[:5], history[-5:]))
        assert last < 0.8 * first, (name, first, last)


def test_metrics_are_finite_numbers(learner, state, batch):
    new, latents, metrics = learner.update(state, batch)
    names = {f"loss/{key}" for key in state.hyper["scales"]}
    assert names | {"optimizer/gradient_norm", "optimizer/rate", "behaviour/return", "model/kl"} <= set(metrics)
    for key, value in metrics.items():
        assert value.shape == () and np.isfinite(value), key
    assert latents.deter.shape == (4, 8, 32) and latents.stoch.shape == (4, 8, 4, 4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((new.params, new.optimizer, latents)))
    assert metrics["loss/dyn"] == metrics["loss/rep"]


def test_rate_is_the_warmed_up_one(learner, batch):
    state = with_hyper(learner.state, learning_rate=0.5, warmup=10.0)._replace(step=jnp.int32(3))
    np.testing.assert_allclose(learner.update(state, batch)[2]["optimizer/rate"], 0.15, rtol=1e-6)


def test_slow_critic_follows_by_two_percent(learner, state, batch):
    old = state.slow_critic
    new = learner.update(with_hyper(state, learning_rate=1e-2), batch)[0]
    for slow, was, fast in zip(*map(jax.tree.leaves, (new.slow_critic, old, new.params["critic"])), strict=True):
        np.testing.assert_allclose(slow, 0.98 * np.asarray(was) + 0.02 * np.asarray(fast), rtol=1e-4, atol=1e-7)
    assert not equal(new.slow_critic, old)
    assert equal(learner.state.slow_critic, learner.state.params["critic"])


def test_parameters_are_averaged_over_a_window_that_grows_with_the_updates(learner, batch):
    state = with_hyper(learner.state, learning_rate=1e-2, warmup=0.0, average=3.0)
    assert equal(state.average, state.params)
    seen = []
    for step in (0, 1, 10, 1000):  # the windows: 1, 1.1, 2 and 3, which 101 would be without its limit
        state = learner.update(state._replace(step=jnp.int32(step)), batch)[0]
        seen.append((state.params, state.average))
    for leaves in zip(*(jax.tree.leaves(tree) for pair in seen for tree in pair), strict=True):
        p1, a1, p2, a2, p3, a3, p4, a4 = map(np.asarray, leaves)
        np.testing.assert_allclose(a1, p1, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(a2, a1 + (p2 - a1) / 1.1, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(a3, a2 + (p3 - a2) / 2, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(a4, a3 + (p4 - a3) / 3, rtol=1e-4, atol=1e-6)
    assert learner.traces == 1


def test_an_average_over_one_update_is_the_parameters(learner, state, batch):
    new = learner.update(with_hyper(state, learning_rate=1e-2, average=1.0), batch)[0]
    for mean, now in zip(*map(jax.tree.leaves, (new.average, new.params)), strict=True):
        np.testing.assert_allclose(mean, now, rtol=1e-5, atol=1e-7)


def test_the_average_changes_nothing_that_is_learned(learner, state, batch):
    one, other = (learner.update(with_hyper(state, average=n), batch) for n in (1.0, 50.0))
    assert equal(one[0]._replace(average=None, hyper=None), other[0]._replace(average=None, hyper=None))
    assert equal(one[1:], other[1:])


def test_loss_without_a_scale_is_named(learner, state, batch):
    scales = {key: value for key, value in state.hyper["scales"].items() if key != "dyn"} | {"typo": jnp.ones(())}
    wrong = state._replace(hyper=state.hyper | {"scales": scales})
    with pytest.raises(ValueError, match=r"without one are \['dyn'\].*without a loss \['typo'\]"):
        jax.eval_shape(learner.agent.update, wrong, batch)


def test_weighted_sum_by_hand():
    losses = {"a": jnp.array([[1.0, 3.0]]), "b": jnp.array([[10.0, 20.0]])}
    assert weighted_sum(losses, {"a": jnp.float32(0.5), "b": jnp.float32(0.1)}) == pytest.approx(2.5)
    with pytest.raises(ValueError, match=r"shape \[B, T\]"):
        weighted_sum(losses | {"b": jnp.ones(2)}, {"a": jnp.ones(()), "b": jnp.ones(())})


def test_states_with_different_rates_update_under_vmap(learner, state, batch):
    states = [with_hyper(state, learning_rate=rate) for rate in (1e-3, 1e-2)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    together, _, metrics = quick_jit(jax.vmap(learner.agent.update, (0, None)))(stacked, batch)
    close = []
    for i, single in enumerate(states):
        alone, _, expected = learner.update(single, batch)
        for key in ("loss/rec/vector", "loss/reward", "loss/dyn", "loss/value", "optimizer/rate"):
            np.testing.assert_allclose(metrics[key][i], expected[key], rtol=1e-3)
        for a, b in zip(jax.tree.leaves(alone.params), jax.tree.leaves(together.params), strict=True):
            close.append(np.isclose(a, b[i], rtol=1e-3, atol=1e-4).ravel())
    # A first update has the size of the rate whatever the gradient's: rounding may turn a vanishing one around.
    assert np.concatenate(close).mean() > 0.99
    assert not equal(*(jax.tree.map(lambda x, i=i: x[i], together.params) for i in range(2)))


def draw_obs(seed, rows=3):
    rng = np.random.default_rng(seed)
    return {
        "vector": rng.normal(size=(rows, 3)).astype(np.float32),
        "integer": rng.integers(0, 4, rows).astype(np.int32),
    }


def act_some(learner, act, explore, key=0, first=(True, True, True), carry=None, params=None):
    carry = learner.agent.init_act(3) if carry is None else carry
    params = learner.state.params if params is None else params
    return act(params, jax.random.PRNGKey(key), carry, draw_obs(0), np.array(first), np.array(explore))


def test_act_gives_actions_of_the_right_kind(learner, act):
    out = act_some(learner, act, explore=True)
    assert out.action["move"].shape == (3, 2) and out.action["move"].dtype == jnp.float32
    assert out.action["button"].shape == (3,) and out.action["button"].dtype == jnp.int32
    assert ((out.action["button"] >= 0) & (out.action["button"] < 3)).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))


def test_act_without_exploring_gives_the_mode(learner, act):
    for key in range(3):
        out = act_some(learner, act, explore=False, key=key)
        raw = learner.agent.nets.actor.apply(learner.state.params["actor"], out.latent.features)
        np.testing.assert_allclose(out.action["move"], np.tanh(raw["move"]["mean"]), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(out.action["button"], raw["button"]["logits"].argmax(-1))


def test_act_explores_by_sampling(learner, act):
    moves = np.concatenate([act_some(learner, act, explore=True, key=key).action["move"] for key in range(100)])
    # Near the start the mean is about 0 and the std 0.9 sigmoid(2) + 0.1.
    assert moves.mean() == pytest.approx(0.0, abs=0.15)
    assert moves.std() == pytest.approx(0.9 / (1 + np.exp(-2.0)) + 0.1, abs=0.1)
    buttons = np.concatenate(
        [act_some(learner, act, explore=True, key=key).action["button"] for key in range(100)]
    )
    np.testing.assert_allclose(np.bincount(buttons, minlength=3) / 300, 1 / 3, atol=0.12)


def test_act_forgets_at_the_start_of_an_episode(learner, act):
    one = act_some(learner, act, explore=True, key=1)
    fresh = act_some(learner, act, explore=True, key=2)
    after = act_some(learner, act, explore=True, key=2, first=(True, False, True), carry=one)
    same = (np.asarray(after.latent.deter) == np.asarray(fresh.latent.deter)).all(-1)
    np.testing.assert_array_equal(same, [True, False, True])


def test_act_starts_with_no_memory(learner):
    carry = learner.agent.init_act(3)
    assert carry.latent.deter.shape == (3, 32)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(carry))


MIXED_OBS = {
    "camera": ArraySpec("image", (16, 12, 3)),
    "pose": ArraySpec("continuous", (3,)),
    "slots": ArraySpec("discrete", (2,), 4),
}
MIXED_ACT = {"move": ArraySpec("continuous", (2,)), "press": ArraySpec("discrete", (), 3)}


@pytest.mark.parametrize("encoder", ["linen", "haiku"])
def test_images_vectors_and_integers_train_together(encoder):
    mixed = Learner(small_config(f"model.encoder={encoder}"), MIXED_OBS, MIXED_ACT)
    state, latents, metrics = mixed.update(mixed.state, random_batch(mixed.agent))
    assert {f"loss/rec/{key}" for key in MIXED_OBS} <= set(metrics)
    assert all(np.isfinite(float(value)) for value in metrics.values())
    assert latents.stoch.shape == (4, 8, 4, 4)
    assert int(state.step) == 1


def test_bfloat16_computes_in_it_and_keeps_the_state_in_float32():
    agent = Agent.create(small_config("precision=bfloat16"), MIXED_OBS, MIXED_ACT)
    state = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
    new, latents, metrics = jax.eval_shape(agent.update, state, random_batch(agent))
    assert {x.dtype for x in jax.tree.leaves(latents)} == {np.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves((new.params, new.slow_critic))} == {np.dtype(np.float32)}
    assert {x.dtype for x in metrics.values()} == {np.dtype(np.float32)}
    kinds = jax.tree.map(lambda x: (x.shape, x.dtype), (state, new))
    assert kinds[0] == kinds[1]


def test_pieces_of_v3_can_be_switched_off(learner, batch):
    off = ["model.twohot=false", "model.symlog=false", "behaviour.return_norm=false", "loss.free_nats=0"]
    model = learner.agent.model
    other = Learner(small_config(*off), model.obs_specs, model.act_specs)
    params = other.state.params
    features = jnp.zeros((2, 4 * 4 + 32))
    reward = other.agent.model.predict_reward(params, features)
    for head in (reward, other.agent.nets.value(params["critic"], features)):
        assert isinstance(head, Number) and head.mean().tolist() == [0.0, 0.0]
    state = with_hyper(other.state._replace(step=jnp.int32(1000)), learning_rate=1e-3)
    history = []
    for _ in range(30):
        state, _, metrics = other.update(state, batch)
        history.append({key: float(value) for key, value in metrics.items()})
    assert all(np.isfinite(list(row.values())).all() for row in history)
    for name in ("loss/rec/vector", "loss/reward"):
        assert history[-1][name] < history[0][name], name
