"""Which observations are images, one-hot integers or vectors, and that each becomes exactly that."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from dreamer_agent.envs.routing import Route, image_layout, route
from dreamer_agent.envs.spaces import ObservationCodec
from dreamer_agent.errors import EnvironmentFault, SpaceError
from dreamer_agent.specs import ArraySpec


def routed(space: Any, wish: str | None = None) -> Route:
    return route(space, "The observation 'obs'", wish)


def box(high: float, *shape: int, dtype: Any = np.uint8, low: float = 0) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


IMAGES = {
    "tiny": (box(255, 8, 8, 3), (8, 8, 3)),
    "atari": (box(255, 210, 160, 3), (210, 160, 3)),
    "channels_first": (box(255, 3, 210, 160), (210, 160, 3)),
    "grey": (box(255, 84, 96), (84, 96, 1)),
    "grey_with_axis": (box(255, 84, 84, 1), (84, 84, 1)),
    "grey_first": (box(255, 1, 84, 96), (84, 96, 1)),
    "stacked_grey_first": (box(255, 4, 84, 96), (84, 96, 4)),
    "stacked_grey_last": (box(255, 84, 96, 4), (84, 96, 4)),
    "stacked_colours": (box(255, 4, 64, 48, 3), (64, 48, 12)),
    "stacked_colours_first": (box(255, 4, 3, 64, 48), (64, 48, 12)),
    "five_channels": (box(255, 9, 11, 5), (9, 11, 5)),
    "two_channels_first": (box(255, 2, 9, 11), (9, 11, 2)),
    "floats_to_one": (box(1, 12, 10, 4, dtype=np.float32), (12, 10, 4)),
    "floats_to_255": (box(255, 12, 10, 3, dtype=np.float64), (12, 10, 3)),
    "integers_to_255": (box(255, 12, 10, 3, dtype=np.int64), (12, 10, 3)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_pixels_are_images_of_height_width_channels(name: str) -> None:
    space, shape = IMAGES[name]
    found = routed(space)
    assert found.spec == ArraySpec("image", shape)
    pixels = found.encode(np.stack([space.sample(), space.sample()]))
    assert pixels.shape == (2, *shape)
    assert pixels.dtype == np.uint8


OTHERS = {
    "symbols": (box(10, 7, 7, 3), ArraySpec("discrete", (7, 7, 3), 11)),  # a small integer grid
    "symbols_of_a_byte": (box(255, 7, 7, 3), ArraySpec("continuous", (7, 7, 3))),
    "planes": (box(1, 10, 10, 4, dtype=np.bool_), ArraySpec("discrete", (10, 10, 4), 2)),
    "board": (box(2, 3, 3, dtype=np.int8, low=-2), ArraySpec("discrete", (3, 3), 5)),
    "memory": (box(255, 128), ArraySpec("continuous", (128,))),
    "small_grey": (box(255, 8, 8), ArraySpec("continuous", (8, 8))),
    "float_matrix": (box(255, 20, 20, dtype=np.float32), ArraySpec("continuous", (20, 20))),
    "channels_between": (box(255, 64, 3, 64), ArraySpec("continuous", (64, 3, 64))),
    "signed_floats": (box(1, 16, 16, 3, dtype=np.float32, low=-1), ArraySpec("continuous", (16, 16, 3))),
    "many_values": (box(32, 5, dtype=np.int32), ArraySpec("continuous", (5,))),
    "few_values": (box(31, 5, dtype=np.int32), ArraySpec("discrete", (5,), 32)),
    "many_cells": (box(1, 65, 64), ArraySpec("continuous", (65, 64))),
    "most_cells": (box(1, 64, 64), ArraySpec("discrete", (64, 64), 2)),
    "counts": (box(np.inf, 2, dtype=np.int64), ArraySpec("continuous", (2,))),
    "large_discrete": (spaces.Discrete(8193), ArraySpec("continuous", ())),
    "discrete": (spaces.Discrete(8192), ArraySpec("discrete", (), 8192)),
    "five_axes": (box(255, 1, 2, 3, 4, 5), ArraySpec("continuous", (1, 2, 3, 4, 5))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_image_is_onehot_where_it_is_small(name: str) -> None:
    space, spec = OTHERS[name]
    found = routed(space)
    assert found.spec == spec
    assert found.reason
    value = found.encode(np.stack([space.sample() for _ in range(3)]))
    assert value.shape == (3, *spec.shape)
    assert value.dtype == spec.dtype


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((8, 8, 8), "HWC"), ((8, 9, 8), "HWC"), ((8, 9, 10), "CHW"), ((7, 9, 3), None), ((64, 64), "HW"),
        ((15, 64), None), ((2, 8, 8, 3), "NHWC"), ((2, 3, 8, 8), "NCHW"), ((2, 7, 8, 3), None), ((4,), None),
    ],
)  # fmt: skip
def test_the_layout_is_read_off_the_shape(shape: tuple[int, ...], layout: str | None) -> None:
    assert image_layout(shape) == layout


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ((9, 8), lambda y, x, c, n: (y, x)),
        ((9, 8, 3), lambda y, x, c, n: (y, x, c)),
        ((3, 9, 8), lambda y, x, c, n: (c, y, x)),
        ((2, 9, 8, 3), lambda y, x, c, n: (n, y, x, c)),
        ((2, 3, 9, 8), lambda y, x, c, n: (n, c, y, x)),
    ],
)
def test_every_pixel_goes_to_its_row_column_and_channel(shape: tuple[int, ...], place: Any) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    encoded = routed(spaces.Box(0, 255, shape, np.uint8), "image").encode(image[None])[0]
    channels = 3 if 3 in shape else 1
    for y, x, c, n in np.ndindex(9, 8, channels, 2 if len(shape) == 4 else 1):
        assert encoded[y, x, n * channels + c] == image[place(y, x, c, n)]


def test_pixels_of_other_scales_become_bytes() -> None:
    unit = routed(spaces.Box(0, 1, (8, 8, 1), np.float32))
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    np.testing.assert_array_equal(unit.encode(values), np.rint(values * 255))
    np.testing.assert_array_equal(unit.encode(values * 3 - 1), np.rint(np.clip(values * 3 - 1, 0, 1) * 255))
    signed = routed(spaces.Box(-2, 6, (8, 8, 1), np.float64), "image")
    corners = signed.encode(np.array([-2.0, 2.0, 6.0]).repeat(64).reshape(3, 8, 8, 1))
    assert corners[:, 0, 0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("layout", ["HWC", "CHW"])
def test_an_encoded_image_is_a_copy(layout: str) -> None:
    """Vector environments may write the next observation into the array that they gave."""
    space = spaces.Box(0, 255, (8, 8, 3) if layout == "HWC" else (3, 8, 8), np.uint8)
    buffer = np.zeros((2, *space.shape), np.uint8)
    encoded = routed(space).encode(buffer)
    buffer[:] = 9
    assert encoded.max() == 0


def test_an_image_with_nan_is_a_fault() -> None:
    space = spaces.Box(0, 1, (8, 8, 3), np.float32)
    with pytest.raises(EnvironmentFault, match="NaN"):
        routed(space).encode(np.full((1, 8, 8, 3), np.nan, np.float32))


def test_integers_outside_of_their_bounds_are_a_fault() -> None:
    found = routed(spaces.Box(3, 5, (2,), np.int32))
    assert found.encode(np.array([[3, 5]])).tolist() == [[0, 2]]
    for wrong, shown in ((2, "-1"), (6, "3")):
        with pytest.raises(
            EnvironmentFault, match=f"The observation 'obs' gave {shown} .*outside of its 3 values"
        ):
            found.encode(np.array([[3, wrong]]))


def test_wishes_override_the_rules() -> None:
    board = box(10, 7, 7, 3)
    assert routed(board, "image").spec == ArraySpec("image", (7, 7, 3))
    assert routed(board, "vector").spec == ArraySpec("continuous", (7, 7, 3))
    assert routed(board, "CHW").spec == ArraySpec("image", (7, 3, 7))
    assert routed(box(255, 8), "onehot").spec == ArraySpec("discrete", (8,), 256)
    assert routed(spaces.Discrete(3), "vector").encode([2]).tolist() == [2.0]
    assert routed(spaces.Discrete(10_000), "onehot").spec.classes == 10_000
    assert routed(box(1, 9, 9, dtype=np.float32), "image").spec == ArraySpec("image", (9, 9, 1))


@pytest.mark.parametrize(
    ("space", "wish", "reason"),
    [
        (box(255, 8, 8, 3), "picture", "cannot be routed as 'picture': choose image, HW, HWC"),
        (box(255, 8), "image", "cannot be routed as 'image'"),
        (box(255, 8, 8), "HWC", "cannot be routed as 'HWC'"),
        (box(np.inf, 8, 8, 3, dtype=np.float32), "image", "finite bounds"),
        (box(1, 8, dtype=np.float32), "onehot", "bounded integers"),
        (box(np.inf, 8, dtype=np.int32), "onehot", "bounded integers"),
        (spaces.Discrete(5), "image", "cannot be an image"),
        (spaces.MultiBinary((8, 8, 3)), "HWC", "cannot be an image"),
        (spaces.Text(5), "vector", "only onehot"),
    ],
)
def test_a_wish_that_cannot_be_met_is_told_in_one_sentence(space: Any, wish: str, reason: str) -> None:
    with pytest.raises(SpaceError) as caught:
        routed(space, wish)
    message = str(caught.value)
    assert message.startswith("The observation 'obs'") and reason in message
    assert "\n" not in message and message.endswith(".")


def test_wishes_are_given_by_key() -> None:
    space = spaces.Dict({"a": box(255, 8), "b": spaces.Tuple([box(255, 8)])})
    specs = ObservationCodec(space, {"b/0": "onehot"}).specs
    assert specs == {"a": ArraySpec("continuous", (8,)), "b/0": ArraySpec("discrete", (8,), 256)}
    with pytest.raises(SpaceError, match="names the observation 'c', but there are a, b/0"):
        ObservationCodec(space, {"c": "vector"})


def test_text_is_one_class_for_each_character() -> None:
    found = routed(spaces.Text(4, charset="cab", min_length=0))
    assert found.spec == ArraySpec("discrete", (4,), 4)
    assert found.encode(("abc", "", "cccc")).tolist() == [[1, 2, 3, 0], [0, 0, 0, 0], [3, 3, 3, 3]]
    with pytest.raises(EnvironmentFault, match="gave the text 'dad', which Text"):
        found.encode(("dad",))
    with pytest.raises(SpaceError, match="a Text of up to 1000 characters out of 62, too large"):
        routed(spaces.Text(1000))


def test_text_means_the_same_in_every_process() -> None:
    """The order of a set of characters differs between processes."""
    program = """
from gymnasium import spaces
from dreamer_agent.envs.routing import route
print(route(spaces.Text(6), "The observation 'obs'").encode(["Dreams"]).tolist())
"""
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(eval(runs[0])[0]) == 6
