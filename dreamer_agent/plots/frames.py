"""Frames of videos, labelled so that they explain themselves."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from dreamer_agent.dreams import OpenLoop
from dreamer_agent.plots.dream import image_rows, unforeseen
from dreamer_agent.plots.style import IMAGINED, OBSERVED, rgb
from dreamer_agent.training.record import Recording, shrink

LEAST, MOST = 128, 320  # pixels of an image's longer side once it is enlarged or shrunk: one of several,
LEAST_ALONE, MOST_ALONE = 240, 480  # or the only one
GAP, BORDER, LINE, BAR = 8, 3, 22, 6  # pixels: between images, around them, a line of text, the bar of time
TEXT, FAINT = "#222222", "#666666"
MEANING = {
    OBSERVED: ("OBSERVED", "the model sees the true images"),
    IMAGINED: ("IMAGINED", "the model sees only the actions, no resets"),
}


def scale(images: np.ndarray, least: int = LEAST, most: int = MOST) -> np.ndarray:
    """Images `[..., H, W, C]` enlarged to `least` pixels or shrunk below `most`, by whole factors.

    Enlarged pixels stay squares, so that the few pixels of a small image can be seen as they are.
    """
    factor = -(-least // max(images.shape[-3:-1]))
    if factor > 1:
        return images.repeat(factor, -3).repeat(factor, -2)
    return shrink(images, most)


def dream_frames(dream: OpenLoop, key: str, sequences: int = 3) -> list[np.ndarray]:
    """The frames `[T, H, W, 3]` of a video of the image `key`: truth, prediction and error of some sequences.

    A banner and the frames around the images are green while the model observes and red while it imagines.
    """
    rows = {name: scale(images[:sequences]) for name, images in image_rows(dream, key).items()}
    return [_dream_frame(dream, rows, step) for step in range(rows["truth"].shape[1])]


def episode_frames(recording: Recording, title: str) -> list[np.ndarray]:
    """The frames of a recorded episode under a caption: `title`, and step and return so far."""
    images, steps = scale(rgb(recording.frames), LEAST_ALONE, MOST_ALONE), len(recording.rewards) - 1
    returns = np.cumsum(recording.rewards)
    captions = [f"step {i:,} of {steps:,}   return {returns[i]:,.2f}" for i in range(len(images))]
    width = _room([title, *captions])
    return [captioned(image, [title, text], width) for image, text in zip(images, captions, strict=True)]


def _dream_frame(dream: OpenLoop, rows: dict[str, np.ndarray], step: int) -> np.ndarray:
    count, total, height, width, _ = rows["truth"].shape
    color = _color(dream, step)
    wide, high = width + 2 * BORDER, height + 2 * BORDER
    left, top = _room(rows), 3 * LINE + BAR
    least = max(_room(_banner_lines(shade, total, total), 15) for shade in MEANING)
    image, draw = canvas(max(left + count * (wide + GAP), least), top + len(rows) * (high + GAP))
    _banner(draw, image.width, dream, step, total)
    for column in range(count):
        x = left + column * (wide + GAP)
        draw.text((x, 2 * LINE + BAR + 4), _heading(dream, column, step), fill=FAINT, font=font(12))
        for row, (name, images) in enumerate(rows.items()):
            y = top + row * (high + GAP)
            draw.text((GAP, y + high // 2 - GAP), name, fill=TEXT, font=font(14))
            draw.rectangle((x, y, x + wide - 1, y + high - 1), fill=color)
            image.paste(_image(images[column, step]), (x + BORDER, y + BORDER))
    return np.asarray(image)


def _banner(draw: Any, width: int, dream: OpenLoop, step: int, total: int) -> None:
    """Two lines of text on the phase's colour, and a bar that shows where in the sequence we are."""
    color = _color(dream, step)
    draw.rectangle((0, 0, width, 2 * LINE - 1), fill=color)
    for line, text in enumerate(_banner_lines(color, step, total)):
        draw.text((GAP, 3 + line * (LINE - 2)), text, fill="white", font=font(15 - 2 * line))
    for end, shade in ((1.0, IMAGINED), (dream.observed / total, OBSERVED)):
        draw.rectangle((0, 2 * LINE, round(end * width) - 1, 2 * LINE + BAR - 1), fill=shade)
    now = round((step + 0.5) / total * width)
    draw.rectangle((now - 2, 2 * LINE - 1, now + 2, 2 * LINE + BAR), fill=TEXT)


def _banner_lines(color: str, step: int, total: int) -> tuple[str, str]:
    name, meaning = MEANING[color]
    return f"{name}   step {step} of {total - 1}", meaning


def _color(dream: OpenLoop, step: int) -> str:
    return OBSERVED if step < dream.observed else IMAGINED


def _heading(dream: OpenLoop, sequence: int, step: int) -> str:
    return (
        f"{sequence + 1}: environment reset" if unforeseen(dream, sequence, step) else f"sequence {sequence + 1}"
    )


def captioned(frame: np.ndarray, lines: list[str], width: int) -> np.ndarray:
    """`frame` with two lines of text above it, on a canvas at least `width` wide."""
    height, own, _ = frame.shape
    top = LINE * len(lines) + GAP
    image, draw = canvas(max(width, own), top + height)
    for index, (line, color) in enumerate(zip(lines, (TEXT, FAINT), strict=True)):
        draw.text((GAP, 3 + index * LINE), line, fill=color, font=font(14))
    image.paste(_image(frame), ((image.width - own) // 2, top))
    return np.asarray(image)


def canvas(width: int, height: int) -> tuple[Any, Any]:
    """A white image of Pillow, and what draws on it."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, height), "white")
    return image, ImageDraw.Draw(image)


def _image(pixels: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels))


def _room(texts: Any, size: int = 14) -> int:
    """The width of the longest text with a gap on either side."""
    return int(max(font(size).getlength(text) for text in texts)) + 2 * GAP


@cache
def font(size: int) -> Any:
    """The one font of all frames."""
    from PIL import ImageFont

    return ImageFont.load_default(size=size)
