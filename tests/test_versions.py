"""DreamerV1 and V2 as presets, and that the default is V3 as it ever was."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.agent import Agent
from dreamer_agent.config import load_config
from dreamer_agent.errors import ConfigError
from dreamer_agent.specs import ArraySpec
from tests.compiling import quick_jit
from tests.conftest import TEST_SIZE, Learner, random_batch

OBS = {"vector": ArraySpec("continuous", (3,)), "integer": ArraySpec("discrete", (), 4)}
MOVE, BUTTON = {"move": ArraySpec("continuous", (2,))}, {"button": ArraySpec("discrete", (), 3)}
LAYERS = ("encoder", "decoder", "head", "continue", "policy", "critic")
SMALL = [*TEST_SIZE, *(f"model.{name}_layers=1" for name in LAYERS)]
FASTER = ["optimizer.learning_rate=3e-3", "loss.free_nats=0.1", "behaviour.imagination_horizon=3"]


class Trained:
    """A small learner of one version after 40 updates on one batch, and the metrics of each.

    It has both kinds of actions: V1 learns both through the model, V2 both by REINFORCE.
    """

    def __init__(self, name):
        self.name = name
        self.learner = Learner(load_config([name], [*SMALL, *FASTER]), OBS, MOVE | BUTTON)
        self.agent, self.update = self.learner.agent, self.learner.update
        self.batch, self.state, self.history = random_batch(self.agent), self.learner.state, []
        for _ in range(40):
            self.state, self.latents, metrics = self.update(self.state, self.batch)
            self.history.append({key: float(value) for key, value in metrics.items()})


@pytest.fixture(scope="module", params=["v1", "v2"])
def version(request):
    return Trained(request.param)


def test_updates_are_finite_trace_once_and_overfit_one_batch(version):
    assert version.learner.traces == 1 and int(version.state.step) == 40
    history = version.history
    assert all(np.isfinite(list(row.values())).all() and row["skipped"] == 0 for row in history)
    for key in ("rec/vector", "rec/integer", "reward", "continue"):
        first, last = (np.mean([row[f"loss/{key}"] for row in rows]) for rows in (history[:4], history[-4:]))
        assert last < 0.85 * first, (version.name, key, first, last)
    kind = {"v1": (4, 8, 4), "v2": (4, 8, 4, 4)}[version.name]
    assert version.latents.stoch.shape == kind and version.latents.deter.shape == (4, 8, 32)
    assert "loss/repval" not in history[0]


def test_every_network_is_trained_by_an_adam_of_its_group(version):
    new = version.update(version.state, version.batch)[0]
    assert set(new.optimizer.inner_states) == {"model", "actor", "critic"}
    counts = [leaf for leaf in jax.tree.leaves(new.optimizer) if leaf.dtype == jnp.int32]
    assert len(counts) == 3 and all(int(count) == 41 for count in counts)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), version.state.params, new.params)
    steps = {net: max(jax.tree.leaves(moved[net])) for net in moved}
    assert all(max(jax.tree.leaves(part)) > 0 for part in moved["rssm"].values())
    # An Adam never steps further than sqrt(10) of its learning rate.
    rates = {net: 8e-5 if net in ("actor", "critic") else 3e-3 for net in moved}
    assert all(0.01 * rates[net] < steps[net] < 3.2 * rates[net] for net in moved), steps


def test_the_target_critic_of_v2_is_copied_exactly(version):
    if version.name == "v1":
        return  # it has none
    state = version.state
    for step in (0, 1, 99, 100, 101, 200):
        before = state._replace(step=jnp.int32(step))
        state = version.update(before, version.batch)[0]
        expected = state.params["critic"] if step in (0, 100, 200) else before.slow_critic
        for slow, other in zip(jax.tree.leaves(state.slow_critic), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(slow, other)
        fast = zip(jax.tree.leaves(state.params["critic"]), jax.tree.leaves(before.params["critic"]), strict=True)
        assert any((a != b).any() for a, b in fast)


@pytest.mark.parametrize("act_specs", [MOVE, BUTTON], ids=["continuous", "discrete"])
@pytest.mark.parametrize("name", ["v1", "v2"])
def test_each_acts_and_learns_with_either_kind_of_action(name, act_specs):
    agent = Agent.create(load_config([name], SMALL), OBS, act_specs)
    shapes = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
    new, _, metrics = jax.eval_shape(agent.update, shapes, random_batch(agent))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), shapes)
    assert {"loss/policy", "loss/value", "loss/dyn", "loss/rep"} <= set(metrics)


def test_both_act_and_only_v1_adds_noise(version):
    agent, act = version.agent, quick_jit(version.agent.act)
    obs = {"vector": np.zeros((200, 3), np.float32), "integer": np.zeros(200, np.int32)}
    carry, first = agent.init_act(200), np.ones(200, bool)
    tried, sure = (
        act(version.state.params, jax.random.PRNGKey(1), carry, obs, first, np.array(explore)).action
        for explore in (True, False)
    )
    for action in (tried, sure):
        assert action["move"].shape == (200, 2) and np.abs(action["move"]).max() <= 1.0
        assert action["button"].dtype == jnp.int32 and set(np.unique(action["button"])) <= {0, 1, 2}
    noisy = (np.abs(tried["move"]) == 1.0).mean()  # clipped there
    assert (noisy > 0.2) == (version.name == "v1")


BEFORE = [  # there were any switches: two updates of the default
    {
        "loss/continue": 0.707836, "loss/dyn": 1.27101, "loss/rep": 1.27101, "loss/policy": -0.000209117,
        "loss/rec/integer": 1.59194, "loss/rec/vector": 2.41427, "loss/reward": 3.43399, "loss/value": 1.29015,
        "loss/repval": 5.64155, "model/kl": 1.14756, "optimizer/gradient_norm": 6952.02,
    },
    {
        "loss/continue": 0.780421, "loss/dyn": 1.34024, "loss/rep": 1.34024, "loss/policy": -0.00017201,
        "loss/rec/integer": 1.68872, "loss/rec/vector": 2.22861, "loss/reward": 3.43361, "loss/value": 1.21164,
        "loss/repval": 5.64088, "model/kl": 1.24502,
    },
]  # fmt: skip


def test_the_default_is_v3_as_it_was(learner):
    state = learner.state._replace(step=jnp.int32(1000))
    assert sorted(state.params) == ["actor", "cont", "critic", "decoder", "encoder", "reward", "rssm"]
    for expected in BEFORE:
        state, _, metrics = learner.update(state, random_batch(learner.agent))
        for key, value in expected.items():
            np.testing.assert_allclose(metrics[key], value, rtol=2e-3, atol=1e-6, err_msg=key)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.latent=gauss", "'model.latent' takes one of categorical, gaussian; got 'gauss'."),
        ("model.cell=lstm", "'model.cell' takes one of block_gru, norm_gru, gru; got 'lstm'."),
        ("model.activation=tanh", "takes one of silu, elu, relu"),
        ("model.norm=batch", "takes one of rms, layer, none"),
        ("model.action_distribution=beta", "takes one of bounded_normal, truncated_normal, tanh_normal"),
        ("behaviour.actor_gradient=both", "takes one of reinforce, dynamics, mix, auto"),
        ("behaviour.slow_critic=hard", "takes one of regularizer, target, unused"),
        ("optimizer.name=sgd", "takes one of laprop, adam"),
        ("loss.free_nats_of=batch", "takes one of step, mean"),
        ("behaviour.slow_critic_every=0", "'behaviour.slow_critic_every' is too small: raise it."),
        ("behaviour.action_noise=-0.1", "behaviour.action_noise=-0.1 should be at least 0."),
        ("behaviour.actor_mix=1.5", "behaviour.actor_mix=1.5 is a share"),
        ("optimizer.weight_decay=1", "optimizer.weight_decay=1 is a share"),
    ],
)
def test_a_switch_that_does_not_exist_is_refused_in_a_sentence(override, told):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])
    assert told in str(caught.value)


def test_only_what_has_blocks_is_divided_into_them():
    assert load_config(["v1"], ["model.deter=100"]).model.deter == 100
    with pytest.raises(ConfigError, match=r"should be a multiple of model.blocks=8"):
        load_config(["v1"], ["model.deter=100", "model.cell=block_gru"])


def test_without_a_continue_head_the_discount_alone_counts():
    config = load_config(["v2"], [*SMALL, "model.continue_head=false", "behaviour.discount_horizon=10"])
    agent = Agent.create(config, OBS, MOVE)
    state = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
    assert "cont" not in state.params and "continue" not in state.hyper["scales"]
    assert "loss/continue" not in jax.eval_shape(agent.update, state, random_batch(agent))[2]
    features = jnp.zeros((5, 3))
    np.testing.assert_allclose(agent.model.predict_continue({}, features).prob(), np.full(5, 0.9), rtol=1e-6)
    discounted = agent.model.discounting(jnp.float32(0.5))
    np.testing.assert_allclose(discounted.predict_continue({}, features).prob(), np.full(5, 0.5))


def test_clipped_rewards_are_what_is_learned_from():
    agent = Agent.create(load_config(["v2"], [*SMALL, "model.reward_clip=tanh"]), OBS, MOVE)
    batch = {"reward": jnp.array([[0.5, -30.0]]), "is_last": jnp.zeros((1, 2))}
    clipped = agent.model.clipped(batch)
    np.testing.assert_allclose(clipped["reward"], np.tanh([[0.5, -30.0]]), rtol=1e-6)
    assert clipped["is_last"] is batch["is_last"]
    plain = Agent.create(load_config(["v2"], SMALL), OBS, MOVE)
    assert plain.model.clipped(batch) is batch
