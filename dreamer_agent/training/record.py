"""Episodes of a policy as pictures: the environment's own rendering, or else what the agent sees."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from dreamer_agent.agent import Agent
from dreamer_agent.config import EnvConfig, merge
from dreamer_agent.envs import Rows, VectorEnv, make_env
from dreamer_agent.errors import DreamerError, MissingExtraError, missing_extra
from dreamer_agent.nets import Params
from dreamer_agent.specs import Specs
from dreamer_agent.training.driver import Driver
from dreamer_agent.training.evaluate import EVALUATION_SEED

Render = Callable[[Rows], np.ndarray]  # the rows of one environment -> its picture, uint8 [H, W, C]

MAX_SIDE = 400  # pixels; larger pictures are shrunk, a thousand of them still fit in memory
DEFAULT_FPS = 10.0


class NoPictureError(DreamerError):
    """An environment that has neither a rendering nor an image observation."""


class Filmed(NamedTuple):
    """One environment, how to get a picture of it, and the steps a second at which it is shown."""

    env: VectorEnv
    render: Render
    fps: float


class Recording(NamedTuple):
    """One episode: pictures uint8 `[F, H, W, C]` and rewards `[L + 1]` float, both from its first row on.

    `L` is the number of env steps. The first reward is zero: nothing was done yet. `F` is `L + 1`, or fewer
    where the episode is longer than was asked to be kept.
    """

    frames: np.ndarray
    rewards: np.ndarray


def record_episodes(
    agent: Agent,
    params: Params,
    env: VectorEnv,
    render: Render,
    episodes: int,
    seed: int,
    explore: bool = True,
    max_frames: int = 1000,
    max_length: int = 27_000,
) -> Iterator[Recording]:
    """Run `episodes` episodes in `env`, which is one environment, and give each as it ends.

    `explore` samples actions; else the mode is taken. Only the first `max_frames` pictures of an episode are
    kept, its rewards all. One that has not ended after `max_length` env steps is given as it stands, and ends the
    recording.
    """
    driver = Driver(agent, env, seed + EVALUATION_SEED, explore)
    frames: list[np.ndarray] = []
    rewards: list[float] = []
    recorded = 0
    while recorded < episodes:
        for rows, _ in driver.rows(params):
            if rows.is_first[0]:
                frames, rewards = [], []
            if len(frames) < max_frames:
                frames.append(shrink(render(rows), MAX_SIDE).copy())
            rewards.append(float(rows.reward[0]))
            endless = len(rewards) > max_length and not rows.is_last[0]
            if (rows.is_last[0] or endless) and recorded < episodes:
                recorded = episodes if endless else recorded + 1
                yield Recording(np.stack(frames), np.array(rewards))


def film(config: EnvConfig, seed: int = 0) -> Filmed:
    """One environment of `config` that renders itself where it can; see `filmed`."""
    need_no_display()
    env = _with_rendering(config)
    try:
        return filmed(env, config.id, config.action_repeat, seed)
    except DreamerError:
        env.close()
        raise


def need_no_display() -> None:
    """Let pygame draw where there is neither a screen nor a sound card, of which it would complain."""
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def filmed(env: VectorEnv, name: str, action_repeat: int = 1, seed: int = 0) -> Filmed:
    """A source of pictures of `env`, which is one environment; it is reset to try.

    Its own rendering is preferred, since it shows what people want to see; else the largest image
    observation is taken. Raises `NoPictureError`, or `MissingExtraError` where a package is what lacks.
    """
    fps, problem = _fps(env, action_repeat), None
    if _may_render(env):
        try:
            _own_picture(env.reset(seed)[0], env)
            return Filmed(env, lambda rows: _own_picture(rows, env), fps)
        except Exception as error:  # rendering is foreign code: libraries and displays fail in many ways
            problem = error
    key = largest_image(env.obs_specs)
    if key is None:
        raise _no_picture(name, problem)
    return Filmed(env, lambda rows: rows.obs[key][0], fps)


def largest_image(specs: Specs) -> str | None:
    """The name of the image with the most pixels; None where there is no image."""
    images = {key: spec.shape[0] * spec.shape[1] for key, spec in specs.items() if spec.kind == "image"}
    return max(images, key=lambda key: images[key], default=None)


def shrink(images: np.ndarray, most: int) -> np.ndarray:
    """Images uint8 `[..., H, W, C]` with no side above `most` pixels, as means of whole squares of pixels."""
    height, width = images.shape[-3:-1]
    factor = -(-max(height, width) // most)
    if factor <= 1:
        return images
    cut = images[..., : height - height % factor, : width - width % factor, :]
    # Sums of slices: a mean over axes of a reshaped view takes several times as long.
    corners = [cut[..., i::factor, j::factor, :] for i in range(factor) for j in range(factor)]
    total = sum((corner.astype(np.uint32) for corner in corners[1:]), corners[0].astype(np.uint32))
    return ((total + len(corners) // 2) // len(corners)).astype(np.uint8)


def _with_rendering(config: EnvConfig) -> VectorEnv:
    """One environment, asked to render where it is one of gymnasium's that can."""
    env = make_env(config, 1)
    modes = env.env.metadata.get("render_modes") or () if _may_render(env) else ()  # type: ignore[attr-defined]
    if "rgb_array" not in modes:
        return env
    try:
        rendering = make_env(merge(config, {"kwargs": {"render_mode": "rgb_array"}}), 1)
    except (TypeError, DreamerError):  # a suite of the user's that does not take the argument
        return env
    env.close()
    return rendering


def _may_render(env: VectorEnv) -> bool:
    """Whether `env` is of gymnasium and its present state is that of the row just given, not of a reset since."""
    from gymnasium.vector import AutoresetMode

    from dreamer_agent.envs.gymnasium_adapter import GymnasiumEnv

    return isinstance(env, GymnasiumEnv) and env.mode == AutoresetMode.NEXT_STEP


def _own_picture(rows: Rows, env: Any) -> np.ndarray:
    """What the environment draws of its present state, `[H, W, 3]`."""
    pictures = env.env.render()
    picture = np.asarray(pictures[0] if pictures is not None else None)
    if picture.ndim != 3 or picture.dtype != np.uint8 or picture.shape[-1] not in (1, 3, 4):
        raise NoPictureError(f"render() should give pixels uint8 [H, W, 3], got {picture.dtype} {picture.shape}")
    return picture[..., :3]


def _fps(env: Any, action_repeat: int) -> float:
    """The pace at which the environment wants to be seen, within what people can follow."""
    metadata = getattr(getattr(env, "env", None), "metadata", None) or {}
    wanted = metadata.get("render_fps") or DEFAULT_FPS * action_repeat
    return float(np.clip(wanted / action_repeat, 5.0, 50.0))


def _no_picture(name: str, problem: Exception | None) -> DreamerError:
    from gymnasium.error import DependencyNotInstalled

    if isinstance(problem, DependencyNotInstalled):
        if "pygame" in str(problem):
            return missing_extra("pygame", "classic")
        return MissingExtraError(f"The environment '{name}' cannot draw itself: {problem}")
    reason = f" (its rendering failed: {str(problem).rstrip('.')})" if problem else ""
    return NoPictureError(
        f"The environment '{name}' has no image observation, nor a rendering with render_mode='rgb_array'"
        f"{reason}: there is nothing to make a video of."
    )
