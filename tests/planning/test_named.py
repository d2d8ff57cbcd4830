"""Planners by name, as configurations and command lines write them."""

from __future__ import annotations

import pytest

from dreamer_agent.config import load_config
from dreamer_agent.errors import ConfigError
from dreamer_agent.planning import (
    CEM,
    MPPI,
    PLANNERS,
    GradientPlanner,
    RandomShooting,
    Score,
    TreeSearch,
    name_of,
    planner_of,
    register_planner,
)


def test_every_name_makes_its_planner() -> None:
    made = {name: type(planner_of(name)) for name in PLANNERS}
    assert made == {
        "cem": CEM, "gradient": GradientPlanner, "mppi": MPPI, "shooting": RandomShooting, "tree": TreeSearch,
    }  # fmt: skip
    assert [name_of(planner_of(name)) for name in PLANNERS] == PLANNERS.names()  # type: ignore[arg-type]


def test_settings_stand_behind_a_colon() -> None:
    planner = planner_of("mppi:samples=256, horizon=8,temperature=1e-1,terminal=false")
    assert planner == MPPI(
        samples=256, horizon=8, guided=16, temperature=0.1, score=Score(lambda_=0.95, terminal=False)
    )
    assert planner_of("cem:lambda_=1,guided=0") == CEM(horizon=10, guided=0, score=Score(lambda_=1))
    assert planner_of("tree:simulations=4") == TreeSearch(4)


def test_no_name_is_the_policy_alone_and_a_planner_stays_as_it_is() -> None:
    assert planner_of(None) is planner_of("") is planner_of("none") is None
    mine = CEM(64, 2)
    assert planner_of(mine) is mine


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mpi", "Unknown planner 'mpi': known are cem, gradient, mppi, shooting, tree .'mppi' is the nearest"),
        ("cem:sample=3", "The planner 'cem' has no setting 'sample', as in 'cem:sample=3': it has samples, iter"),
        ("tree:lambda_=1", "no setting 'lambda_'"),
        (
            "cem:samples=many",
            "The setting 'samples=many' of the planner 'cem:samples=many' should be a name and a",
        ),
        ("cem:samples", "The setting 'samples'"),
        ("cem:samples=4", r"CEM\(elites=8\) was asked for with samples=4"),
    ],
)
def test_what_cannot_be_is_said(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planner_of(text)


def test_a_planner_of_the_users_own_is_found_by_its_name() -> None:
    @register_planner("still")
    class Still(RandomShooting):
        """Never moves."""

    try:
        found = planner_of("still:samples=3")
        assert isinstance(found, Still) and found.samples == 3 and name_of(found) == "still"
    finally:
        PLANNERS.pop("still")


def test_a_configuration_names_it() -> None:
    config = load_config(overrides=["behaviour.planner=cem:samples=32,horizon=4"])
    assert planner_of(config.behaviour.planner) == CEM(32, horizon=4, guided=16, score=Score(0.95))
