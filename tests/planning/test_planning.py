"""The parts of planners against hand-worked numbers, and what all of them keep to."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.behaviour import ActionDistribution
from dreamer_agent.distributions import Categorical, Normal
from dreamer_agent.errors import ConfigError
from dreamer_agent.planning import (
    CEM,
    MPPI,
    GradientPlanner,
    Model,
    Outcome,
    Proposal,
    RandomShooting,
    Score,
    TreeSearch,
)
from dreamer_agent.planning.proposal import uniform
from dreamer_agent.planning.sampling import scores
from dreamer_agent.specs import ArraySpec

KEY = jax.random.PRNGKey(0)
MIXED = {"push": ArraySpec("continuous", (2,)), "which": ArraySpec("discrete", (), 3)}


def line(specs: Any = MIXED, discount: float = 0.5, value: float = 8.0) -> Model:
    """A point on a line, pushed by the first number and by which - 1; rewards are its place after the step."""

    def step(params: Any, key: Any, actions: Any, state: Any) -> tuple[Outcome, Any]:
        push = actions["push"][:, 0] if "push" in actions else 0.0
        new = state + push + (actions["which"] - 1 if "which" in actions else 0)
        return Outcome(new, jnp.full(new.shape, discount), jnp.full(new.shape, value)), new

    def policy(params: Any, state: Any, legal: Any = None) -> ActionDistribution:
        rows, parts = len(state), {}
        if "push" in specs:
            parts["push"] = Normal(jnp.full((rows, 2), 0.5), jnp.full((rows, 2), 0.1), 1)
        if "which" in specs:
            mask = None if legal is None else legal["which"]
            parts["which"] = Categorical.from_logits(jnp.zeros((rows, 3)), legal=mask)
        return ActionDistribution(parts)

    doubt = lambda params, state: jnp.abs(state)  # noqa: E731
    return Model(specs, step, policy, lambda params, state: jnp.full(len(state), value), doubt)


def pushes(*numbers: float) -> Any:
    """Actions `[1, H, ...]` that push so, and choose the middle."""
    push = jnp.stack([jnp.asarray(numbers), jnp.zeros(len(numbers))], -1)[None]
    return {"push": push, "which": jnp.ones((1, len(numbers)), jnp.int32)}


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (Score(), 1 + 0.5 * 3 + 0.25 * 8),  # places 1 and 3, then the value
        (Score(terminal=False), 1 + 0.5 * 3),
        (Score(lambda_=0.0), 1 + 0.5 * 8),
        (Score(lambda_=0.5), 1 + 0.5 * (0.5 * 8 + 0.5 * (3 + 0.5 * 8))),
    ],
)
def test_a_score_is_the_lambda_return(score: Score, expected: float) -> None:
    found = score(line(), (), KEY, jnp.zeros(1), pushes(1.0, 2.0))
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_doubt_is_taken_off_rewards() -> None:
    found = Score()(line().doubted(0.5), (), KEY, jnp.zeros(1), pushes(1.0, 2.0))
    np.testing.assert_allclose(found, [0.5 + 0.5 * 1.5 + 0.25 * 8], rtol=1e-6)


def test_a_model_without_a_measure_of_doubt_says_so() -> None:
    with pytest.raises(ConfigError, match="no measure of doubt"):
        dataclasses.replace(line(), doubt=None).doubted(1.0)


def test_other_rewards_come_without_the_old_values() -> None:
    swapped = line().rewarded(lambda state, actions, new: 10 * state - actions["push"][:, 1] + new)
    actions = pushes(1.0, 2.0) | {"push": jnp.asarray([[[1.0, 4.0], [2.0, 0.0]]])}
    np.testing.assert_allclose(Score()(swapped, (), KEY, jnp.zeros(1), actions), [1 - 4 + 0.5 * 13], rtol=1e-6)
    np.testing.assert_allclose(swapped.value((), jnp.ones(4)), np.zeros(4))


def test_a_proposal_is_fitted_by_weights() -> None:
    old = Proposal.wide(MIXED, 1, 1, 1.0)
    actions = {"push": jnp.asarray([[[[1.0, 0.0]], [[0.0, 0.0]]]]), "which": jnp.asarray([[[2], [0]]])}
    new = old.fitted(actions, jnp.asarray([[0.75, 0.25]]), momentum=0.0, least=0.05)
    np.testing.assert_allclose(new.center["push"][0, 0], [0.75, 0.0])
    np.testing.assert_allclose(new.spread["push"][0, 0], [np.sqrt(0.75 * 0.25), 0.05], rtol=1e-6)
    np.testing.assert_allclose(new.center["which"][0, 0], [0.25, 0.0, 0.75])
    half = old.fitted(actions, jnp.asarray([[0.75, 0.25]]), momentum=0.5, least=0.05)
    np.testing.assert_allclose(half.center["push"][0, 0], [0.375, 0.0])
    np.testing.assert_allclose(half.center["which"][0, 0], [0.5 / 3 + 0.125, 0.5 / 3, 0.5 / 3 + 0.375], rtol=1e-6)


def test_draws_follow_the_proposal_and_stay_in_range() -> None:
    wide = Proposal.wide(MIXED, 2, 3, 5.0)
    center = wide.center | {"which": jnp.broadcast_to(jnp.asarray([0.0, 0.25, 0.75]), (2, 3, 3))}
    drawn = Proposal(center, wide.spread).sample(KEY, 4000)
    assert drawn["push"].shape == (2, 4000, 3, 2) and jnp.abs(drawn["push"]).max() == 1.0
    share = (drawn["which"][..., None] == jnp.arange(3)).mean(1)
    np.testing.assert_allclose(share, center["which"], atol=0.03)


def test_even_draws_are_even_and_do_not_hang_together() -> None:
    specs = {"a": ArraySpec("discrete", (), 2), "b": ArraySpec("continuous", ())}
    drawn = uniform(specs, KEY, 1, 4000, 1, None)
    a, b = np.asarray(drawn["a"]).ravel(), np.asarray(drawn["b"]).ravel()
    np.testing.assert_allclose(np.histogram(b, 4, (-1, 1))[0] / 4000, 0.25, atol=0.03)
    assert abs(a.mean() - 0.5) < 0.03 and abs(np.corrcoef(a, b)[0, 1]) < 0.05


def test_a_plan_moves_on_by_a_step() -> None:
    wide = Proposal.wide(MIXED, 1, 3, 1.0)
    plan = Proposal(wide.center | {"push": jnp.arange(6.0).reshape(1, 3, 2)}, wide.spread)
    np.testing.assert_allclose(plan.later(wide).center["push"][0], [[2, 3], [4, 5], [0, 0]])
    np.testing.assert_allclose(plan.first()["push"], [[0, 1]])


ALL = [
    RandomShooting(512, 4),
    CEM(64, 3, 8, 4),
    CEM(64, 3, 8, 4, guided=16),
    MPPI(64, 3, 16, 4),
    TreeSearch(32, 16),
]


@pytest.mark.parametrize("planner", ALL, ids=lambda planner: type(planner).__name__)
def test_planners_go_up_the_line_and_rows_are_independent(planner: Any) -> None:
    own, states = line(), jnp.asarray([0.0, -3.0, 50.0])
    plan = jax.jit(lambda key, state: planner.plan(own, (), key, state, planner.begin(own, len(state)))[0])
    actions = plan(KEY, states)
    assert (actions["push"][:, 0] > 0.2).all() and (actions["which"] == 2).all(), actions
    assert actions["push"].shape == (3, 2) and actions["which"].shape == (3,)
    other = plan(KEY, states.at[2].set(-7.0))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:2], b[:2]), actions, other)


def test_gradients_go_up_the_line() -> None:
    own, planner = line({"push": MIXED["push"]}), GradientPlanner(4, 30, 4)
    actions, plan = planner.plan(own, (), KEY, jnp.zeros(2), planner.begin(own, 2))
    np.testing.assert_allclose(actions["push"][:, 0], [1.0, 1.0], atol=1e-3)
    assert plan.center["push"].shape == (2, 4, 2)


def test_gradients_need_continuous_actions() -> None:
    with pytest.raises(ConfigError, match="needs continuous actions, but which is discrete"):
        GradientPlanner().begin(line(), 1)


def test_what_is_not_finite_is_worst() -> None:
    def step(params: Any, key: Any, actions: Any, state: Any) -> tuple[Outcome, Any]:
        outcome, new = line().step(params, key, actions, state)
        return outcome._replace(reward=jnp.where(actions["push"][:, 0] > 0.5, jnp.nan, outcome.reward)), new

    own = dataclasses.replace(line(), step=step)
    for planner in (RandomShooting(64, 2), CEM(64, 3, 48, 2), MPPI(64, 3, 48, 2)):
        actions, plan = planner.plan(own, (), KEY, jnp.zeros(1), planner.begin(own, 1))
        assert actions["push"][0, 0] <= 0.51
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(plan))


@pytest.mark.parametrize("planner", [CEM(20, 2, 16, 2), MPPI(20, 2, 16, 2)], ids=lambda x: type(x).__name__)
def test_weights_are_those_of_finite_scores(planner: Any) -> None:
    scores = jnp.full((3, 20), -jnp.inf).at[0, :5].set(1.0).at[1, 7].set(2.0)
    weights = planner.weights(scores)
    np.testing.assert_allclose(weights.sum(-1), [1, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(weights[0, :5], 0.2, rtol=1e-6)
    assert weights[1, 7] == 1.0
    wide = Proposal.wide(MIXED, 3, 2, 1.0)
    actions = wide.sample(KEY, 20)
    actions["push"] = actions["push"].at[0, 19].set(jnp.nan)
    new = wide.fitted(actions, weights, 0.1, 0.05)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(new))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[2], b[2]), new, wide)  # nothing known: as it was


def test_better_scores_weigh_more() -> None:
    weights = MPPI(4, 1, 3, 2, temperature=0.5).weights(jnp.asarray([[0.0, 1.0, 2.0, -9.0]]))[0]
    expected = np.exp(np.array([-2.0, -1.0, 0.0]) / (0.5 * np.std([0.0, 1.0, 2.0])))
    np.testing.assert_allclose(weights, [*expected / expected.sum(), 0.0], rtol=1e-4)


@pytest.mark.parametrize("planner", [CEM(64, 4, 8, 8), MPPI(64, 4, 16, 8)], ids=lambda x: type(x).__name__)
def test_a_plan_that_has_become_wrong_is_given_up(planner: Any) -> None:
    up = line(value=0.0)
    down = up.rewarded(lambda state, actions, new: -new)
    plan = planner.begin(up, 1)
    for step in range(3):
        actions, plan = planner.plan(up, (), jax.random.PRNGKey(step), jnp.zeros(1), plan)
        assert actions["which"] == 2 and actions["push"][0, 0] > 0.5
    actions, _ = planner.plan(down, (), KEY, jnp.zeros(1), plan)
    assert actions["which"] == 0 and actions["push"][0, 0] < -0.5


@pytest.mark.parametrize("planner", ALL, ids=lambda planner: type(planner).__name__)
def test_only_legal_actions_are_chosen(planner: Any) -> None:
    own, states = line(), jnp.zeros(3)
    legal = {"which": jnp.asarray([[True, True, False], [True, False, False], [False, True, True]])}
    actions, _ = planner.plan(own, (), KEY, states, planner.begin(own, 3), legal)
    assert list(actions["which"]) == [1, 0, 2]


def test_a_tree_tries_legal_classes_alone() -> None:
    pytest.importorskip("mctx")
    own = line({"which": MIXED["which"]})
    legal = {"which": jnp.asarray([[True, True, False], [True, False, False], [False, True, True]])}
    actions, _ = TreeSearch(16).plan(own, (), KEY, jnp.zeros(3), (), legal)
    assert list(actions["which"]) == [1, 0, 2]


def test_rewards_of_any_type_score_alike() -> None:
    def score(kind: Any) -> Any:
        swapped = line().rewarded(lambda state, actions, new: (new > 0).astype(kind))
        return Score(lambda_=0.95)(swapped, (), KEY, jnp.zeros(1), pushes(1.0, 2.0, 0.0))

    for kind in (jnp.float32, jnp.int32, bool):
        np.testing.assert_allclose(score(kind), [1 + 0.475 * (1 + 0.475)], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: CEM(64, elites=100), r"CEM\(elites=100\) .* samples=64: give no more"),
        (lambda: CEM(64, guided=70), r"CEM\(guided=70\)"),
        (lambda: CEM(horizon=0), r"CEM\(horizon=0\) was asked for: give at least 1"),
        (lambda: MPPI(iterations=0), r"MPPI\(iterations=0\)"),
        (lambda: MPPI(temperature=0.0), r"MPPI\(temperature=0\.0\)"),
        (lambda: RandomShooting(samples=0), r"RandomShooting\(samples=0\)"),
        (lambda: GradientPlanner(candidates=0), r"GradientPlanner\(candidates=0\)"),
        (lambda: TreeSearch(simulations=0), r"TreeSearch\(simulations=0\)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make()


def test_luck_is_the_same_for_all_sequences_of_a_row() -> None:
    """A random model draws the same numbers for each, so that equal sequences are equally good."""
    own = line()

    def step(params: Any, key: Any, actions: Any, state: Any) -> tuple[Outcome, Any]:
        outcome, new = own.step(params, key, actions, state)
        return outcome, new + jax.random.normal(key, new.shape)

    actions = jax.tree.map(lambda x: jnp.broadcast_to(x[:, None], (2, 5, *x.shape[1:])), pushes(0.5, -0.5, 1.0))
    found = scores(Score(), dataclasses.replace(own, step=step), (), KEY, jnp.zeros(2), actions)
    np.testing.assert_allclose(found, np.broadcast_to(found[:, :1], (2, 5)), rtol=1e-5)
    assert abs(found[0, 0] - found[1, 0]) > 0.01  # rows are apart
