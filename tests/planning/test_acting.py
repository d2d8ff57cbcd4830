"""Agents that act by planning: in `act`, in training, in evaluations and when asked for an action."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from dreamer_agent import Dreamer, load_config, make_env
from dreamer_agent.agent import ACTING, ActState, Agent
from dreamer_agent.api import load_saved, train
from dreamer_agent.behaviour import ActionDistribution
from dreamer_agent.cli import app
from dreamer_agent.distributions import Categorical, Normal
from dreamer_agent.errors import ConfigError
from dreamer_agent.planning import explored, learned_model, restarted, seen_reward
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training import Driver
from dreamer_agent.world_model.imagine import imagine_step
from tests.compiling import quick_jit
from tests.conftest import TEST_SIZE, small_config

KEY = jax.random.PRNGKey(0)
OBS = {"obs": ArraySpec("continuous", (3,))}
ACT = {"push": ArraySpec("continuous", (2,)), "which": ArraySpec("discrete", (), 3)}
PLANNER = "cem:samples=8,iterations=2,elites=2,horizon=3,guided=0"
NO, YES = np.bool_(False), np.bool_(True)


@pytest.fixture(scope="module")
def agent() -> Agent:
    return Agent.create(small_config(f"behaviour.planner={PLANNER}"), OBS, ACT)


@pytest.fixture(scope="module")
def params(agent: Agent) -> Any:
    """Random numbers everywhere, so that no head says zero."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(agent.init, KEY).params
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), shapes)


@pytest.fixture(scope="module")
def act(agent: Agent) -> Any:
    return quick_jit(agent.act)


def observed(rows: int, first: bool) -> tuple[Any, Any]:
    return {"obs": np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)}, np.full(rows, first)


def test_the_planner_is_what_acts(agent: Agent, params: Any, act: Any) -> None:
    """`act` is: observe, then plan from that latent with the plan that is held."""
    acting = {key: params[key] for key in agent.acting}  # a planner needs no more
    assert set(params) - set(agent.acting) == {"decoder"} and agent.policy_alone.acting == ACTING
    carry = agent.init_act(2)
    for first in (True, False):
        obs, is_first = observed(2, first)
        new = act(acting, KEY, carry, obs, is_first, NO)
        latent_key, action_key = jax.random.split(KEY)
        latent = agent.model.observe_step(params, latent_key, carry.latent, carry.action, obs, is_first)
        actions, plan = agent.planner.plan(  # type: ignore[union-attr]
            learned_model(agent.model, agent.nets), params, jax.random.split(action_key)[0], latent, carry.plan
        )
        for one, other in ((new.latent, latent), (new.action, actions), (new.plan, plan)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, other)
        carry = new


def test_an_episode_start_forgets_the_plan_of_its_row_only(agent: Agent, params: Any, act: Any) -> None:
    obs, first = observed(2, True)
    carry = act(params, KEY, agent.init_act(2), obs, first, NO)
    begun = agent.init_act(2)
    mixed = restarted(carry.plan, begun.plan, np.array([True, False]))
    for new, old, start in zip(*map(jax.tree.leaves, (mixed, carry.plan, begun.plan)), strict=True):
        np.testing.assert_array_equal(new[0], start[0])
        np.testing.assert_array_equal(new[1], old[1])
    forgotten = act(params, KEY, carry, obs, first, NO)
    fresh = act(params, KEY, begun, obs, first, NO)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), forgotten.plan, fresh.plan)


def test_noise_is_added_to_explore(agent: Agent, params: Any, act: Any) -> None:
    obs, first = observed(64, True)
    carry = agent.init_act(64)
    plain, noisy = (act(params, KEY, carry, obs, first, explore).action["push"] for explore in (NO, YES))
    gap = np.asarray(noisy - plain)[np.abs(np.asarray(noisy)) < 1]
    assert 0.2 < gap.std() < 0.4 and (np.abs(noisy) <= 1).all()  # `planner_noise` is 0.3, cut off at 1


def test_noise_of_classes_is_the_policys_share() -> None:
    rows = 4000
    policy = ActionDistribution(
        {
            "push": Normal(jnp.zeros((rows, 2)), jnp.ones((rows, 2)), 1),
            "which": Categorical.from_logits(jnp.tile(jnp.asarray([-1e9, 0.0, 0.0]), (rows, 1))),
        }
    )
    actions = {"push": jnp.zeros((rows, 2)), "which": jnp.zeros(rows, jnp.int32)}
    varied = explored(ACT, KEY, actions, policy, jnp.asarray(0.3))
    counts = np.bincount(varied["which"], minlength=3) / rows
    np.testing.assert_allclose(counts, [0.7, 0.15, 0.15], atol=0.03)
    np.testing.assert_allclose(np.asarray(varied["push"]).std(), 0.3, atol=0.02)
    assert abs(np.corrcoef(varied["push"][:, 0], varied["which"])[0, 1]) < 0.05
    same = explored(ACT, KEY, actions, policy, jnp.asarray(0.0))
    jax.tree.map(np.testing.assert_array_equal, same, actions)


def test_the_policy_alone_is_the_agent_without_a_planner(agent: Agent) -> None:
    plain = Agent.create(small_config(), OBS, ACT)
    assert plain.policy_alone is plain and plain.init_act(2).plan == ()
    assert agent.policy_alone is agent.policy_alone and agent.policy_alone.planner is None
    assert plain.planned_by(PLANNER).planner == agent.planner
    assert agent.planned_by("none") is agent.policy_alone


def test_it_plans_for_other_rewards_at_once(agent: Agent, params: Any) -> None:
    obs, first = observed(16, True)
    for sign in (1.0, -1.0):

        def wanted(before: Any, actions: Any, after: Any, sign: float = sign) -> Any:
            assert before["obs"].shape == after["obs"].shape
            return sign * actions["push"][:, 0]

        asked = agent.planned_by("cem:samples=64,iterations=3,horizon=1", wanted)
        assert "decoder" in asked.acting and asked.policy_alone.reward_fn is None
        new = quick_jit(asked.act)(params, KEY, asked.init_act(16), obs, first, NO)
        assert (sign * new.action["push"][:, 0]).mean() > 0.7


def test_a_reward_is_that_of_decoded_observations(agent: Agent, params: Any) -> None:
    latent = agent.init_act(3).latent
    actions = {"push": jnp.ones((3, 2)), "which": jnp.zeros(3, jnp.int32)}
    after = imagine_step(agent.model, params, KEY, latent, actions)
    reward = seen_reward(
        agent.model, params, lambda a, act, b: b["obs"][:, 1] - 2 * a["obs"][:, 0] + act["push"][:, 0]
    )
    before_seen, after_seen = (agent.model.reconstruct(params, x)["obs"].mode() for x in (latent, after))
    np.testing.assert_allclose(
        reward(latent, actions, after), after_seen[:, 1] - 2 * before_seen[:, 0] + 1, rtol=1e-5
    )


def test_a_policy_has_no_other_rewards(agent: Agent) -> None:
    with pytest.raises(
        ConfigError, match=r"A policy or an explorer acts for what it was trained for: .* name a planner"
    ):
        agent.planned_by("none", lambda before, actions, after: actions["push"][:, 0])


@pytest.fixture(scope="module")
def run(tmp_path_factory: Any) -> Path:
    """A run that collects by planning."""
    folder = tmp_path_factory.mktemp("planned") / "run"
    config = [
        *TEST_SIZE, f"behaviour.planner={PLANNER}", "env.num_envs=2", "replay.ratio=8", "replay.prefill=64",
        "train.eval_envs=2", "train.eval_episodes=2", "train.steps=100",
    ]  # fmt: skip
    train(load_config(overrides=["env.id=CartPole-v1", *config]), folder, quiet=True)
    return folder


def test_a_run_collects_by_planning(run: Path) -> None:
    found = json.loads((run / "evaluation.json").read_text())
    assert [score["policy"] for score in found["scores"]] == ["sample", "mode", "cem"]
    assert found["updates"] > 0


def test_a_plan_is_saved_with_the_memory_of_the_environments(run: Path) -> None:
    saved = load_saved(run)
    one, other = (Driver(saved.agent, make_env(saved.config.env, 2), seed=3) for _ in range(2))
    taken(one, saved.state.average, 5)
    held = one.save()
    assert any("plan" in name for name in held["carry"])
    other.restore(held)
    np.testing.assert_array_equal(*(taken(driver, saved.state.average, 5) for driver in (one, other)))


def taken(driver: Driver, params: Any, count: int) -> list[Any]:
    """The latents of `count` steps, which tell everything that was done."""
    return [step["latent"]["deter"] for _ in range(count) for _, step in driver.rows(params)]


def test_a_run_is_evaluated_by_any_planner(run: Path) -> None:
    agent = Dreamer.load(run, quiet=True)
    assert agent.evaluate(2).policy == "cem"  # as it trained
    assert agent.evaluate(2, planner="none").policy == "sample"
    mppi = agent.evaluate(2, planner="mppi:samples=16,elites=4,iterations=1,horizon=2")
    assert mppi.policy == "mppi" and len(mppi.returns) == 2
    said = CliRunner().invoke(app, ["evaluate", str(run), "--episodes", "1", "--planner", "shooting:samples=4"])
    assert said.exit_code == 0 and "shooting actions" in " ".join(said.output.split())
    wrong = CliRunner().invoke(app, ["evaluate", str(run), "--planner", "shoot"])
    assert "Unknown planner 'shoot'" in str(wrong.exception)


def test_predictions_may_change_between_policy_and_planner(run: Path) -> None:
    agent, obs = Dreamer.load(run, quiet=True), np.zeros(4, np.float32)
    action, state = agent.predict(obs, planner="none", deterministic=True)
    assert state.carry.plan == ()
    for planner in (PLANNER, "none", None):
        action, state = agent.predict(obs, state, planner=planner, deterministic=True)
        assert action in (0, 1)
    assert isinstance(state.carry, ActState) and state.carry.plan != ()
    again, _ = agent.predict(obs, state, deterministic=True)
    assert again == agent.predict(obs, state, deterministic=True)[0]
