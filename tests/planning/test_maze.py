"""Tree search in two rooms: a poor policy's critic is enough for it, a wrong one is not."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.exact.maze import GOAL, NEXT, POLICY, Unplanned, critic, model, success

pytest.importorskip("mctx")

from dreamer_agent.planning import TreeSearch


def test_the_critic_is_that_of_the_policy() -> None:
    values = critic()
    arrived = NEXT == GOAL
    expected = (POLICY * np.where(arrived, 1.0, 0.97 * values[NEXT])).sum(1)
    expected[GOAL] = 0.0
    np.testing.assert_allclose(values, expected, atol=1e-12)


def test_search_finds_the_way_that_the_policy_alone_does_not() -> None:
    own = model(critic())
    assert success(Unplanned(), own) <= 0.05
    assert success(TreeSearch(16), own) >= 0.95


def test_a_wrong_critic_is_not_rescued() -> None:
    assert success(TreeSearch(16), model(-critic())) <= 0.05
