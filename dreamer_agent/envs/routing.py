"""How each array of an observation enters the networks: the rules, in one place, with their reasons.

A member of the observation space is one of

    image    pixels for the convolutions, stored as uint8 [height, width, channels]
    onehot   integers from zero, one-hot for the networks
    vector   float32 numbers of any shape, in symlog space for the networks

The rules, in order; `env.route` in the configuration overrides them by key, with one of these words or, for an
image whose axes are guessed wrongly, with its layout (HW, HWC, CHW, NHWC, NCHW):

1. A Box holds pixels if its bounds are 0 and 255 (any type), or 0 and 1 (floats). Pixels are an image if they
   have three axes, the smallest of which is the first or the last (channels; the last where both could be) and
   the other two are at least 8 long; or four axes, a stack of such images, whose frames become channels; or two
   axes of uint8, both at least 16 long (grey).
2. Integers and booleans are one-hot where every entry has at most 32 values and all of them together take at
   most 8192 numbers: so a small grid of integers is not an image because it has three axes.
3. Discrete, MultiDiscrete and MultiBinary are one-hot within the same 8192 numbers. Text is one-hot by
   character, with one class more for the end.
4. Everything else is a vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from dreamer_agent.errors import EnvironmentFault, SpaceError
from dreamer_agent.specs import ArraySpec

SMALLEST_IMAGE = 8  # pixels a side, twice that without a channel axis; MiniGrid's 7 x 7 symbols are no image
MOST_VALUES = 32  # of an integer that is one-hot
MOST_ONEHOT = 8192  # numbers that one observation may take once it is one-hot
FLOAT32 = float(np.finfo(np.float32).max)
LAYOUTS = {
    "HW": (0, 1),
    "HWC": (0, 1, 2),
    "CHW": (1, 2, 0),
    "NHWC": (1, 2, 0, 3),
    "NCHW": (2, 3, 0, 1),
}  # to [H, W, ...]

Encoder = Callable[[Any], np.ndarray]  # a batch of the space's own values -> arrays [E, *shape]


@dataclass(frozen=True)
class Route:
    """What an observation becomes, the reason in words, and the function that makes it so.

    `layout` is the meaning of the axes of an image in its space.
    """

    spec: ArraySpec
    reason: str
    encode: Encoder
    layout: str = ""


def route(space: gym.Space, where: str, wish: str | None = None) -> Route:
    """The route of an observation without members.

    `wish` ("image", a layout, "onehot", "vector") overrides the rules. Raises `SpaceError` for a space that
    cannot be encoded, or not as wished. `where` names it in the message.
    """
    if wish is not None and wish not in ("image", "onehot", "vector", *LAYOUTS):
        raise SpaceError(
            f"{where} cannot be routed as '{wish}': choose image, {', '.join(LAYOUTS)}, onehot or vector in "
            "env.route."
        )
    if isinstance(space, gym.spaces.Box):
        return _box(space, where, wish)
    if isinstance(space, gym.spaces.Text):
        return _text(space, wish, where)
    if isinstance(space, gym.spaces.Discrete):
        return _integers((), space.start, int(space.n), wish, where, f"Discrete of {space.n} values")
    if isinstance(space, gym.spaces.MultiBinary):
        return _integers(space.shape, 0, 2, wish, where, "MultiBinary")
    if isinstance(space, gym.spaces.MultiDiscrete):
        classes = int(space.nvec.max())
        return _integers(space.nvec.shape, space.start, classes, wish, where, f"MultiDiscrete up to {classes}")
    raise SpaceError(
        f"{where} is a {type(space).__name__}, which cannot be encoded: wrap the environment so that it gives "
        "Box, Discrete, MultiDiscrete, MultiBinary, Text, or a Dict or Tuple of these."
    )


def _box(space: gym.spaces.Box, where: str, wish: str | None) -> Route:
    check_box(space, where)
    peak = pixel_peak(space)
    layout = image_layout(space.shape) if peak is not None else None
    if layout == "HW" and space.dtype != np.uint8 and wish is None:
        layout = None
    if wish == "image" or wish in LAYOUTS:
        layout = wish if wish in LAYOUTS else layout or image_layout(space.shape, smallest=1)
        bounded = space.bounded_below.all() and space.bounded_above.all()
        if layout is None or len(layout) != len(space.shape) or not bounded:
            raise SpaceError(
                f"{where}, {space}, cannot be routed as '{wish}': that takes finite bounds and two, three or "
                "four axes, as many as the layout has letters."
            )
        return _image(space, layout, "asked for in env.route")
    if wish is None and layout is not None:
        return _image(space, layout, f"pixels from 0 to {peak:g} in the layout {layout}")
    integer = np.dtype(space.dtype).kind in "biu"
    values = _values(space) if integer else None
    fits = values is not None and values <= MOST_VALUES and math.prod(space.shape) * values <= MOST_ONEHOT
    if wish == "onehot" or (wish is None and fits):
        if values is None:
            raise SpaceError(f"{where}, {space}, cannot be onehot: that takes bounded integers.")
        start = space.low.astype(np.int64)
        return _integers(space.shape, start, values, "onehot", where, f"integers of {values} values")
    if peak is not None and len(space.shape) == 3:
        return _vector(space.shape, f"too small for an image: sides below {SMALLEST_IMAGE}, or channels between")
    many = f", of too many values ({values or 'unbounded'}) for one-hot" if integer else ""
    return _vector(space.shape, f"{space.dtype} numbers of shape {list(space.shape)}{many}")


def pixel_peak(space: gym.spaces.Box) -> float | None:
    """The largest pixel, 255 or 1, if the bounds are those of pixels."""
    if space.dtype == bool or space.shape == () or not np.all(space.low == 0):
        return None
    if np.all(space.high == 255):
        return 255.0
    return 1.0 if np.dtype(space.dtype).kind == "f" and np.all(space.high == 1) else None


def image_layout(shape: tuple[int, ...], smallest: int = SMALLEST_IMAGE) -> str | None:
    """The meaning of the axes ("HW", "HWC", "CHW", with "N" before a stack), or None if it is no image."""
    if len(shape) == 4:
        inner = image_layout(shape[1:], smallest)
        return f"N{inner}" if inner in ("HWC", "CHW") else None
    if len(shape) == 2:
        return "HW" if min(shape) >= 2 * smallest else None
    if len(shape) != 3:
        return None
    if shape[2] <= min(shape[:2]):
        return "HWC" if min(shape[:2]) >= smallest else None
    if shape[0] <= min(shape[1:]):
        return "CHW" if min(shape[1:]) >= smallest else None
    return None


def _image(space: gym.spaces.Box, layout: str, reason: str) -> Route:
    """Pixels as uint8 `[H, W, C]`: the bounds become 0 and 255, frames of a stack become channels."""
    order = LAYOUTS[layout]
    sides = [space.shape[axis] for axis in order]
    shape = (sides[0], sides[1], math.prod(sides[2:]))
    low, span = float(space.low.min()), float(space.high.max()) - float(space.low.min())

    def encode(value: Any) -> np.ndarray:
        value = np.asarray(value)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise EnvironmentFault(
                "An image holds NaN or infinity; expected finite pixels: mend the environment."
            )
        if (low, span) != (0.0, 255.0):
            value = (value.astype(np.float64) - low) * (255 / max(span, 1e-12))
        if value.dtype != np.uint8:
            value = np.clip(np.rint(value), 0, 255).astype(np.uint8)
        moved = value.transpose(0, *(axis + 1 for axis in order))
        # Always a copy: the environment may use its own array again for the next observation.
        return np.array(moved, order="C").reshape(len(value), *shape)

    return Route(ArraySpec("image", shape), reason, encode, layout)


def _integers(shape: tuple[int, ...], start: Any, classes: int, wish: str | None, where: str, what: str) -> Route:
    size = math.prod(shape) * classes
    if wish == "image" or wish in LAYOUTS:
        raise SpaceError(f"{where} is {what}, which cannot be an image: choose onehot or vector in env.route.")
    if wish == "vector" or (wish is None and size > MOST_ONEHOT):
        return _vector(
            shape, f"{what}, {size:,} numbers as one-hot" if wish is None else "asked for in env.route"
        )
    spec = ArraySpec("discrete", tuple(shape), classes)

    def encode(value: Any) -> np.ndarray:
        value = np.asarray(value).astype(np.int64) - start
        if value.size and (value.min() < 0 or value.max() >= classes):
            raise EnvironmentFault(
                f"{where} gave {int(value.min() if value.min() < 0 else value.max())} (counted from its lowest "
                f"value), outside of its {classes} values: mend the environment's space, or set env.route to "
                "vector."
            )
        return value.astype(np.int32)

    return Route(spec, what, encode)


def _vector(shape: tuple[int, ...], reason: str) -> Route:
    def encode(value: Any) -> np.ndarray:
        value = np.asarray(value)
        if value.dtype.kind == "f" and value.dtype.itemsize > 4:  # finite there may be infinite here
            value = np.where(np.isfinite(value), np.clip(value, -FLOAT32, FLOAT32), value)
        return value.astype(np.float32)

    return Route(ArraySpec("continuous", tuple(shape)), reason, encode)


def _text(space: gym.spaces.Text, wish: str | None, where: str) -> Route:
    """Characters as indices from one, in alphabetical order and padded by zero.

    The order of gymnasium is that of a set, another one in every process.
    """
    if wish not in (None, "onehot"):
        raise SpaceError(f"{where} is a Text, which cannot be routed as '{wish}': only onehot is possible.")
    indices = {char: index + 1 for index, char in enumerate(sorted(space.character_set))}
    classes = len(indices) + 1
    if space.max_length * classes > MOST_ONEHOT:
        raise SpaceError(
            f"{where} is a Text of up to {space.max_length} characters out of {classes - 1}, too large to encode "
            f"(more than {MOST_ONEHOT} numbers): shorten it, or embed it in a wrapper."
        )

    def encode(values: Any) -> np.ndarray:
        out = np.zeros((len(values), space.max_length), np.int32)
        for row, text in zip(out, values, strict=True):
            if not space.contains(str(text)):
                raise EnvironmentFault(
                    f"{where} gave the text {str(text)[:60]!r}, which {space} does not contain."
                )
            row[: len(text)] = [indices[char] for char in str(text)]
        return out

    return Route(ArraySpec("discrete", (space.max_length,), classes), "text, one-hot by character", encode)


def _values(space: gym.spaces.Box) -> int | None:
    """How many values the widest entry has, or None without bounds."""
    if not (space.bounded_below.all() and space.bounded_above.all()):
        return None
    return int((space.high.astype(np.float64) - space.low.astype(np.float64)).max()) + 1


def check_box(space: gym.spaces.Box, where: str) -> None:
    """Raise `SpaceError` where the Box holds no numbers, is empty, or has its bounds upside down."""
    if not (np.issubdtype(space.dtype, np.number) or space.dtype == bool) or np.dtype(space.dtype).kind == "c":
        raise SpaceError(f"{where} has the type {space.dtype}; expected real numbers: convert it in a wrapper.")
    check_not_empty(space, where)
    if np.any(space.low > space.high):
        raise SpaceError(f"{where} has a lower bound above its upper bound: swap them.")


def check_not_empty(space: gym.Space, where: str) -> None:
    """Raise `SpaceError` for a shape without elements."""
    if 0 in (space.shape or ()):
        raise SpaceError(f"{where} has the empty shape {space.shape}: remove it.")
