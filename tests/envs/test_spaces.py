"""Named arrays out of every gymnasium space, and actions back into it."""

from __future__ import annotations

import json
import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamer_agent.envs.interface import space_from_json, space_to_json
from dreamer_agent.envs.spaces import ActionCodec, ObservationCodec, rescale
from dreamer_agent.errors import SpaceError
from dreamer_agent.specs import ArraySpec


def stack(space: gym.Space, rows: list[Any]) -> Any:
    """Rows of a space as its vector environment would batch them."""
    return concatenate(space, rows, create_empty_array(space, len(rows)))


def encode(space: gym.Space, *rows: Any) -> dict[str, np.ndarray]:
    return ObservationCodec(space).encode(stack(space, list(rows)))


def decode(space: gym.Space, **actions: Any) -> Any:
    codec = ActionCodec(space)
    return codec.decode({key.replace("_", "/"): np.asarray(value) for key, value in actions.items()})


def observed(space: gym.Space) -> dict[str, ArraySpec]:
    return dict(ObservationCodec(space).specs)


def acted(space: gym.Space) -> dict[str, ArraySpec]:
    return dict(ActionCodec(space).specs)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (1, 2, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.int8, np.uint8, np.bool_])
def test_boxes_of_every_rank_and_type(shape: tuple[int, ...], dtype: Any) -> None:
    space = spaces.Box(0, 1, shape, dtype)
    few = np.dtype(dtype).kind in "biu"
    assert observed(space) == {"obs": ArraySpec("discrete", shape, 2) if few else ArraySpec("continuous", shape)}
    rows = [space.sample() for _ in range(4)]
    encoded = encode(space, *rows)["obs"]
    assert encoded.dtype == (np.int32 if few else np.float32)
    np.testing.assert_array_equal(encoded, np.stack(rows).astype(encoded.dtype))
    assert acted(space) == {"action": ArraySpec("continuous", shape)}


def test_numbers_that_only_float64_holds_become_the_largest_of_float32() -> None:
    space = spaces.Box(-np.inf, np.inf, (4,), np.float64)
    encoded = encode(space, np.array([1e300, -1e300, 1e-300, 0.1]))["obs"]
    largest = np.finfo(np.float32).max
    assert encoded.tolist() == [[largest, -largest, 0.0, np.float32(0.1)]]


def test_discrete_counts_from_zero() -> None:
    space = spaces.Discrete(3, start=-1)
    assert observed(space) == {"obs": ArraySpec("discrete", (), 3)}
    encoded = encode(space, np.int64(-1), np.int64(0), np.int64(1))["obs"]
    assert encoded.dtype == np.int32
    assert encoded.tolist() == [0, 1, 2]
    decoded = decode(space, action=np.array([0, 1, 2], np.int32))
    assert decoded.dtype == space.dtype
    assert decoded.tolist() == [-1, 0, 1]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_multi_discrete_with_equal_classes_is_one_array(dtype: Any) -> None:
    space = spaces.MultiDiscrete(np.array([[3, 3], [3, 3]]), dtype=dtype, start=np.array([[0, 5], [1, 2]]))
    assert observed(space) == {"obs": ArraySpec("discrete", (2, 2), 3)}
    assert acted(space) == {"action": ArraySpec("discrete", (2, 2), 3)}
    decoded = decode(space, action=np.array([[[0, 1], [2, 0]]], np.int32))
    assert decoded.dtype == dtype
    assert decoded.tolist() == [[[0, 6], [3, 2]]]
    assert encode(space, decoded[0])["obs"].tolist() == [[[0, 1], [2, 0]]]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_multi_discrete_with_unequal_classes_is_one_action_for_each_entry(dtype: Any) -> None:
    space = spaces.MultiDiscrete([2, 5, 3], dtype=dtype, start=[0, 7, 1])
    assert acted(space) == {
        "0": ArraySpec("discrete", (), 2),
        "1": ArraySpec("discrete", (), 5),
        "2": ArraySpec("discrete", (), 3),
    }
    decoded = decode(space, **{"0": [1, 0], "1": [4, 2], "2": [2, 0]})
    assert decoded.dtype == dtype
    assert decoded.tolist() == [[1, 11, 3], [0, 9, 1]]
    # As an observation it stays one array, with the classes of the widest entry.
    assert observed(space) == {"obs": ArraySpec("discrete", (3,), 5)}
    assert encode(space, *decoded)["obs"].tolist() == [[1, 4, 2], [0, 2, 0]]


def test_a_table_of_unequal_classes_is_one_action_for_each_cell() -> None:
    space = spaces.MultiDiscrete(np.array([[2, 3], [4, 2]]), start=np.array([[0, 10], [20, 30]]))
    assert {key: spec.classes for key, spec in acted(space).items()} == {"0/0": 2, "0/1": 3, "1/0": 4, "1/1": 2}
    codec = ActionCodec(space)
    decoded = codec.decode(
        {"0/0": np.array([1]), "0/1": np.array([2]), "1/0": np.array([3]), "1/1": np.array([0])}
    )
    assert decoded.tolist() == [[[1, 12], [23, 30]]]
    assert decoded.dtype == space.dtype


@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_multi_binary_has_two_classes(shape: tuple[int, ...]) -> None:
    space = spaces.MultiBinary(shape)
    assert observed(space) == {"obs": ArraySpec("discrete", shape, 2)}
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
    assert acted(NESTED) == {
        "arm/joint": ArraySpec("continuous", (2,)),
        "arm/grip": ArraySpec("discrete", (), 2),
        "legs/0": ArraySpec("discrete", (), 4),
        "legs/1/0": ArraySpec("discrete", (), 2),
        "legs/1/1": ArraySpec("discrete", (), 3),
    }
    assert observed(NESTED).keys() == {"arm/joint", "arm/grip", "legs/0", "legs/1"}


def test_nested_actions_are_built_in_the_structure_of_the_space() -> None:
    actions = {
        "arm/joint": np.array([[-1.0, 0.5]], np.float32),
        "arm/grip": np.array([1], np.int32),
        "legs/0": np.array([2], np.int32),
        "legs/1/0": np.array([1], np.int32),
        "legs/1/1": np.array([2], np.int32),
    }
    decoded = ActionCodec(NESTED).decode(actions)
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


def test_actions_without_bounds_pass_and_a_single_bound_is_reached_by_one() -> None:
    low, high = np.array([-np.inf, 5, -np.inf], np.float32), np.array([np.inf, np.inf, 3], np.float32)
    space = spaces.Box(low, high)
    given_ = np.array([[-7, -7, -7], [-1, -1, -1], [0.25, 0.25, 0.25], [1, 1, 1], [7, 7, 7]], np.float32)
    expected = [[-7, 5, -5], [-1, 5, 1], [0.25, 6.25, 2.25], [1, 7, 3], [7, 13, 3]]
    np.testing.assert_array_equal(rescale(given_, space), np.array(expected, np.float32))


@pytest.mark.parametrize("edge", [1e30, float(np.finfo(np.float32).max)])
def test_bounds_too_far_to_be_meant_count_as_none(edge: float) -> None:
    action = np.array([[-1.5], [0.0], [1.0]], np.float32)
    np.testing.assert_array_equal(rescale(action, spaces.Box(-edge, edge, (1,))), action)
    np.testing.assert_array_equal(rescale(action, spaces.Box(2, edge, (1,))), [[2], [3], [4]])
    np.testing.assert_array_equal(rescale(action, spaces.Box(-edge, 2, (1,))), [[-0.5], [1], [2]])


def test_actions_of_integer_boxes_are_the_nearest_integers() -> None:
    space = spaces.Box(-3, 3, (1,), np.int32)
    decoded = decode(space, action=np.array([[-1], [-0.9], [-0.1], [0.3], [0.9], [1]], np.float32))
    assert decoded.dtype == np.int32
    assert decoded.ravel().tolist() == [-3, -3, 0, 1, 3, 3]
    unbounded = spaces.Box(-np.inf, np.inf, (1,), np.int32)  # its bounds are those of int32
    assert decode(unbounded, action=np.array([[-0.9], [2.2]], np.float32)).ravel().tolist() == [-1, 2]


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (0, 2**62), (-(2**63), 2**62)])
def test_actions_of_wide_integer_boxes_stay_inside(bounds: tuple[float, float]) -> None:
    space = spaces.Box(*bounds, (1,), np.int64)
    decoded = decode(space, action=np.array([[-1], [0], [1]], np.float32))
    assert all(row in space for row in decoded)
    assert np.diff(decoded.ravel()).tolist() == [1, 1]


def tampered(**changes: Any) -> spaces.Box:
    """A Box as no constructor would make it, but a careless subclass might."""
    space = spaces.Box(-1, 1, (2,))
    for name, value in changes.items():
        setattr(space, name, value)
    return space


BAD = {
    "graph": (spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(2)), "is a Graph"),
    "sequence": (spaces.Sequence(spaces.Discrete(2)), "is a Sequence"),
    "one_of": (spaces.OneOf([spaces.Discrete(2), spaces.Box(0, 1, (1,))]), "is a OneOf"),
    "empty_box": (spaces.Box(0, 1, (3, 0)), r"empty shape \(3, 0\)"),
    "upside_down": (tampered(low=np.array([0, 2], np.float32)), "lower bound above its upper"),
    "objects": (tampered(dtype=np.dtype(object)), "the type object; expected real numbers"),
    "complex": (tampered(dtype=np.dtype(np.complex64)), "the type complex64; expected real numbers"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("role", ["observation", "action"])
def test_a_space_that_cannot_be_encoded_is_named_in_one_sentence(name: str, role: str) -> None:
    space, reason = BAD[name]
    codec: Any = {"observation": ObservationCodec, "action": ActionCodec}[role]
    nested = spaces.Dict({"outer": spaces.Tuple([spaces.Discrete(2), space])})
    for whole, key in ((space, "obs" if role == "observation" else "action"), (nested, "outer/1")):
        with pytest.raises(SpaceError) as caught:
            codec(whole)
        message = str(caught.value)
        assert message.startswith(f"The {role} '{key}' ")
        assert re.search(reason, message)
        assert "\n" not in message
        assert message.endswith(".")
        assert message.count(". ") == 0


def test_text_cannot_be_an_action() -> None:
    with pytest.raises(SpaceError, match="The action 'action' is a Text, which a policy cannot fill"):
        ActionCodec(spaces.Text(5))


def test_a_space_without_arrays_or_with_two_of_one_name_is_refused() -> None:
    twice = spaces.Dict({"a/b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(3)})})
    for codec in (ObservationCodec, ActionCodec):
        with pytest.raises(SpaceError, match="holds nothing"):
            codec(spaces.Dict({}))
        with pytest.raises(SpaceError, match="two arrays called 'a/b'"):
            codec(twice)
    with pytest.raises(SpaceError, match="holds nothing to observe"):
        ObservationCodec(spaces.Dict({"action_mask": spaces.MultiBinary(3)}))


LETTERS = "abc XYZ-é"
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
def images(draw: Any) -> spaces.Box:
    sides = [draw(st.integers(8, 21)), draw(st.integers(8, 21))]
    channels = draw(st.integers(1, 8))
    shape = draw(st.sampled_from([[*sides, channels], [channels, *sides], [2, *sides, channels]]))
    peak, dtype = draw(st.sampled_from([(255, np.uint8), (255, np.float32), (1, np.float64), (255, np.int64)]))
    return spaces.Box(0, peak, shape, dtype)


@st.composite
def multi_discretes(draw: Any) -> spaces.MultiDiscrete:
    shape = draw(st.sampled_from([(1,), (3,), (2, 2), (2, 1, 2)]))
    number = int(np.prod(shape))
    classes = np.array([draw(st.integers(1, 5)) for _ in range(number)]).reshape(shape)
    start = np.array([draw(st.integers(-3, 3)) for _ in range(number)]).reshape(shape)
    return spaces.MultiDiscrete(classes, draw(st.sampled_from([np.int64, np.int32])), start=start)


acting = (
    boxes()
    | multi_discretes()
    | st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 6), st.integers(-4, 4))
    | (shapes.filter(len) | st.integers(1, 3)).map(spaces.MultiBinary)
)
texts = st.builds(
    lambda most, chars: spaces.Text(most, charset=chars),
    st.integers(1, 5), st.text(LETTERS, min_size=1, max_size=5).map(lambda text: "".join(sorted(set(text)))),
)  # fmt: skip


def nest(flat: Any) -> Any:
    return st.recursive(
        flat,
        lambda inner: (
            st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple)
            | st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(spaces.Dict)
        ),
        max_leaves=5,
    )


seen_spaces, acted_spaces = nest(acting | images() | texts), nest(acting)


def batched(space: gym.Space, count: int, seed: int) -> tuple[list[Any], Any]:
    space.seed(seed)
    rows = [space.sample() for _ in range(count)]
    return rows, stack(space, rows)


def leaves(space: gym.Space, value: Any) -> list[tuple[gym.Space, Any]]:
    if isinstance(space, spaces.Dict):
        return [pair for key, member in space.spaces.items() for pair in leaves(member, value[key])]
    if isinstance(space, spaces.Tuple):
        return [pair for member, item in zip(space, value, strict=True) for pair in leaves(member, item)]
    return [(space, value)]


def recovered(space: gym.Space, spec: ArraySpec, row: np.ndarray) -> Any:
    """What an encoded row says of the value that it was made of."""
    if isinstance(space, spaces.Text):
        letters = sorted(space.character_set)
        return "".join(letters[index - 1] for index in row if index)
    if isinstance(space, spaces.Box):
        return row + space.low if spec.kind == "discrete" else row
    return row + getattr(space, "start", 0)


@settings(max_examples=100, deadline=None)
@given(seen_spaces, st.integers(1, 3), seeds)
def test_any_nested_observation_is_encoded_as_its_specs_say(space: gym.Space, count: int, seed: int) -> None:
    codec = ObservationCodec(space)
    rows, batch = batched(space, count, seed)
    encoded = codec.encode(batch)
    assert encoded.keys() == codec.specs.keys()
    for position, (key, spec) in enumerate(codec.specs.items()):
        assert encoded[key].shape == (count, *spec.shape)
        assert encoded[key].dtype == spec.dtype
        for row, whole in zip(encoded[key], rows, strict=True):
            member, value = leaves(space, whole)[position]
            if spec.kind == "image":  # the same pixels, whatever the layout
                pixels = value * (255 / member.high.max())  # type: ignore[attr-defined]
                np.testing.assert_array_equal(np.sort(row, None), np.sort(np.rint(pixels), None))
            elif isinstance(member, spaces.Text):
                assert recovered(member, spec, row) == value
            else:
                np.testing.assert_allclose(recovered(member, spec, row), value, rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(acted_spaces, st.integers(1, 3), seeds)
def test_any_action_of_the_policy_lies_in_the_space(space: gym.Space, count: int, seed: int) -> None:
    codec, rng = ActionCodec(space), np.random.default_rng(seed)

    def draw(spec: ArraySpec) -> np.ndarray:
        if spec.kind == "discrete":
            return rng.integers(0, spec.classes, (count, *spec.shape)).astype(spec.dtype)
        wild = rng.choice([0.3, 1, 100], (count, *spec.shape))
        return (rng.choice([-1.0, 0.0, 1.0, rng.normal()], (count, *spec.shape)) * wild).astype(spec.dtype)

    actions = {key: draw(spec) for key, spec in codec.specs.items()}
    decoded = codec.decode(actions)
    assert decoded in batch_space(space, count)
    single = list(iterate(batch_space(space, count), decoded))
    assert [action in space for action in single] == [True] * count
    for action in single:
        for member, value in leaves(space, action):
            assert np.asarray(value).dtype == member.dtype
    for index in range(count):  # a row depends on its own numbers alone
        alone = codec.decode({key: value[index : index + 1] for key, value in actions.items()})
        for (_, one), (_, other) in zip(leaves(space, alone), leaves(space, decoded), strict=True):
            np.testing.assert_array_equal(one[0], other[index])


@settings(max_examples=100, deadline=None)
@given(seen_spaces, acted_spaces, seeds)
def test_any_space_survives_json(seen: gym.Space, acted_: gym.Space, seed: int) -> None:
    for space in (seen, acted_):
        again = space_from_json(json.loads(json.dumps(space_to_json(space))))
        assert again == space
    before, after = ActionCodec(acted_), ActionCodec(again)
    assert before.specs == after.specs
    rng = np.random.default_rng(seed)
    actions = {key: rng.integers(0, spec.classes or 2, (2, *spec.shape)) for key, spec in before.specs.items()}
    for (_, one), (_, other) in zip(
        leaves(acted_, before.decode(actions)), leaves(acted_, after.decode(actions)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
