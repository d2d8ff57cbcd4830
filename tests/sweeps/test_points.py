"""Axes and the points that they span."""

from __future__ import annotations

import numpy as np
import pytest

from dreamer_agent.errors import ConfigError
from dreamer_agent.sweeps.points import points_of


def test_axes_are_multiplied_and_the_last_one_varies_fastest() -> None:
    axes = [{"grid": {"a": [1, 2]}}, {"zip": {"b": [3, 4], "c": [5, 6]}}]
    assert points_of(axes) == [
        {"a": 1, "b": 3, "c": 5}, {"a": 1, "b": 4, "c": 6}, {"a": 2, "b": 3, "c": 5}, {"a": 2, "b": 4, "c": 6},
    ]  # fmt: skip
    assert points_of([]) == [{}]
    assert len(points_of([{"grid": {"a": [1, 2], "b": [1, 2, 3]}}])) == 6


def test_a_list_stands_as_it_is() -> None:
    assert points_of([{"list": [{}, {"a": 1}, {"b": 2, "c": 3}]}]) == [{}, {"a": 1}, {"b": 2, "c": 3}]


def test_keys_may_be_written_as_groups() -> None:
    assert points_of([{"list": [{"a": {"b": 1}}, {"a.b": 2}]}]) == [{"a.b": 1}, {"a.b": 2}]
    with pytest.raises(ConfigError, match=r"Axis 2 of the sweep sets a\.b, which an axis before it sets"):
        points_of([{"grid": {"a.b": [1]}}, {"list": [{"a": {"b": 1}}]}])


def test_random_values_lie_where_they_should() -> None:
    values = {
        "u": {"uniform": [-1, 1]}, "l": {"loguniform": [1e-5, 1e-1]}, "i": {"integers": [1, 3]},
        "c": {"choice": ["x", "y"]},
    }  # fmt: skip
    points = points_of([{"random": {"samples": 400, "values": values}}])
    assert len(points) == 400
    u, l = (np.array([point[key] for point in points]) for key in "ul")
    assert -1 <= u.min() < -0.9 and 0.9 < u.max() <= 1
    assert l.min() >= 1e-5 and l.max() <= 1e-1 and abs(np.log10(np.median(l)) + 3) < 0.3
    assert {point["i"] for point in points} == {1, 2, 3} and {point["c"] for point in points} == {"x", "y"}


def test_more_samples_or_keys_leave_the_first_ones_as_they_were() -> None:
    few = points_of([{"random": {"samples": 3, "values": {"a": {"uniform": [0, 1]}}}}])
    values = {"b": {"loguniform": [1, 9]}, "a": {"uniform": [0, 1]}}
    more = points_of([{"random": {"samples": 5, "values": values}}])
    assert [point["a"] for point in more[:3]] == [point["a"] for point in few]
    other = points_of([{"random": {"samples": 3, "seed": 1, "values": {"a": {"uniform": [0, 1]}}}}])
    assert other != few


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        ([{"grid": {"a": [1]}}, {"list": [{"b": 1}, {"a": 2}]}], "Axis 2 of the sweep sets a, which an axis"),
        ([{"gird": {"a": [1]}}], "of the kind 'gird': choose grid, zip, list, random"),
        ([{"grid": {"a": [1]}, "zip": {}}], "Axis 1 of the sweep is"),
        (["a"], "Axis 1 of the sweep is 'a'"),
        ([{"grid": {"a": 3}}], "has a: 3: give a list of values"),
        ([{"grid": {"a": []}}], r"has a: \[\]: give a list"),
        ([{"grid": {}}], r"is {}: write keys, each with a list"),
        ([{"zip": {}}], r"is {}: write keys, each with a list"),
        ([{"random": {"samples": 2, "values": {"a": {"uniform": [0, float("inf")]}}}}], "less than the second"),
        ([{"zip": {"a": [1], "b": [1, 2]}}], "one length: a has 1, b has 2 values"),
        ([{"list": [3]}], "holds 3: a point has keys and values"),
        ([{"list": []}], "The list of axis 1 is empty"),
        ([{"random": {"samples": 0, "values": {"a": {"uniform": [0, 1]}}}}], "samples=0: give a whole number"),
        ([{"random": {"samples": 2, "values": {}}}], "has no values"),
        ([{"random": {"samples": 2, "values": {"a": {"normal": [0, 1]}}}}], "write one of uniform, loguniform"),
        ([{"random": {"samples": 2, "values": {"a": {"loguniform": [0, 1]}}}}], "both above 0"),
        ([{"random": {"samples": 2, "values": {"a": {"uniform": [1, 0]}}}}], "less than the second"),
        ([{"random": {"samples": 2, "values": {"a": {"uniform": 3}}}}], "the least and the largest"),
        ([{"random": {"samples": 2, "values": {"a": {"choice": []}}}}], "give a list"),
        ([{"random": {"samples": 2, "seed": -1, "values": {"a": {"uniform": [0, 1]}}}}], "seed=-1"),
        ([{"random": {"sample": 2}}], "it has `samples`, `values`"),
    ],
)  # fmt: skip
def test_what_is_no_axis_is_told(axes: list, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        points_of(axes)
