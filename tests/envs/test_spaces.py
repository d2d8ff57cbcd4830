"""SpaceCodec: named arrays out of every gymnasium space, and actions back into it."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamer_agent.envs.spaces import SpaceCodec, rescale
from dreamer_agent.errors import SpaceError
from dreamer_agent.specs import ArraySpec


def stack(space: gym.Space, rows: list[Any]) -> Any:
    """Rows of a space as its vector environment would batch them."""
    return concatenate(space, rows, create_empty_array(space, len(rows)))


def encode(space: gym.Space, *rows: Any) -> dict[str, np.ndarray]:
    return SpaceCodec(space, "observation").encode(stack(space, list(rows)))


def decode(space: gym.Space, **actions: Any) -> Any:
    codec = SpaceCodec(space, "action", actions=True)
    return codec.decode({key.replace("_", "/"): np.asarray(value) for key, value in actions.items()})


def specs(space: gym.Space, actions: bool = False) -> dict[str, ArraySpec]:
    return dict(SpaceCodec(space, "action" if actions else "observation", actions).specs)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (1, 2, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.int8, np.uint8, np.bool_])
def test_boxes_of_every_rank_and_type(shape: tuple[int, ...], dtype: Any) -> None:
    space = spaces.Box(0, 1, shape, dtype)
    image = dtype is np.uint8 and len(shape) == 3
    assert specs(space) == {"obs": ArraySpec("image" if image else "continuous", shape)}
    rows = [space.sample() for _ in range(4)]
    encoded = encode(space, *rows)["obs"]
    assert encoded.dtype == (np.uint8 if image else np.float32)
    np.testing.assert_array_equal(encoded, np.stack(rows).astype(encoded.dtype))


def test_pixels_are_images_as_observations_only() -> None:
    space = spaces.Box(0, 255, (4, 5, 3), np.uint8)
    assert specs(space) == {"obs": ArraySpec("image", (4, 5, 3))}
    assert specs(space, actions=True) == {"action": ArraySpec("continuous", (4, 5, 3))}


def test_discrete_counts_from_zero() -> None:
    space = spaces.Discrete(3, start=-1)
    assert specs(space) == {"obs": ArraySpec("discrete", (), 3)}
    encoded = encode(space, np.int64(-1), np.int64(0), np.int64(1))["obs"]
    assert encoded.dtype == np.int32
    assert encoded.tolist() == [0, 1, 2]
    decoded = decode(space, action=np.array([0, 1, 2], np.int32))
    assert decoded.dtype == space.dtype
    assert decoded.tolist() == [-1, 0, 1]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_multi_discrete_with_equal_classes_is_one_array(dtype: Any) -> None:
    space = spaces.MultiDiscrete(np.array([[3, 3], [3, 3]]), dtype=dtype, start=np.array([[0, 5], [1, 2]]))
    assert specs(space, actions=True) == {"action": ArraySpec("discrete", (2, 2), 3)}
    decoded = decode(space, action=np.array([[[0, 1], [2, 0]]], np.int32))
    assert decoded.dtype == dtype
    assert decoded.tolist() == [[[0, 6], [3, 2]]]
    assert encode(space, decoded[0])["obs"].tolist() == [[[0, 1], [2, 0]]]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_multi_discrete_with_unequal_classes_is_one_array_for_each_entry(dtype: Any) -> None:
    space = spaces.MultiDiscrete([2, 5, 3], dtype=dtype, start=[0, 7, 1])
    assert specs(space) == {
        "0": ArraySpec("discrete", (), 2),
        "1": ArraySpec("discrete", (), 5),
        "2": ArraySpec("discrete", (), 3),
    }
    decoded = decode(space, **{"0": [1, 0], "1": [4, 2], "2": [2, 0]})
    assert decoded.dtype == dtype
    assert decoded.tolist() == [[1, 11, 3], [0, 9, 1]]
    encoded = encode(space, *decoded)
    assert {key: value.tolist() for key, value in encoded.items()} == {"0": [1, 0], "1": [4, 2], "2": [2, 0]}
    assert all(value.dtype == np.int32 for value in encoded.values())


@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_multi_binary_has_two_classes(shape: tuple[int, ...]) -> None:
    space = spaces.MultiBinary(shape)
    assert specs(space) == {"obs": ArraySpec("discrete", shape, 2)}
    bits = np.arange(2 * np.prod(shape)).reshape(2, *shape) % 2
    decoded = decode(space, action=bits.astype(np.int32))
    assert decoded.dtype == np.int8
    np.testing.assert_array_equal(decoded, bits)
    np.testing.assert_array_equal(encode(space, *decoded)["obs"], bits)


NESTED = spaces.Dict(
    {
        "arm": spaces.Dict({"joint": spaces.Box(-2, 2, (2,)), "grip": spaces.Discrete(2, start=3)}),
        "legs": spaces.Tuple([spaces.Discrete(4), spaces.MultiDiscrete([2, 3])]),
    }
)


def test_nested_spaces_are_named_by_their_path() -> None:
    assert specs(NESTED) == {
        "arm/joint": ArraySpec("continuous", (2,)),
        "arm/grip": ArraySpec("discrete", (), 2),
        "legs/0": ArraySpec("discrete", (), 4),
        "legs/1/0": ArraySpec("discrete", (), 2),
        "legs/1/1": ArraySpec("discrete", (), 3),
    }


def test_nested_actions_are_built_in_the_structure_of_the_space() -> None:
    actions = {
        "arm/joint": np.array([[-1.0, 0.5]], np.float32),
        "arm/grip": np.array([1], np.int32),
        "legs/0": np.array([2], np.int32),
        "legs/1/0": np.array([1], np.int32),
        "legs/1/1": np.array([2], np.int32),
    }
    decoded = SpaceCodec(NESTED, "action", actions=True).decode(actions)
    assert isinstance(decoded, dict)
    assert isinstance(decoded["legs"], tuple)
    np.testing.assert_array_equal(decoded["arm"]["joint"], [[-2.0, 1.0]])
    assert decoded["arm"]["grip"].tolist() == [4]
    assert decoded["legs"][0].tolist() == [2]
    assert decoded["legs"][1].tolist() == [[1, 2]]
    assert next(iterate(batch_space(NESTED, 1), decoded)) in NESTED


def test_actions_between_finite_bounds_are_rescaled_and_clipped() -> None:
    space = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))
    given_ = np.array([[-1, -1], [0, 0], [1, 1], [0.5, 0.5], [-3, 7]], np.float32)
    expected = [[-2, 0], [0, 5], [2, 10], [1, 7.5], [-2, 10]]
    np.testing.assert_allclose(rescale(given_, space), expected, atol=1e-6)


def test_actions_without_bounds_pass_and_with_one_bound_are_clipped_at_it() -> None:
    low, high = np.array([-np.inf, 0, -np.inf], np.float32), np.array([np.inf, np.inf, 3], np.float32)
    space = spaces.Box(low, high)
    given_ = np.array([[-7, -7, -7], [0.25, 0.25, 0.25], [7, 7, 7]], np.float32)
    expected = [[-7, 0, -7], [0.25, 0.25, 0.25], [7, 7, 3]]
    np.testing.assert_array_equal(rescale(given_, space), np.array(expected, np.float32))


def test_actions_of_integer_boxes_are_the_nearest_integers() -> None:
    space = spaces.Box(-3, 3, (1,), np.int32)
    decoded = decode(space, action=np.array([[-1], [-0.9], [-0.1], [0.3], [0.9], [1]], np.float32))
    assert decoded.dtype == np.int32
    assert decoded.ravel().tolist() == [-3, -3, 0, 1, 3, 3]
    unbounded = spaces.Box(-np.inf, np.inf, (1,), np.int32)  # its bounds are those of int32
    assert decode(unbounded, action=np.array([[-0.9], [2.2]], np.float32)).ravel().tolist() == [-1, 2]


def test_very_wide_bounds_do_not_overflow() -> None:
    wide = float(np.finfo(np.float64).max)
    space = spaces.Box(-wide, wide, (1,), np.float64)
    scaled = decode(space, action=np.array([[-1], [0], [1]], np.float32)).ravel()
    assert scaled.tolist() == [-wide, 0.0, wide]


def tampered(**changes: Any) -> spaces.Box:
    """A Box as no constructor would make it, but a careless subclass might."""
    space = spaces.Box(-1, 1, (2,))
    for name, value in changes.items():
        setattr(space, name, value)
    return space


BAD = {
    "text": (spaces.Text(5), "is a Text"),
    "graph": (spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(2)), "is a Graph"),
    "sequence": (spaces.Sequence(spaces.Discrete(2)), "is a Sequence"),
    "one_of": (spaces.OneOf([spaces.Discrete(2), spaces.Box(0, 1, (1,))]), "is a OneOf"),
    "empty_box": (spaces.Box(0, 1, (3, 0)), r"empty shape \(3, 0\)"),
    "empty_multi_discrete": (spaces.MultiDiscrete(np.zeros((0,), np.int64)), r"empty shape \(0,\)"),
    "upside_down": (tampered(low=np.array([0, 2], np.float32)), "lower bound above its upper"),
    "objects": (tampered(dtype=np.dtype(object)), "the type object; expected numbers"),
    "uneven_table": (spaces.MultiDiscrete(np.array([[2, 3], [2, 2]])), "unequal classes"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("role", ["observation", "action"])
def test_a_space_that_cannot_be_encoded_is_named_in_one_sentence(name: str, role: str) -> None:
    space, reason = BAD[name]
    nested = spaces.Dict({"outer": spaces.Tuple([spaces.Discrete(2), space])})
    for whole, place in ((space, f"The {role} space "), (nested, f"The {role} space at 'outer/1' ")):
        with pytest.raises(SpaceError) as caught:
            SpaceCodec(whole, role, actions=role == "action")
        message = str(caught.value)
        assert message.startswith(place)
        assert re.search(reason, message)
        assert "\n" not in message
        assert message.endswith(".")
        assert message.count(". ") == 0


def test_a_space_without_arrays_or_with_two_of_one_name_is_refused() -> None:
    with pytest.raises(SpaceError, match="holds nothing"):
        SpaceCodec(spaces.Dict({}), "observation")
    twice = spaces.Dict({"a/b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(3)})})
    with pytest.raises(SpaceError, match="two arrays called 'a/b'"):
        SpaceCodec(twice, "observation")


shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)
bound = st.sampled_from([-np.inf, -1e30, -3.5, -1.0, 0.0])
seeds = st.integers(0, 2**16)


@st.composite
def boxes(draw: Any) -> spaces.Box:
    shape, dtype = draw(shapes), draw(st.sampled_from([np.float32, np.float64, np.int32, np.int8, np.uint8]))
    if np.issubdtype(dtype, np.integer):
        low = draw(st.integers(0 if dtype is np.uint8 else -100, 20))
        return spaces.Box(low, low + draw(st.integers(0, 80)), shape, dtype)
    number = np.prod(shape, dtype=int)
    low = np.array([draw(bound) for _ in range(number)]).reshape(shape)
    high = np.array([0.0 - draw(bound) for _ in range(number)]).reshape(shape)
    return spaces.Box(low.astype(dtype), high.astype(dtype), shape, dtype)


@st.composite
def multi_discretes(draw: Any) -> spaces.MultiDiscrete:
    classes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    start = [draw(st.integers(-3, 3)) for _ in classes]
    return spaces.MultiDiscrete(classes, draw(st.sampled_from([np.int64, np.int32])), start=start)


flat = (
    boxes()
    | multi_discretes()
    | st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 6), st.integers(-4, 4))
    | shapes.filter(len).map(spaces.MultiBinary)
)
nested = st.recursive(
    flat,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple)
        | st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(spaces.Dict)
    ),
    max_leaves=5,
)


@settings(max_examples=120, deadline=None)
@given(nested, st.integers(1, 3), seeds)
def test_any_nested_space_is_encoded_as_its_specs_say(space: gym.Space, count: int, seed: int) -> None:
    space.seed(seed)
    codec = SpaceCodec(space, "observation")
    encoded = codec.encode(stack(space, [space.sample() for _ in range(count)]))
    assert encoded.keys() == codec.specs.keys()
    for key, spec in codec.specs.items():
        assert encoded[key].shape == (count, *spec.shape)
        assert encoded[key].dtype == spec.dtype
        if spec.kind == "discrete":
            assert (encoded[key] >= 0).all()
            assert (encoded[key] < spec.classes).all()


@settings(max_examples=120, deadline=None)
@given(nested, st.integers(1, 3), seeds)
def test_any_action_of_the_policy_lies_in_the_space(space: gym.Space, count: int, seed: int) -> None:
    codec, rng = SpaceCodec(space, "action", actions=True), np.random.default_rng(seed)

    def draw(spec: ArraySpec) -> np.ndarray:
        if spec.kind == "discrete":
            return rng.integers(0, spec.classes, (count, *spec.shape)).astype(spec.dtype)
        wild = rng.choice([0.3, 1, 100], (count, *spec.shape))
        return (rng.choice([-1.0, 0.0, 1.0, rng.normal()], (count, *spec.shape)) * wild).astype(spec.dtype)

    actions = {key: draw(spec) for key, spec in codec.specs.items()}
    decoded = codec.decode(actions)
    assert decoded in batch_space(space, count)
    assert [action in space for action in iterate(batch_space(space, count), decoded)] == [True] * count
    # What is discrete comes back as it was.
    again = codec.encode(decoded)
    for key, spec in codec.specs.items():
        if spec.kind == "discrete":
            np.testing.assert_array_equal(again[key], actions[key])
