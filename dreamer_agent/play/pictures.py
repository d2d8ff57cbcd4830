"""What is observed as a picture: an image as it is, the state of a task as the task draws it, or bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from dreamer_agent.plots.frames import BAR, GAP, canvas, font, scale
from dreamer_agent.plots.style import IMAGINED, rgb
from dreamer_agent.specs import Specs, is_mask
from dreamer_agent.training.record import largest_image, need_no_display

Painter = Callable[[np.ndarray], np.ndarray]  # an observation [F] -> a picture [H, W, 3]
SIDE = 320  # pixels of a picture of bars
MOST_BARS = 24
WHOLE = 3.0  # in symlog: a bar is full at 19


def _angle(cos: float, sin: float) -> float:
    return float(np.arctan2(sin, cos))


STATES: dict[str, Callable[[np.ndarray], Any]] = {  # observation -> the state that the task draws
    "CartPole-v0": lambda x: x,
    "CartPole-v1": lambda x: x,
    "MountainCar-v0": lambda x: x,
    "MountainCarContinuous-v0": lambda x: x,
    "Pendulum-v1": lambda x: np.array([_angle(x[0], x[1]), x[2]]),
    "Acrobot-v1": lambda x: np.array([_angle(x[0], x[1]), _angle(x[2], x[3]), x[4], x[5]]),
}


def painter_of(task: str) -> Painter | None:
    """Draws an observation as the task `task` draws its state; None where nobody knows how, or nothing draws."""
    if task not in STATES:
        return None
    import gymnasium as gym

    need_no_display()
    with suppress(Exception):  # a display or a package may lack: then there are bars
        env = gym.make(task, render_mode="rgb_array")
        env.reset(seed=0)
        env.render()

        def paint(observation: np.ndarray) -> np.ndarray:
            env.unwrapped.state = STATES[task](np.asarray(observation, np.float64))  # type: ignore[attr-defined]
            return np.asarray(env.render())

        return paint
    return None


def picture(obs: Mapping[str, np.ndarray], specs: Specs, painter: Painter | None = None) -> np.ndarray:
    """One observation, by key without a leading axis, as `[H, W, 3]` uint8."""
    key = largest_image(specs)
    if key is not None:
        return scale(rgb(np.asarray(obs[key])), SIDE, 2 * SIDE)
    vectors = {name: np.ravel(value) for name, value in sorted(obs.items()) if not is_mask(name)}
    if painter is not None and len(vectors) == 1:
        return painter(next(iter(vectors.values())))
    return bars(vectors)


def bars(vectors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Numbers as bars to the left and right of zero, in symlog scale."""
    named = [
        (name if len(value) == 1 else f"{name}[{index}]", float(number))
        for name, value in vectors.items()
        for index, number in enumerate(value)
    ]
    shown = named[:MOST_BARS]
    high = max(SIDE // max(len(shown), 1), 12)
    image, draw = canvas(SIDE, max(SIDE, high * len(shown)))
    middle, room = SIDE // 2, SIDE // 2 - GAP
    for row, (name, number) in enumerate(shown):
        top = row * high
        length = np.clip(np.sign(number) * np.log1p(abs(number)) / WHOLE, -1, 1) * room
        left, right = sorted((middle, middle + round(length)))
        draw.rectangle((left, top + high // 2 - BAR // 2, right, top + high // 2 + BAR // 2), fill=IMAGINED)
        draw.text((GAP, top), f"{name} {number:.2f}", fill="#222222", font=font(11))
    draw.line((middle, 0, middle, image.height), fill="#999999")
    return np.asarray(image)
