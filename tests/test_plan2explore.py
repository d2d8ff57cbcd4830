"""Plan2Explore: an explorer that learns beside the policy, leads at first, and leaves the policy as it is."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.agent import EXPLORER, SAMPLED, Agent
from dreamer_agent.behaviour import as_explorer
from dreamer_agent.errors import ConfigError
from dreamer_agent.planning import MPPI, PLANNERS, Careful, learned_model, name_of, planner_of
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training.weights import with_params
from tests.compiling import quick_jit
from tests.conftest import random_batch, small_config

OBS, ACT = {"vector": ArraySpec("continuous", (3,))}, {"move": ArraySpec("discrete", (), 3)}
KEY = jax.random.PRNGKey(0)


def created(*overrides):
    agent = Agent.create(small_config(*overrides), OBS, ACT)
    return agent, jax.jit(agent.init)(KEY), quick_jit(agent.update)


@pytest.fixture(scope="module")
def plain():
    return created()


@pytest.fixture(scope="module")
def exploring():
    return created("model.ensemble=3", "behaviour.explore_steps=100")


def test_the_task_learns_what_it_learns_without_an_explorer(plain, exploring):
    (agent, state, update), (_, state2, update2) = plain, exploring
    for number in range(3):
        batch = random_batch(agent, number)
        (state, latents, metrics), (state2, latents2, metrics2) = update(state, batch), update2(state2, batch)
    own = {name: state2.params[name] for name in state.params}
    # LaProp's first steps have the size of the learning rate whatever the gradient, which warms up from zero.
    for a, b in zip(jax.tree.leaves((state.params, latents)), jax.tree.leaves((own, latents2)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    assert set(state2.params) - set(state.params) == {"ensemble", "explorer_actor", "explorer_critic"}
    assert {"loss/ensemble", "loss/explorer_policy", "loss/explorer_value"} <= set(metrics2) - set(metrics)
    assert metrics2["explorer/doubt"] > 0 and np.isfinite(list(metrics2.values())).all()


def test_its_reward_is_doubt_in_units_of_its_mean(exploring):
    _, state, update = exploring
    batch = random_batch(exploring[0], 7)
    new, _, metrics = update(state, batch)
    np.testing.assert_allclose(
        new.explorer.level, metrics["explorer/doubt"], rtol=1e-6
    )  # the first mean as it is
    again, _, metrics = update(new, batch)
    expected = new.explorer.level + 0.01 * (metrics["explorer/doubt"] - new.explorer.level)
    np.testing.assert_allclose(again.explorer.level, expected, rtol=1e-6)
    # Five imagined steps, each about as doubtful as replayed ones, a critic of zero: about five in all.
    assert 1 < metrics["explorer/return"] < 10


def test_updates_move_the_explorer_and_its_slow_critic(exploring):
    agent, begun, update = exploring
    state, _, _ = update(begun, random_batch(agent, 0))  # at a learning rate of zero: the warm-up begins
    new, _, _ = update(state, random_batch(agent, 1))
    for name in ("ensemble", "explorer_actor", "explorer_critic"):
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), new.params[name], begun.params[name])
        assert max(jax.tree.leaves(moved)) > 0, name
    expected = jax.tree.map(
        lambda slow, fast: slow + 0.02 * (fast - slow),
        state.explorer.slow_critic,
        as_explorer(new.params)["critic"],
    )
    for a, b in zip(*map(jax.tree.leaves, (new.explorer.slow_critic, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def certain(params, own, action):
    """`params` whose head `own` is certain of one `action`."""
    dense = {
        "kernel": 0 * params[own]["logits_move"]["dense"]["kernel"], "bias": 50.0 * jax.nn.one_hot(action, 3),
    }  # fmt: skip
    return params | {own: params[own] | {"logits_move": {"dense": dense}}}


def test_who_collects_is_told_by_env_steps(plain, exploring):
    agent, state, _ = exploring
    params = certain(certain(state.params, "actor", 0), "explorer_actor", 2)
    act = quick_jit(agent.act)
    obs, first = {"vector": jnp.zeros((4, 3))}, jnp.ones(4, bool)

    def taken(agent, act, explore):
        kept = {name: params[name] for name in agent.acting}
        return act(kept, KEY, agent.init_act(4), obs, first, explore).action["move"].tolist()

    assert [int(agent.collector(n)) for n in (0, 99, 100)] == [EXPLORER, EXPLORER, SAMPLED]
    assert agent.collector(jnp.array([99, 100])).tolist() == [EXPLORER, SAMPLED]
    assert plain[0].collector(0).dtype == bool and plain[0].collector(0)
    assert taken(agent, act, agent.collector(0)) == [2] * 4
    assert taken(agent, act, agent.collector(100)) == taken(agent, act, np.int32(0)) == [0] * 4
    for name, action in (("explorer", 2), ("none", 0)):
        alone = agent.planned_by(name)
        assert taken(alone, quick_jit(alone.act), np.bool_(True)) == [action] * 4
    assert "explorer_actor" not in agent.policy_alone.acting


def test_the_ensemble_serves_planners(exploring):
    agent, state, _ = exploring
    model = learned_model(agent.model, agent.nets)
    latent = agent.model.rssm.initial(2)
    np.testing.assert_array_equal(
        model.doubt(state.params, latent), agent.model.doubt(state.params, latent.features)
    )
    actions = {"move": jnp.zeros(2, jnp.int32)}
    outcome, new = model.step(state.params, KEY, actions, latent)
    careful, _ = model.doubted(2.0).step(state.params, KEY, actions, latent)
    np.testing.assert_allclose(outcome.reward - careful.reward, 2 * model.doubt(state.params, new), rtol=1e-5)
    assert planner_of("mppi:doubt=2,horizon=3") == Careful(planner_of("mppi:horizon=3"), 2)
    assert name_of(planner_of("mppi:doubt=2")) == "careful_mppi"
    planning = agent.planned_by(Careful(MPPI(samples=4, elites=2, iterations=1, horizon=2), 2.0))
    kept = {name: state.params[name] for name in planning.acting}
    obs = {"vector": jnp.zeros((2, 3))}
    quick_jit(planning.act)(kept, KEY, planning.init_act(2), obs, jnp.ones(2, bool), np.bool_(True))
    assert "ensemble" in kept and "explorer_actor" not in kept


def test_weights_that_are_taken_over_begin_its_slow_critic_anew(exploring):
    _, state, _ = exploring
    params = jax.tree.map(lambda x: x + 1, state.params)
    taken = with_params(state, params)
    assert jax.tree.all(jax.tree.map(np.array_equal, taken.explorer.slow_critic, as_explorer(params)["critic"]))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.ensemble=1"], "at least 2"),
        (["behaviour.explore_steps=10"], r"model\.ensemble=8"),
        (["behaviour.explore_steps=-1"], "at least 0"),
        (["model.ensemble=2", "behaviour.explore_reward=nan"], "should be a number"),
        (["model.ensemble=2", "behaviour.explore_steps=10", "behaviour.planner=mppi"], "leave one"),
    ],
)
def test_what_does_not_fit_is_refused(overrides, words):
    with pytest.raises(ConfigError, match=words):
        small_config(*overrides)


def test_a_run_without_an_explorer_says_how_to_get_one(plain):
    with pytest.raises(ConfigError, match=r"behaviour\.explore_steps"):
        plain[0].planned_by("explorer")


@pytest.mark.parametrize("doubt", ["nan", "inf", "true"])
def test_a_doubt_that_is_no_number_is_refused(doubt):
    with pytest.raises(ConfigError, match=r"such as 0\.5"):
        planner_of(f"mppi:doubt={doubt}")


def test_doubt_takes_an_ensemble(plain, exploring):
    with pytest.raises(ConfigError, match=r"model\.ensemble=8"):
        plain[0].planned_by("mppi:doubt=1")
    with pytest.raises(ConfigError, match=r"model\.ensemble=8"):
        created("behaviour.planner=mppi:doubt=1")
    with pytest.raises(ConfigError, match="name a planner"):
        exploring[0].planned_by("explorer", lambda obs, actions, new: 0.0)


def test_a_planner_with_a_doubt_of_its_own_keeps_it():
    @dataclass(frozen=True)
    class Own:
        doubt: float = 1.0

    PLANNERS.register("own")(Own)
    try:
        assert planner_of("own:doubt=3") == Own(3)
    finally:
        PLANNERS.pop("own")


def test_by_dynamics_and_three_adams_the_task_still_learns_the_same():
    """V1's way: gradients through the model, and through doubt for the explorer; clips of their own."""
    v1 = [
        "behaviour.actor_gradient=dynamics", "behaviour.slow_critic=target", "optimizer.name=adam",
        "optimizer.weight_decay=1e-6", "optimizer.eps=1e-5", "optimizer.actor_learning_rate=1e-4",
        "model.latent=gaussian", "optimizer.warmup=0",
    ]  # fmt: skip
    explorer = ["model.ensemble=3", "behaviour.explore_steps=10", "behaviour.explore_reward=0.5"]
    (agent, state, update), (_, state2, update2) = created(*v1), created(*v1, *explorer)
    begun = state2.params
    for number in range(2):
        batch = random_batch(agent, number)
        (state, _, _), (state2, _, metrics) = update(state, batch), update2(state2, batch)
    assert np.isfinite(list(metrics.values())).all()
    for name, params in state.params.items():
        for a, b in zip(*map(jax.tree.leaves, (params, state2.params[name])), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5, err_msg=name)
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), begun["explorer_actor"], state2.params["explorer_actor"]
    )
    assert max(jax.tree.leaves(moved)) == pytest.approx(2e-4, rel=0.5)  # two steps of Adam at the actor's rate


def test_the_predicted_reward_may_be_added():
    """With a head that predicts the same everywhere, returns grow by the sum of it."""
    found = []
    for share in (0.0, 2.0):
        agent, state, update = created(
            "model.ensemble=2", "behaviour.explore_steps=10", f"behaviour.explore_reward={share}",
            "model.twohot=false", "model.symlog=false", "behaviour.lambda_=1", "model.continue_head=false",
            "behaviour.discount_horizon=1e9",
        )  # fmt: skip
        out = state.params["reward"]["out"]["dense"]
        out["kernel"], out["bias"] = 0 * out["kernel"], 0 * out["bias"] + 3.0
        found.append(update(state, random_batch(agent))[2]["explorer/return"])
    # Of five steps, the mean over starts at each of them: 5 + 4 + 3 + 2 + 1 steps lie ahead, times 2 * 3, over 5.
    np.testing.assert_allclose(found[1] - found[0], 2 * 3 * 3, rtol=1e-3)
