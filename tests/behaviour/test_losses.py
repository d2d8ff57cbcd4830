"""Actor and critic losses against hand-worked numbers, and which parameters each of them trains."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent import ops
from dreamer_agent.agent import Agent
from dreamer_agent.behaviour import ActorCritic, behaviour_losses, replay_value_loss
from dreamer_agent.behaviour.losses import (
    Imagined,
    actor_loss,
    critic_loss,
    evaluate_trajectory,
    flatten_rows,
    unflatten_rows,
)
from dreamer_agent.distributions import Bernoulli, TwoHot
from dreamer_agent.nets import Net
from dreamer_agent.specs import ArraySpec
from dreamer_agent.world_model import Trajectory
from tests.conftest import random_batch, small_config

BINS = ops.symexp_bins(7, limit=2.0)
ACT = {"button": ArraySpec("discrete", (), 2), "move": ArraySpec("continuous", (2,))}


class Exact(SimpleNamespace):
    """A head that has already answered: `mean()` is the number itself."""

    def mean(self):
        return self.value


def tabular_nets():
    """Actor outputs and the critic's logits given as parameters."""
    actor = Net(lambda *_: None, lambda raw, features: raw)
    critic = Net(lambda *_: None, lambda logits, features: jnp.broadcast_to(logits, (*features.shape[:-1], 7)))
    return ActorCritic(actor, critic, ACT, BINS)


# Features of a pretended model: reward, continue logit.
MODEL = SimpleNamespace(
    predict_reward=lambda params, features: Exact(value=features[..., 0]),
    predict_continue=lambda params, features: Bernoulli(features[..., 1]),
    imagined_legal=lambda params, features: None,
)


def trajectory_of(reward, cont, actions=None):
    """Imagined steps whose rewards and continues are given by rollout, `[N, H + 1]`."""
    cont = np.clip(np.asarray(cont, np.float64), 1e-12, 1 - 1e-12)
    features = jnp.asarray(np.stack([reward, np.log(cont / (1 - cont))], -1), jnp.float32).swapaxes(0, 1)
    return Trajectory(features[:-1], actions or {}, features[-1])


def evaluated(reward, cont, value, lambda_):
    """`evaluate_trajectory` with everything by rollout: `[N, H + 1]` in, `[N, H]` out."""
    value = jnp.asarray(value, jnp.float32).T
    trajectory = trajectory_of(reward, cont)
    imagined = evaluate_trajectory(MODEL, {}, trajectory, value[:-1], value[-1], jnp.float32(lambda_))
    return Imagined(*(x.T for x in imagined))


def softmax(logits):
    weights = np.exp(np.asarray(logits, np.float64))
    return weights / weights.sum(-1, keepdims=True)


def twohot_cross_entropy(target, logits):
    """Written out: interpolate `target` between its neighbouring bins."""
    log_p = np.log(softmax(logits))
    target = np.clip(target, BINS[0], BINS[-1])
    above = int(np.clip(np.searchsorted(BINS, target), 1, len(BINS) - 1))
    share = (target - BINS[above - 1]) / (BINS[above] - BINS[above - 1])
    return -((1 - share) * log_p[above - 1] + share * log_p[above])


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_rows_are_flattened_part_by_part_and_back(parts: int) -> None:
    x = jnp.arange(2 * 6 * 3).reshape(2, 6, 3)
    flat = flatten_rows(x, parts)
    np.testing.assert_array_equal(unflatten_rows(flat, 2, parts), x)
    first = x[:, : 6 // parts].reshape(-1, 3)  # the rows of the first device, as they lie there
    np.testing.assert_array_equal(flat[: len(first)], first)
    np.testing.assert_array_equal(unflatten_rows(flatten_rows(x[..., 0], parts), 2, parts), x[..., 0])


def test_weights_are_the_products_of_the_continues():
    cont = [[0.9, 0.5, 0.8, 0.3], [1.0, 0.0, 1.0, 1.0]]
    imagined = evaluated(np.zeros((2, 4)), cont, np.zeros((2, 4)), 0.95)
    np.testing.assert_allclose(imagined.weights, [[0.9, 0.45, 0.36], [1.0, 0.0, 0.0]], rtol=1e-5, atol=1e-6)


def test_imagined_returns_by_hand():
    reward, cont, value = [[9.0, 1.0, 2.0]], [[0.5, 0.8, 0.5]], [[7.0, 10.0, 20.0]]
    imagined = evaluated(reward, cont, value, 0.5)
    # R_1 = 2 + 0.5 * 20 = 12; R_0 = 1 + 0.8 (0.5 * 10 + 0.5 * 12) = 9.8. Reward and continue of the start play
    # no part in the returns.
    np.testing.assert_allclose(imagined.returns, [[9.8, 12.0]], rtol=1e-5)
    np.testing.assert_allclose(imagined.values, [[7.0, 10.0]])


def test_evaluation_of_a_trajectory_carries_no_gradient():
    def total(reward, cont, value):
        path = Trajectory(jnp.stack([reward, cont], -1)[:-1], {}, jnp.stack([reward, cont], -1)[-1])
        return sum(x.sum() for x in evaluate_trajectory(MODEL, {}, path, value[:-1], value[-1], jnp.float32(0.5)))

    numbers = jnp.ones((3, 2))
    for gradient in jax.grad(total, (0, 1, 2))(numbers, numbers, numbers):
        np.testing.assert_array_equal(gradient, 0.0)


# Two steps of one rollout.
RAW = {
    "button": {"logits": jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5]]))},
    "move": {"mean": jnp.zeros((2, 2)), "std": jnp.full((2, 2), -2.0)},  # std 0.9 / 2 + 0.1 = 0.55
}
ACTIONS = {"button": jnp.array([1, 0]), "move": jnp.array([[0.55, 0.0], [0.0, 0.0]])}
IMAGINED = Imagined(
    returns=jnp.array([[5.0], [1.0]]), values=jnp.array([[1.0], [3.0]]), weights=jnp.array([[1.0], [0.5]])
)


def policy_of(raw):
    return tabular_nets().policy(raw, jnp.zeros((2, 2)))


def test_actor_loss_by_hand():
    loss, metrics = actor_loss(
        policy_of(RAW), IMAGINED, ACTIONS, scale=jnp.float32(2.0), entropy=jnp.float32(0.1)
    )
    density = -2 * np.log(0.55) - np.log(2 * np.pi)  # of two normals at their mean
    log_prob = np.array([np.log(0.75) + density - 0.5, np.log(0.5) + density])
    spread = 2 * np.log(0.55) + np.log(2 * np.pi * np.e)
    entropy = np.array([-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)), np.log(2)]) + spread
    advantage = np.array([2.0, -1.0])
    expected = -np.array([1.0, 0.5]) * (log_prob * advantage + 0.1 * entropy)
    np.testing.assert_allclose(loss[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["behaviour/entropy"], entropy.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["behaviour/advantage"], 0.5, rtol=1e-5)
    np.testing.assert_allclose(metrics["behaviour/advantage_std"], 1.5, rtol=1e-5)


def test_actor_loss_raises_the_probability_of_better_actions():
    def loss(raw):
        return actor_loss(policy_of(raw), IMAGINED, ACTIONS, jnp.float32(1), jnp.float32(0))[0].sum()

    gradient = jax.grad(loss)(RAW)
    # d/dlogits of -w A log p(a) = -w A (onehot(a) - p): A = 4 for action 1, then A = -2 for action 0 at w = 0.5.
    expected = [[1.0, -1.0], [0.5, -0.5]]
    np.testing.assert_allclose(gradient["button"]["logits"], expected, rtol=1e-4)
    # d/dmean of -w A log N(a) = -w A (a - mean) / std²: only the first action lies off its mean.
    np.testing.assert_allclose(gradient["move"]["mean"], [[-4 / 0.55, 0], [0, 0]], rtol=1e-4, atol=1e-5)


def test_critic_loss_by_hand():
    logits = np.array([0.1, -0.2, 0.3, 0.4, -0.5, 0.0, 1.0], np.float32)
    slow = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0], np.float32)
    slow_mean = (softmax(slow) * BINS).sum()
    target = np.array([0.3, -2.0, 1e6])
    rows = (jnp.tile(jnp.asarray(x), (3, 1)) for x in (logits, slow))
    loss = critic_loss(*(TwoHot(x, BINS) for x in rows), jnp.asarray(target))
    expected = [twohot_cross_entropy(t, logits) + twohot_cross_entropy(slow_mean, logits) for t in target]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_critic_loss_has_no_gradient_by_target_or_slow_critic():
    def loss(logits, slow, target):
        return critic_loss(TwoHot(logits[None], BINS), TwoHot(slow[None], BINS), target).sum()

    logits = jnp.linspace(-1.0, 1.0, 7)
    by_logits, by_slow, by_target = jax.grad(loss, (0, 1, 2))(logits, logits, jnp.array([0.3]))
    assert np.abs(by_logits).max() > 0
    np.testing.assert_array_equal(by_slow, 0.0)
    np.testing.assert_array_equal(by_target, 0.0)


def test_behaviour_losses_average_over_the_horizon():
    # The same critic everywhere: equal values, so that only rewards make advantages.
    logits = jnp.zeros(7)
    reward, cont = np.array([[0.0, 1.0, 2.0], [0.0, 8.0, 0.0]]), np.array([[0.5, 0.5, 0.5], [0.8, 0.8, 0.8]])
    # Both rollouts take the same actions; rows are time first.
    raw = jax.tree.map(lambda x: jnp.repeat(x, 2, 0), RAW)
    actions = jax.tree.map(lambda x: jnp.stack([x, x], 1), ACTIONS)
    hyper = {"lambda": jnp.float32(1.0), "return_rate": jnp.float32(1.0), "entropy": jnp.float32(0.0)}
    given = (
        MODEL, tabular_nets(), {"actor": raw, "critic": logits}, logits, ops.PercentileRange.zeros(),
        trajectory_of(reward, cont, actions), hyper,
    )  # fmt: skip
    losses, first, norm, metrics = behaviour_losses(*given)
    returns = np.array([[1 + 0.5 * 2, 2.0], [8.0, 0.0]])
    np.testing.assert_allclose(first, returns[:, 0], rtol=1e-5)
    low, high = np.percentile(returns, [5, 95])
    np.testing.assert_allclose([norm.low, norm.high], [low, high], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["behaviour/return_scale"], high - low, rtol=1e-5)
    weights = np.array([[0.5, 0.25], [0.8, 0.64]])
    density = -2 * np.log(0.55) - np.log(2 * np.pi)
    log_prob = np.array([np.log(0.75) + density - 0.5, np.log(0.5) + density])
    np.testing.assert_allclose(
        losses["policy"], -(weights * log_prob * returns / (high - low)).mean(1), rtol=1e-4
    )
    np.testing.assert_allclose(losses["value"], weights.mean(1) * 2 * np.log(7), rtol=1e-5)
    unscaled = behaviour_losses(*given, normalised=False)[0]
    np.testing.assert_allclose(unscaled["policy"], losses["policy"] * (high - low), rtol=1e-4)
    np.testing.assert_array_equal(unscaled["value"], losses["value"])


def replay_value_in_python(logits, batch, bootstrap, gamma, lambda_):
    """The loss row by row, written out: targets backwards, then cross-entropy where a successor exists."""
    rows, length = batch["reward"].shape
    out = np.zeros((rows, length))
    slow_mean = (softmax(logits) * BINS).sum()
    for b in range(rows):
        target = bootstrap[b, -1]
        for t in reversed(range(length - 1)):
            n = t + 1
            keep = 0.0 if batch["is_last"][b, n] else lambda_
            live = 0.0 if batch["is_terminal"][b, n] else gamma
            target = batch["reward"][b, n] + live * ((1 - keep) * bootstrap[b, n] + keep * target)
            if not batch["is_last"][b, t]:
                out[b, t] = twohot_cross_entropy(target, logits) + twohot_cross_entropy(slow_mean, logits)
    return out * length / (length - 1)


LOGITS = np.array([0.1, -0.2, 0.3, 0.4, -0.5, 0.0, 1.0], np.float32)


def replay_case():
    """Rows: no end, a time limit at 2, a terminal at 2, a terminal in the first and a cut in the last column."""
    rng = np.random.default_rng(0)
    is_last, is_terminal = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    is_last[1, 2] = is_last[2, 2] = is_last[3, 0] = is_last[3, 4] = True
    is_terminal[2, 2] = is_terminal[3, 0] = True
    batch = {"reward": rng.normal(size=(4, 5)).astype(np.float32), "is_last": is_last, "is_terminal": is_terminal}
    return batch, rng.normal(size=(4, 5)).astype(np.float32) * 3


def replay_value(batch, bootstrap, gamma=0.9, lambda_=0.8):
    latents = SimpleNamespace(features=jnp.zeros((*bootstrap.shape, 3)))
    logits = jnp.asarray(LOGITS)
    return replay_value_loss(
        tabular_nets(), {"critic": logits}, logits, latents, jax.tree.map(jnp.asarray, batch),
        jnp.asarray(bootstrap), jnp.float32(gamma), jnp.float32(lambda_),
    )  # fmt: skip


def test_replay_value_loss_equals_the_recursion():
    batch, bootstrap = replay_case()
    loss = np.asarray(replay_value(batch, bootstrap))
    np.testing.assert_allclose(loss, replay_value_in_python(LOGITS, batch, bootstrap, 0.9, 0.8), rtol=1e-4)
    np.testing.assert_array_equal(loss == 0, batch["is_last"] | (np.arange(5) == 4))


def test_replay_value_loss_by_hand():
    zeros = np.zeros((1, 2), bool)
    batch = {"reward": np.array([[50.0, 1.0]], np.float32), "is_last": zeros, "is_terminal": zeros}
    loss = replay_value(batch, np.array([[77.0, 2.0]], np.float32))
    # One valid column: R_0 = 1 + 0.9 * 2, scaled by T / (T - 1) = 2.
    slow = twohot_cross_entropy((softmax(LOGITS) * BINS).sum(), LOGITS)
    np.testing.assert_allclose(loss, [[2 * (twohot_cross_entropy(2.8, LOGITS) + slow), 0.0]], rtol=1e-5)


def test_truncation_bootstraps_and_termination_does_not():
    batch, bootstrap = replay_case()
    before = np.asarray(replay_value(batch, bootstrap))
    bootstrap[1:3, 2] += 1.0
    after = np.asarray(replay_value(batch, bootstrap))
    assert (after[1, :2] != before[1, :2]).all()
    np.testing.assert_array_equal(after[2], before[2])


def test_next_episode_does_not_enter_the_replayed_return():
    batch, bootstrap = replay_case()
    before = np.asarray(replay_value(batch, bootstrap))
    batch["reward"][1:3, 3:] += 5.0
    bootstrap[1:3, 3:] -= 5.0
    after = np.asarray(replay_value(batch, bootstrap))
    np.testing.assert_array_equal(after[1:3, :2], before[1:3, :2])
    assert (after[1:3, 3] != before[1:3, 3]).all()


@pytest.fixture(scope="module")
def trained(learner):
    """Which parameters move when only the named losses count. A zero gradient moves nothing, exactly."""
    rng = np.random.default_rng(0)
    # Heads that start at zero would hide gradients, so every parameter is moved away from its start.
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), learner.state.params)
    state = learner.state._replace(step=jnp.int32(1000), params=params)
    batch = random_batch(learner.agent)

    def moved(*names):
        scales = {key: jnp.float32(key in names) for key in state.hyper["scales"]}
        hyper = state.hyper | {"scales": scales, "learning_rate": jnp.float32(0.01), "free_nats": jnp.float32(0)}
        new = learner.update(state._replace(hyper=hyper), batch)[0]
        flat = jax.tree_util.tree_leaves_with_path(jax.tree.map(lambda a, b: (a != b).any(), params, new.params))
        groups = {}
        for path, leaf in flat:
            keys = [entry.key for entry in path]
            name = "/".join(keys[:2]) if keys[0] == "rssm" else keys[0]
            groups.setdefault(name, []).append(bool(leaf))
        assert all(len(set(values)) == 1 for name, values in groups.items() if name != "decoder"), groups
        return {name for name, values in groups.items() if any(values)}

    return moved


def test_actor_loss_trains_the_actor_only(trained):
    assert trained("policy") == {"actor"}


def test_critic_loss_trains_the_critic_only(trained):
    assert trained("value") == {"critic"}


def test_replay_value_loss_reaches_the_world_model(trained):
    assert trained("repval") == {"critic", "encoder", "rssm/cell", "rssm/posterior"}


def test_reconstruction_trains_what_lies_between_input_and_output(trained):
    model = {"encoder", "rssm/cell", "rssm/posterior"}
    assert trained("rec/vector") == trained("rec/integer") == model | {"decoder"}
    assert trained("reward") == model | {"reward"}
    assert trained("continue") == model | {"cont"}


def test_only_the_dynamics_loss_trains_the_prior(trained):
    model = {"encoder", "rssm/cell", "rssm/posterior"}
    assert trained("dyn") == model | {"rssm/prior"}
    assert trained("rep") == model


def test_no_loss_moves_nothing(trained):
    assert trained() == set()


def test_replay_value_loss_can_be_left_out():
    config = small_config("behaviour.replay_value_loss=false")
    agent = Agent.create(config, {"x": ArraySpec("continuous", (2,))}, ACT)
    state = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
    metrics = jax.eval_shape(agent.update, state, random_batch(agent))[2]
    assert "repval" not in state.hyper["scales"]
    assert "loss/value" in metrics and "loss/repval" not in metrics
