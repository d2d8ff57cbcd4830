"""Legal actions inside the agent: as observed for acting, as predicted for imagination."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.agent import Agent
from dreamer_agent.behaviour import ActorCritic
from dreamer_agent.nets import Net
from dreamer_agent.specs import ArraySpec, mask_specs
from dreamer_agent.world_model import imagine, observed_legal
from dreamer_agent.world_model.mask import MaskPredictor, with_taken
from tests.compiling import quick_jit
from tests.conftest import small_config

ACT = {
    "move": ArraySpec("discrete", (), 4),
    "press": ArraySpec("discrete", (2,), 3),
    "turn": ArraySpec("continuous", (1,)),
}
KEY = jax.random.PRNGKey(0)


def says(output: Any) -> Net:
    """A network that says `output` whatever it is given."""
    return Net(lambda *_: {}, lambda *_: output)


@pytest.fixture(scope="module")
def nets() -> ActorCritic:
    """A policy with the probabilities 1:2:3:4 of "move", and 1:1:2 and 1:3:4 of the two entries of "press"."""
    raw = {
        "move": {"logits": jnp.log(jnp.array([1.0, 2, 3, 4]))},
        "press": {"logits": jnp.log(jnp.array([[1.0, 1, 2], [1, 3, 4]]))},
        "turn": {"mean": jnp.zeros(1), "std": jnp.zeros(1)},
    }
    made = ActorCritic.create(ACT, small_config().model, jnp.dtype("float32"))
    return dataclasses.replace(made, actor=says(raw))


LEGAL = {
    "move": jnp.array([True, False, True, False]),
    "press": jnp.array([[True, True, False], [False, True, False]]),
}


def entropy_of(*probabilities: float) -> float:
    return -sum(p * np.log(p) for p in probabilities)


def test_probabilities_are_shared_out_among_the_legal(nets: ActorCritic) -> None:
    parts = nets.policy({}, KEY, LEGAL).parts
    np.testing.assert_allclose(jnp.exp(parts["move"].log_probs), [0.25, 0, 0.75, 0], atol=1e-6)
    np.testing.assert_allclose(jnp.exp(parts["press"].log_probs), [[0.5, 0.5, 0], [0, 1, 0]], atol=1e-6)


def test_log_prob_and_entropy_are_those_of_the_legal_choices(nets: ActorCritic) -> None:
    policy = nets.policy({}, KEY, LEGAL)
    turn = policy.parts["turn"]
    action = {"move": jnp.array(2), "press": jnp.array([0, 1]), "turn": jnp.zeros(1)}
    expected = np.log(0.75) + np.log(0.5) + np.log(1.0) + float(turn.log_prob(action["turn"]))
    np.testing.assert_allclose(policy.log_prob(action), expected, rtol=1e-5)
    expected = entropy_of(0.25, 0.75) + entropy_of(0.5, 0.5) + float(turn.entropy())
    np.testing.assert_allclose(policy.entropy(), expected, rtol=1e-5)
    free = nets.policy({}, KEY).entropy() - turn.entropy()
    expected = entropy_of(0.1, 0.2, 0.3, 0.4) + entropy_of(0.25, 0.25, 0.5) + entropy_of(1 / 8, 3 / 8, 0.5)
    np.testing.assert_allclose(free, expected, rtol=1e-5)


def test_a_mask_on_some_keys_leaves_the_others_free(nets: ActorCritic) -> None:
    policy = nets.policy({}, KEY, {"move": LEGAL["move"]})
    np.testing.assert_allclose(jnp.exp(policy.parts["press"].log_probs[1]), [1 / 8, 3 / 8, 0.5], rtol=1e-5)
    np.testing.assert_allclose(jnp.exp(policy.parts["move"].log_probs[0]), 0.25, rtol=1e-5)


def test_samples_and_modes_are_legal(nets: ActorCritic) -> None:
    policy = nets.policy({}, KEY, LEGAL)
    samples = jax.vmap(policy.sample)(jax.random.split(KEY, 2000))
    counts = np.bincount(samples["move"], minlength=4) / 2000
    np.testing.assert_allclose(counts, [0.25, 0, 0.75, 0], atol=0.05)
    assert counts[1] == counts[3] == 0
    assert set(np.asarray(samples["press"][:, 0])) == {0, 1}
    assert set(np.asarray(samples["press"][:, 1])) == {1}
    mode = policy.mode()
    assert (int(mode["move"]), int(mode["press"][1])) == (2, 1)


def test_gradients_are_finite_and_none_goes_to_what_is_illegal(nets: ActorCritic) -> None:
    def loss(logits: Any) -> Any:
        raw = {"move": {"logits": logits}}
        one = dataclasses.replace(nets, actor=says(raw), act_specs={"move": ACT["move"]})
        policy = one.policy({}, KEY, LEGAL)
        return policy.log_prob({"move": jnp.array(0)}) + policy.entropy()

    gradient = jax.grad(loss)(jnp.log(jnp.array([1.0, 2, 3, 4])))
    assert np.isfinite(gradient).all()
    assert gradient[1] == gradient[3] == 0
    assert gradient[0] > 0 > gradient[2]


def test_predicted_choices_are_those_likelier_legal_than_not_or_the_likeliest_alone() -> None:
    # move [4], then press [2, 3]: the first entry has one legal choice, the second none
    logits = jnp.array([0.1, -0.1, 5.0, -5.0, -1.0, 2.0, -3.0, -3.0, -2.0, -1.0])
    predictor = MaskPredictor(says(logits), {key: ACT[key] for key in ("move", "press")})
    legal = predictor.legal({}, KEY)
    assert legal is not None
    assert legal["move"].tolist() == [True, False, True, False]
    assert legal["press"].tolist() == [[False, True, False], [False, False, True]]
    predicted = predictor.predict({}, KEY)
    assert {key: value.logit.shape for key, value in predicted.items()} == {  # type: ignore[attr-defined]
        "action_mask/move": (4,), "action_mask/press": (2, 3)
    }  # fmt: skip


def test_the_loss_of_a_mask_is_its_cross_entropy() -> None:
    logits = jnp.array([2.0, -1.0, 0.0, 3.0])
    predictor = MaskPredictor(says(logits), {"move": ACT["move"]})
    loss = predictor.predict({}, KEY)["action_mask/move"].loss(jnp.array([1, 0, 1, 0]))
    expected = np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0)) + np.log(2) + np.log1p(np.exp(3.0))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_observed_masks_are_taken_as_they_are_and_after_an_end_all_is_legal() -> None:
    specs = mask_specs(ACT)
    obs = {
        "action_mask/move": jnp.array([[1, 0, 0, 1], [0, 0, 0, 0]]),
        "action_mask/press": jnp.array([[[1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0]]]),
    }
    legal = observed_legal(specs, ACT, obs)
    assert legal is not None and legal.keys() == {"move", "press"}
    assert legal["move"].tolist() == [[True, False, False, True], [True] * 4]
    assert legal["press"].tolist() == [
        [[True, False, False], [False, False, True]],
        [[True] * 3, [False, True, False]],
    ]
    assert observed_legal({"x": ArraySpec("continuous", (1,))}, ACT, obs) is None


# A whole agent


@pytest.fixture(scope="module")
def agent() -> Agent:
    obs = {"vector": ArraySpec("continuous", (3,)), **mask_specs(ACT)}
    return Agent.create(small_config(), obs, ACT)


@pytest.fixture(scope="module")
def state(agent: Agent) -> Any:
    return quick_jit(agent.init)(KEY)


def test_acting_takes_only_what_the_observation_allows(agent: Agent, state: Any) -> None:
    rng = np.random.default_rng(0)
    count = 64
    masks = {key: rng.integers(0, 2, (count, *spec.shape)) for key, spec in mask_specs(ACT).items()}
    for value in masks.values():
        np.put_along_axis(value, rng.integers(0, value.shape[-1], value.shape[:-1])[..., None], 1, -1)
    obs = {"vector": rng.normal(size=(count, 3)).astype(np.float32), **masks}
    act = quick_jit(agent.act)
    for explore in (True, False):
        carry = agent.init_act(count)
        for seed in range(3):
            key = jax.random.PRNGKey(seed)
            carry = act(state.params, key, carry, obs, np.full(count, seed == 0), np.bool_(explore))
            for key_, value in masks.items():
                chosen = np.asarray(carry.action[key_.removeprefix("action_mask/")])
                assert np.take_along_axis(value, chosen[..., None], -1).all()


def test_imagined_actions_are_those_whose_predicted_mask_is_on(agent: Agent, state: Any) -> None:
    # A fresh head says little: larger parameters make it decided.
    params = state.params | {"mask": jax.tree.map(lambda p: 30 * p, state.params["mask"])}

    @quick_jit
    def roll(params: Any, key: Any) -> Any:
        start = agent.model.rssm.initial(256)
        start = start._replace(deter=jax.random.normal(key, start.deter.shape))

        def policy(key: Any, features: Any) -> Any:
            legal = agent.model.imagined_legal(params, features)
            return agent.nets.policy(params["actor"], features, legal).sample(key)

        path = imagine(agent.model, params, policy, start, key, 6)
        return path.actions, agent.model.imagined_legal(params, path.features)

    actions, legal = roll(params, KEY)
    for key in ("move", "press"):
        on = np.asarray(legal[key])
        chosen = np.asarray(actions[key])
        assert on.any(-1).all()
        assert 0.2 < on.mean() < 0.9  # some are off, some on
        assert np.take_along_axis(on, chosen[..., None], -1).all()


def test_without_masks_there_is_no_head() -> None:
    plain = Agent.create(small_config(), {"vector": ArraySpec("continuous", (3,))}, ACT)
    assert plain.model.mask is None
    assert plain.model.imagined_legal({}, KEY) is None
    assert "mask" not in jax.eval_shape(plain.init, KEY).params


def test_a_choice_at_the_edge_stays_legal_in_the_loss() -> None:
    legal = {"button": np.array([[True, False, False], [False, True, False]])}
    merged = with_taken(legal, {"button": np.array([2, 1])})
    assert merged is not None and merged["button"].tolist() == [[True, False, True], [False, True, False]]
    assert with_taken(None, {"button": np.array([2, 1])}) is None
