"""From the networks' arrays back to an environment's own values, and from its actions to the policy's numbers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from dreamer_agent.envs.interface import Interface
from dreamer_agent.envs.spaces import ActionCodec, ObservationCodec
from dreamer_agent.errors import SpaceError

OBSERVED = spaces.Dict(
    {
        "pose": spaces.Tuple([spaces.Box(-3, np.inf, (2,), np.float64), spaces.Discrete(3, start=1)]),
        "grid": spaces.Box(-1, 3, (2, 2), np.int8),
        "lights": spaces.MultiBinary(3),
        "dials": spaces.MultiDiscrete([2, 5], start=[1, -1]),
        "count": spaces.Box(0, 1000, (1,), np.int64),
        "rgb": spaces.Box(0, 255, (3, 8, 9), np.uint8),
        "stack": spaces.Box(0, 255, (2, 8, 8, 3), np.uint8),
        "grey": spaces.Box(0, 255, (16, 17), np.uint8),
        "word": spaces.Text(4, charset="abc"),
    }
)
ACTED = spaces.Dict(
    {
        "gear": spaces.Discrete(3, start=-1),
        "wheel": spaces.Box(-2, 4, (1,), np.float64),
        "lever": spaces.Box(0, np.inf, (2,)),
        "rope": spaces.Box(-np.inf, 1, (1,)),
        "free": spaces.Box(-np.inf, np.inf, (1,)),
        "knobs": spaces.MultiDiscrete([2, 3], start=[0, 4]),
        "even": spaces.MultiDiscrete([3, 3]),
        "press": spaces.MultiBinary(2),
    }
)


def batch(space: gym.Space, count: int, seed: int = 0) -> Any:
    space.seed(seed)
    return concatenate(space, [space.sample() for _ in range(count)], create_empty_array(space, count))


def same(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
    elif isinstance(a, str):
        assert a == b
    else:
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_observations_come_back_as_they_were() -> None:
    codec, seen = ObservationCodec(OBSERVED), batch(OBSERVED, 4)
    back = codec.decode(codec.encode(seen))
    same(back, seen)
    assert batch_space(OBSERVED, 4).contains(back)


@pytest.mark.parametrize("layout", ["HWC", "CHW"])
def test_float_pixels_come_back_to_the_nearest_of_256(layout: str) -> None:
    space = spaces.Box(0, 1, (8, 9, 3) if layout == "HWC" else (3, 8, 9), np.float32)
    codec, seen = ObservationCodec(space), batch(space, 2)
    assert codec.specs["obs"].shape == (8, 9, 3)
    back = codec.decode(codec.encode(seen))
    assert back.dtype == np.float32 and np.abs(back - seen).max() <= 0.5 / 255 + 1e-6


def test_what_a_model_says_is_brought_into_the_space() -> None:
    codec = ObservationCodec(OBSERVED)
    named = codec.encode(batch(OBSERVED, 2))
    named["pose/0"] = np.array([[-9, 9], [1, 2]], np.float32)
    named["count"] = np.array([[-3.0], [7.6]], np.float32)
    named["dials"] = np.array([[4, 4], [0, 0]], np.int32)  # the first has two values only
    back = codec.decode(named)
    assert back["pose"][0].tolist() == [[-3, 9], [1, 2]]
    assert back["count"].tolist() == [[0], [8]]
    assert back["dials"].tolist() == [[2, 3], [1, -1]]
    assert batch_space(OBSERVED, 2).contains(back)


def test_actions_come_back_as_they_were() -> None:
    codec, taken = ActionCodec(ACTED), batch(ACTED, 5)
    named = codec.encode(taken)
    assert {key: value.shape[1:] for key, value in named.items()} == {k: s.shape for k, s in codec.specs.items()}
    assert np.abs(named["wheel"]).max() <= 1
    same(codec.decode(named), taken)
    one = next(iter(iterate(batch_space(ACTED, 5), taken)))
    assert ACTED.contains(one)


def test_actions_between_two_bounds_are_the_policys_numbers() -> None:
    codec = ActionCodec(spaces.Box(np.float32([-2]), np.float32([4]), dtype=np.float32))
    assert codec.encode(np.array([[-2.0], [1.0], [4.0], [9.0]]))["action"].ravel().tolist() == [-1, 0, 1, 1]


@pytest.mark.parametrize(
    ("space", "given", "sentence"),
    [
        (spaces.Discrete(3, start=1), np.array([4]), "is 3 .counted from its lowest., outside of 3"),
        (spaces.Discrete(3), np.array([[1]]), "should have the shape"),
        (spaces.Box(-1, 1, (2,)), np.array([[0.0, np.nan]]), "NaN or infinity"),
        (spaces.Dict({"a": spaces.Discrete(2)}), {"b": np.array([1])}, "does not fit"),
    ],
)
def test_what_is_no_action_is_refused(space: gym.Space, given: Any, sentence: str) -> None:
    with pytest.raises(SpaceError, match=sentence):
        ActionCodec(space).encode(given)


def test_masks_are_filled_into_the_observation() -> None:
    space = spaces.Dict({"x": spaces.Box(-1, 1, (1,)), "action_mask": spaces.Box(0, 1, (3,), np.int8)})
    interface = Interface(space, spaces.Discrete(3), masked=True)
    seen = {"x": np.zeros((2, 1), np.float32), "action_mask": np.array([[1, 0, 1], [0, 1, 1]], np.int8)}
    same(interface.observations.decode(interface.encode(seen, 2)), seen)
    other = spaces.Dict({"x": spaces.Box(-1, 1, (1,)), "action_mask": spaces.Box(0, 1, (2, 3), np.int8)})
    with pytest.raises(SpaceError, match="a form that cannot be imagined"):
        ObservationCodec(other).decode({"x": np.zeros((2, 1)), "action_mask": np.ones((2, 3))})
