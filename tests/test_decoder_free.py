"""Decoder-free models and learned scales in the update: what trains what, and that the default has neither."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.agent import Agent
from dreamer_agent.config import load_config
from dreamer_agent.errors import ConfigError
from dreamer_agent.hyper import hyper_parameters
from dreamer_agent.optim import clip_per_tensor, make_optimizer
from dreamer_agent.specs import ArraySpec
from tests.conftest import Learner, random_batch, small_config

MASK = "action_mask/button"
OBS = {"vector": ArraySpec("continuous", (3,)), MASK: ArraySpec("discrete", (3,), 2)}
ACT = {"button": ArraySpec("discrete", (), 3)}
BOTH = ["model.decoder_free=true", "loss.harmony=true"]
FASTER = [
    "optimizer.learning_rate=3e-3", "optimizer.warmup=0", "behaviour.imagination_horizon=3",
    "model.policy_layers=1", "model.encoder_layers=1", "model.decoder_layers=1",
]  # fmt: skip
MODEL = {"encoder", "rssm/cell", "rssm/posterior"}


def batch_for(agent):
    """One of random numbers in which some action is legal at every step."""
    batch = random_batch(agent)
    batch["obs"][MASK][..., 0] = 1
    return batch


class Trained:
    """A decoder-free learner with learned scales after 40 updates on one batch, and the metrics of each."""

    def __init__(self):
        self.learner = Learner(small_config(*BOTH, *FASTER), OBS, ACT)
        self.agent, self.start = self.learner.agent, self.learner.state
        self.batch, self.state, self.history = batch_for(self.agent), self.start, []
        for _ in range(40):
            self.state, _, metrics = self.learner.update(self.state, self.batch)
            self.history.append({key: float(value) for key, value in metrics.items()})

    def fell(self, name):
        """By how much of itself the loss fell."""
        first, last = (
            np.mean([row[f"loss/{name}"] for row in rows]) for rows in (self.history[:4], self.history[-4:])
        )
        return 1 - last / first

    def moved_by(self, *names):
        """The networks that move where only the named losses count. A zero gradient moves nothing, exactly."""
        scales = {key: jnp.float32(key in names) for key in self.state.hyper["scales"]}
        assert set(names) <= set(scales)
        hyper = self.state.hyper | {"scales": scales, "free_nats": jnp.float32(0)}
        # Nothing is averaged over the updates before.
        before = self.state._replace(hyper=hyper, optimizer=self.start.optimizer)
        new = self.learner.update(before, self.batch)[0]
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), before.params, new.params)
        flat = {k: v for k, v in changed.items() if k not in ("rssm", "harmony")}
        flat |= {f"rssm/{k}": v for k, v in changed["rssm"].items()}
        return {name for name, tree in flat.items() if any(jax.tree.leaves(tree))}


@pytest.fixture(scope="module")
def trained():
    return Trained()


def test_updates_are_finite_trace_once_and_overfit_one_batch(trained):
    assert trained.learner.traces == 1 and int(trained.state.step) == 40
    assert all(np.isfinite(list(row.values())).all() and row["skipped"] == 0 for row in trained.history)
    for name in ("rec/vector", f"rec/{MASK}", "reward", "continue", "invariance"):
        assert trained.fell(name) > 0.2, name


def test_the_decoder_looks_on_and_the_model_learns_from_its_tokens(trained):
    assert trained.moved_by("rec/vector") == {"decoder"}
    assert trained.moved_by("invariance") == trained.moved_by("redundancy") == MODEL | {"projector"}
    assert trained.moved_by(f"rec/{MASK}") == MODEL | {"mask"}
    assert trained.moved_by("reward") == MODEL | {"reward"}
    assert trained.moved_by() == set()


def test_the_scales_of_both_losses_are_data(trained):
    scales = hyper_parameters(trained.agent.config, OBS)["scales"]
    np.testing.assert_allclose([scales["invariance"], scales["redundancy"]], [0.05, 0.05 * 5e-4])
    other = hyper_parameters(small_config("model.decoder_free=true", "loss.barlow=1"), OBS)["scales"]
    np.testing.assert_allclose([other["invariance"], other["redundancy"]], [1.0, 5e-4])


def test_learned_scales_move_towards_the_losses(trained):
    first, state = trained.history[0], trained.start
    assert {k: float(s) for k, s in state.params["harmony"].items()} == dict(observation=0, reward=0, dynamics=0)
    assert [first[f"harmony/{name}"] for name in state.params["harmony"]] == [1, 1, 1]
    new = trained.learner.update(state, trained.batch)[0].params["harmony"]
    losses = {
        "observation": 0.05 * (first["loss/invariance"] + 5e-4 * first["loss/redundancy"]),
        "reward": first["loss/reward"],
        "dynamics": (first["loss/dyn"] + 0.1 * first["loss/rep"]) / 1.1,
    }
    # The gradient at sigma = 1 is 1 / 2 - L, and a first step is one rate long.
    for name, loss in losses.items():
        np.testing.assert_allclose(new[name], 3e-3 * np.sign(loss - 0.5), rtol=1e-3, err_msg=name)
    assert set(trained.state.average) == set(trained.state.params)


@pytest.mark.parametrize("switch", ["", "model.decoder_free=true", "loss.harmony=true"])
def test_each_adds_its_parameters_and_changes_no_others(trained, switch):
    agent = Agent.create(small_config(*FASTER, *filter(None, [switch])), OBS, ACT)
    state = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
    default = {"actor", "cont", "critic", "decoder", "encoder", "mask", "reward", "rssm"}
    added = {"": set(), "model.decoder_free=true": {"projector"}, "loss.harmony=true": {"harmony"}}[switch]
    assert set(state.params) == default | added
    losses = {"invariance", "redundancy"} if added == {"projector"} else set()
    named = {"rec/vector", f"rec/{MASK}", "reward", "continue", "dyn", "rep", "policy", "value", "repval"}
    assert set(state.hyper["scales"]) == named | losses
    metrics = jax.eval_shape(agent.update, state, trained.batch)[2]
    assert {key[5:] for key in metrics if key.startswith("loss/")} == named | losses
    assert any(key.startswith("harmony/") for key in metrics) == (added == {"harmony"})


def test_without_a_probe_nothing_can_be_shown():
    agent = Agent.create(small_config("model.decoder_free=true", "model.probe=false"), OBS, ACT)
    state = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
    metrics = jax.eval_shape(agent.update, state, batch_for(agent))[2]
    assert "decoder" not in state.params
    assert {key for key in metrics if key.startswith("loss/rec/")} == {f"loss/rec/{MASK}"}
    with pytest.raises(ConfigError, match=r"model\.probe=false and cannot show what it imagines"):
        agent.model.reconstruct(state.params, agent.model.rssm.initial(2))
    with pytest.raises(ConfigError, match=r"train it with model\.probe=true"):
        agent.planned_by("mppi", lambda before, action, after: None)
    with pytest.raises(ConfigError, match=r"set model\.decoder_free=true as well"):
        load_config(overrides=["model.probe=false"])


def test_the_probe_shares_no_clip_with_the_model():
    config = load_config(["v2"], ["optimizer.clip=1"]).optimizer
    params = {"encoder": {"w": jnp.zeros(1)}, "decoder": {"w": jnp.zeros(1)}}
    optimizer, gradients = (
        make_optimizer(config, ("decoder",)),
        {"encoder": {"w": jnp.ones(1)}, "decoder": {"w": 1e9 * jnp.ones(1)}},
    )
    state = optimizer.update(gradients, optimizer.init(params), params)[1]
    moments = {group: inner.inner_state[1].mu for group, inner in state.inner_states.items()}
    np.testing.assert_allclose(moments["model"]["encoder"]["w"], 0.1)  # as large as it is alone
    np.testing.assert_allclose(moments["decoder"]["decoder"]["w"], 0.1)
    assert set(moments) == {"model", "actor", "critic", "decoder"}


def test_learned_scales_are_not_clipped_by_their_size():
    gradients, params = (
        {"s": jnp.float32(7.0), "w": jnp.full(1, 7.0)},
        {"s": jnp.float32(0), "w": jnp.full(1, 2.0)},
    )
    clip = clip_per_tensor(0.3)
    found = clip.update(gradients, clip.init(params), params)[0]
    np.testing.assert_allclose([found["s"], found["w"][0]], [7.0, 0.6], rtol=1e-6)
