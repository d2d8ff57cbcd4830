"""What the actor learns by in V1, V2 and V3: gradients against hand-worked numbers and finite differences."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent import ops
from dreamer_agent.behaviour import ActionDistribution, ActorCritic, Rules, behaviour_losses, imagined_policy
from dreamer_agent.behaviour.losses import critic_loss
from dreamer_agent.behaviour.rules import dynamics, mix, reinforce
from dreamer_agent.config import BehaviourConfig
from dreamer_agent.distributions import Certain, Normal, Number
from dreamer_agent.nets import Net
from dreamer_agent.specs import ArraySpec
from dreamer_agent.world_model import imagine
from tests.compiling import quick_jit

PUSH = {"push": ArraySpec("continuous", (1,))}
PRESS = {"press": ArraySpec("discrete", (), 3)}
KEY = jax.random.PRNGKey(3)
DYNAMICS, REINFORCE = Rules(dynamics, True), Rules(reinforce)


class Point(NamedTuple):
    """The latent of a pretended model: one number, `[N, 1]`."""

    at: jax.Array

    @property
    def features(self):
        return self.at


class Line:
    """s' = s + w . a and a reward of s', times a number; nothing is random. Steps go on with 0.5."""

    dtype = jnp.float32

    def __init__(self, act_specs, reward=lambda s: s):
        self.act_specs, self.reward = act_specs, reward
        self.rssm = SimpleNamespace(
            imagine_step=lambda w, key, latent, action, heat: Point(
                latent.at + (action * w).sum(-1, keepdims=True)
            )
        )

    def predict_reward(self, params, features):
        return Number(params["reward"] * self.reward(features[..., 0]), False)

    def predict_continue(self, params, features):
        return Certain(jnp.full(features.shape[:-1], params["cont"]))

    def imagined_legal(self, params, features):
        return None


def policy_loss(params, nets, model, rules, horizon=2, start=1.0, lambda_=1.0, slow=None):
    """The mean over the horizon of the actor's loss of one rollout, and what else `behaviour_losses` gives."""
    policy = imagined_policy(model, nets, params, rules.differentiable)
    frozen = jax.lax.stop_gradient(params)
    path = imagine(model, frozen, policy, Point(jnp.full((1, 1), start)), KEY, horizon)
    hyper = {"lambda": jnp.float32(lambda_), "return_rate": jnp.float32(1), "entropy": jnp.float32(0)}
    losses, *_ = behaviour_losses(
        model, nets, params, params["critic"] if slow is None else slow, ops.PercentileRange.zeros(), path,
        hyper, normalised=False, rules=rules,
    )  # fmt: skip
    return losses["policy"].sum(), losses


def params_of(actor, **others):
    numbers = {"rssm": jnp.ones(1), "reward": 1.0, "cont": 0.5, "critic": 1.0} | others
    return {key: jnp.asarray(value, jnp.float32) for key, value in numbers.items()} | {"actor": actor}


def sure_nets():
    """An actor that does theta s, all but surely, and a critic whose value is its parameter times s."""
    return SimpleNamespace(
        act_specs=PUSH,
        policy=lambda theta, s, legal: ActionDistribution(
            {"push": Normal(theta * s, jnp.full(s.shape, 1e-6), 1)}
        ),
        value=lambda slope, s: Number(slope * s[..., 0], False),
    )


def test_gradient_through_the_model_by_hand():
    theta, c = 0.3, 0.5
    both = jax.value_and_grad(lambda t: policy_loss(params_of(t), sure_nets(), Line(PUSH), DYNAMICS)[0])
    value, gradient = quick_jit(both)(jnp.float32(theta))
    # s0 = 1, s1 = 1 + theta, s2 = s1 + theta s1; R_1 = s2 + c s2, R_0 = s1 + c R_1; weights c and c^2.
    s1 = 1 + theta
    s2 = s1 * (1 + theta)
    late = (1 + c) * s2
    assert value == pytest.approx(-(c * (s1 + c * late) + c**2 * late) / 2, rel=1e-4)
    # The actor does not learn by what it sees: d a1 / d theta = s1, not s1 + theta.
    by_s1, by_s2 = 1.0, 1.0 + s1
    expected = -(c * (by_s1 + c * (1 + c) * by_s2) + c**2 * (1 + c) * by_s2) / 2
    assert gradient == pytest.approx(expected, rel=1e-4)


def head_nets(distribution, act_specs):
    """The actor's outputs are its parameters whatever it sees, so that finite differences are its gradient."""

    def outputs(raw, features):
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (*features.shape[:-1], *x.shape)), raw)

    critic = Net(lambda *_: None, lambda slope, s: slope * s)
    return ActorCritic(
        Net(lambda *_: None, outputs), critic, act_specs, None, symlog=False, continuous=distribution
    )


@pytest.mark.parametrize("distribution", ["bounded_normal", "truncated_normal", "tanh_normal"])
def test_gradient_through_the_model_equals_finite_differences(distribution):
    model, nets = Line(PUSH, jnp.sin), head_nets(distribution, PUSH)

    def loss(raw):
        actor = {"push": {"mean": raw[:1], "std": raw[1:]}}
        return policy_loss(params_of(actor), nets, model, DYNAMICS, horizon=4, lambda_=0.7)[0]

    both = quick_jit(jax.value_and_grad(loss))
    raw, step = jnp.array([0.2, -0.4]), 0.01
    slopes = [(both(raw.at[i].add(step))[0] - both(raw.at[i].add(-step))[0]) / (2 * step) for i in range(2)]
    assert np.abs(slopes).min() > 1e-3
    np.testing.assert_allclose(both(raw)[1], slopes, rtol=0.02, atol=1e-4)


LOGITS = np.array([0.2, -0.5, 0.7])
WORTH = np.array([1.0, -2.0, 0.5])  # how far each choice moves


def choices_gradient(rules, **others):
    nets = head_nets("bounded_normal", PRESS)

    def loss(logits):
        params = params_of({"press": {"logits": logits}}, rssm=WORTH, **others)
        return policy_loss(params, nets, Line(PRESS), rules, horizon=1)[0]

    return quick_jit(jax.grad(loss))(jnp.asarray(LOGITS, jnp.float32))


def drawn_choice():
    """What the key draws: the same in every test of choices."""
    nets = head_nets("bounded_normal", PRESS)
    policy = imagined_policy(
        Line(PRESS), nets, params_of({"press": {"logits": jnp.asarray(LOGITS, jnp.float32)}}), False
    )
    path = imagine(Line(PRESS), params_of(None, rssm=WORTH), policy, Point(jnp.ones((1, 1))), KEY, 1)
    return int(path.actions["press"][0, 0])


P = np.exp(LOGITS) / np.exp(LOGITS).sum()
THROUGH = -0.5 * 1.5 * P * (WORTH - P @ WORTH)  # w dR/ds' sum_k worth_k dp_k, whatever was drawn; R = s' + 0.5 s'


def test_straight_through_gradient_of_choices_by_hand():
    np.testing.assert_allclose(choices_gradient(DYNAMICS), THROUGH, rtol=1e-4)


def test_reinforce_is_the_score_function_by_hand():
    chosen = drawn_choice()
    advantage = 1.5 * (1.0 + WORTH[chosen]) - 1.0  # over the critic's V(s) = s = 1
    score = -0.5 * advantage * (np.eye(3)[chosen] - P)
    np.testing.assert_allclose(choices_gradient(REINFORCE), score, rtol=1e-4)
    mixed = choices_gradient(Rules(partial(mix, 0.25), True))
    np.testing.assert_allclose(mixed, 0.25 * THROUGH + 0.75 * score, rtol=1e-4)


@pytest.mark.parametrize("rules", [DYNAMICS, REINFORCE, Rules(partial(mix, 0.5), True)])
def test_only_the_actor_learns_from_its_loss(rules):
    def loss(params):
        return policy_loss(params, head_nets("tanh_normal", PUSH), Line(PUSH, jnp.sin), rules, horizon=3)[0]

    actor = {"push": {"mean": jnp.array([0.3]), "std": jnp.array([0.1])}}
    gradient = quick_jit(jax.grad(loss))(params_of(actor))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient.pop("actor")))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient))


def test_the_target_critic_makes_returns_and_baselines():
    target = Rules(reinforce, drawn=False, slow_judges=True)
    nets, model, params = sure_nets(), Line(PUSH), params_of(jnp.float32(0.3))
    losses = policy_loss(params, nets, model, target, horizon=1, slow=jnp.float32(2.0))[1]
    # s' = 1.3 is worth 2 s' to the target critic: R = 1.3 + 0.5 * 2.6; V = s = 1 is drawn to R alone.
    assert float(losses["value"][0]) == pytest.approx(0.5 * 0.5 * (2.6 - 1.0) ** 2, rel=1e-4)
    own = policy_loss(params, nets, model, Rules(reinforce, drawn=False), horizon=1, slow=jnp.float32(2.0))[1]
    assert float(own["value"][0]) == pytest.approx(0.5 * 0.5 * (1.3 + 0.65 - 1.0) ** 2, rel=1e-4)

    nets = head_nets("bounded_normal", PRESS)
    params = params_of({"press": {"logits": jnp.asarray(LOGITS, jnp.float32)}}, rssm=WORTH)
    after = 1.0 + WORTH[drawn_choice()]
    advantage = after + 0.5 * 2 * after - 2.0  # both by the target critic
    loss = policy_loss(params, nets, Line(PRESS), target, horizon=1, slow=jnp.float32(2.0))[0]
    assert float(loss) == pytest.approx(-0.5 * advantage * np.log(P[drawn_choice()]), rel=1e-4)


def test_a_critic_without_slow_one_has_half_the_squared_error():
    value, slow, target = Number(jnp.array([1.0, -2.0]), False), Number(jnp.array([9.0, 9.0]), False), [3.0, -2.5]
    plain = critic_loss(value, slow, jnp.array(target), Rules(drawn=False))
    np.testing.assert_allclose(plain, [2.0, 0.125], rtol=1e-6)
    np.testing.assert_allclose(critic_loss(value, slow, jnp.array(target)), [34.0, 60.625], rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "specs", "objective", "differentiable"),
    [
        ("reinforce", PUSH, reinforce, False),
        ("dynamics", PRESS, dynamics, True),
        ("auto", PUSH, dynamics, True),
        ("auto", PRESS, reinforce, False),
        ("auto", PUSH | PRESS, reinforce, False),
    ],
)
def test_auto_is_reinforce_where_an_action_is_a_choice(kind, specs, objective, differentiable):
    rules = Rules.of(BehaviourConfig(actor_gradient=kind), specs)
    assert rules == Rules(objective, differentiable)
    assert Rules.of(BehaviourConfig(), specs) == Rules()
