"""The policy's distributions from the raw outputs of its network."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.behaviour.policy import ActorCritic
from dreamer_agent.nets import Net
from dreamer_agent.specs import ArraySpec

SURE = jnp.array([[50.0, 0.0, 0.0, 0.0]])  # logits of a policy that has settled


def policy(unimix: float, legal=None):
    """The distribution that a network gives whose output is its parameters."""
    net = Net(lambda *_: {}, lambda params, _: {"a": {"logits": params}})
    heads = ActorCritic(net, net, {"a": ArraySpec("discrete", (), 4)}, np.zeros(3), unimix=unimix)
    return heads.policy(SURE, jnp.zeros((1, 2)), legal)


def test_a_uniform_share_keeps_every_action_possible() -> None:
    probs = np.exp(policy(0.04).parts["a"].log_probs)[0]
    np.testing.assert_allclose(probs, [0.97, 0.01, 0.01, 0.01], rtol=1e-5)
    # By hand: -(0.97 ln 0.97 + 3 x 0.01 ln 0.01).
    assert float(policy(0.04).entropy()[0]) == pytest.approx(0.1677, abs=1e-4)
    assert float(policy(0.0).entropy()[0]) == pytest.approx(0.0, abs=1e-6)


def test_the_uniform_share_goes_to_legal_actions_only() -> None:
    legal = {"a": jnp.array([[True, True, False, False]])}
    probs = np.exp(policy(0.04, legal).parts["a"].log_probs)[0]
    np.testing.assert_allclose(probs, [0.97 / 0.98, 0.01 / 0.98, 0, 0], rtol=1e-5)
