"""Statistics of a report, against numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dreamer_agent.statistics import (
    Episodes,
    Estimate,
    aggregate,
    clustered_ratio,
    episodes_of,
    iqm,
    mean_between,
    median_of_steps,
    profile,
    steps_to,
)


def some(*groups: tuple[float, float, float]) -> Episodes:
    return Episodes(*(np.array(column, float) for column in zip(*groups, strict=True)))


def test_episodes_are_counted_between_rows() -> None:
    rows = [
        {"step": 10, "episode/count": 0},
        {"step": 20, "episode/return": 3.0, "episode/count": 2},
        {"step": 30, "episode/count": 2},
        {"step": 40, "episode/return": 5.0, "episode/count": 6},
        {"step": 50, "loss/model": 1.0},
    ]
    steps, returns, counts = episodes_of(rows)
    assert steps.tolist() == [20, 40] and returns.tolist() == [3, 5] and counts.tolist() == [2, 4]
    assert len(episodes_of([]).steps) == 0


def test_means_weigh_each_episode_equally() -> None:
    episodes = some((10, 0.0, 1), (20, 10.0, 3), (30, 100.0, 1))
    assert mean_between(episodes, 0, 20) == 7.5
    assert mean_between(episodes, 10, 20) == 10.0  # what was logged at the first step came before
    assert mean_between(episodes, 30, 99) is None


def test_a_threshold_is_reached_by_a_whole_window_of_episodes() -> None:
    episodes = some((10, 100.0, 4), (20, 0.0, 6), (30, 50.0, 5), (40, 60.0, 5), (50, 0.0, 10))
    assert steps_to(episodes, 40) == 20  # 10 episodes: 4 * 100 / 10
    assert steps_to(episodes, 41) == 40  # (5 * 50 + 5 * 60) / 10 = 55; at 30 the window holds 11: 250 / 11
    assert steps_to(episodes, 55) == 40
    assert steps_to(episodes, 56) is None
    assert steps_to(some((10, 100.0, 9)), 1) is None  # fewer than ten episodes
    assert steps_to(some((10, 100.0, 9)), 1, window=9) == 10


def test_never_is_more_than_any_number() -> None:
    assert median_of_steps([30, 10, None]) == (30, 10, None)
    assert median_of_steps([30, None]) == (None, 30, None)
    assert median_of_steps([10, 20]) == (15, 10, 20)
    assert median_of_steps([]) == (None, None, None)


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    assert iqm(np.array([-1000.0, 1, 2, 3, 4, 5, 6, 1000])) == 3.5
    assert iqm(np.array([1.0, 2, 3])) == 2.0  # a quarter of three is less than one


def test_aggregates_and_their_intervals() -> None:
    found = aggregate([np.array([0.0, 1.0]), np.array([2.0, 2.0])])
    assert found["mean"].value == 1.25 and found["median"].value == 1.25 and found["IQM"].value == 1.5
    # Seeds are drawn within tasks: the second task's mean is always 2, the first one's between 0 and 1.
    assert found["mean"].low == 1.0 and found["mean"].high == 1.5
    again = aggregate([np.array([0.0, 1.0]), np.array([2.0, 2.0])])
    assert again == found
    alone = aggregate([np.array([0.0, 1.0]), np.array([2.0])])["mean"]
    assert alone.value == pytest.approx(1.25) and alone.low is None and alone.high is None


def test_the_interval_of_a_mean_is_about_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(size=100)
    found = aggregate([values])["mean"]
    assert found.low is not None and found.high is not None
    reach = 1.96 * values.std() / 10
    assert found.high - found.low == pytest.approx(2 * reach, rel=0.1)


def test_profiles_fall_from_all_runs_to_none() -> None:
    points = np.array([-1.0, 0.5, 1.5, 5.0])
    share, low, high = profile([np.array([0.0, 1.0]), np.array([1.0, 2.0])], points)
    assert share.tolist() == [1.0, 0.75, 0.25, 0.0]
    assert np.all(low <= share) and np.all(share <= high) and low[0] == high[0] == 1.0
    share, low, high = profile([np.array([0.0]), np.array([1.0, 2.0])], points)
    assert np.array_equal(share, low) and np.array_equal(share, high)


def test_windows_of_one_episode_are_drawn_together() -> None:
    values = np.array([1.0, 3.0, 5.0, 7.0])
    one = clustered_ratio(values, np.ones(4), np.array([2, 2, 2, 2]))
    assert one == Estimate(4.0, None, None)
    two = clustered_ratio(values, np.ones(4), np.array([0, 0, 9, 9]))
    assert two is not None and (two.value, two.low, two.high) == (4.0, 2.0, 6.0)
    apart = clustered_ratio(values, np.ones(4), np.arange(4))
    assert apart is not None and apart.low is not None and 1.0 <= apart.low < 4.0
    uneven = clustered_ratio(np.array([2.0, 0.0]), np.array([3.0, 1.0]), np.arange(2))  # a ratio of sums
    assert uneven is not None and uneven.value == 0.5
    assert clustered_ratio(values, np.zeros(4), np.arange(4)) is None
    seldom = clustered_ratio(np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.arange(2))
    assert seldom == Estimate(1.0, 1.0, 1.0)  # draws without anything to divide by are left out
