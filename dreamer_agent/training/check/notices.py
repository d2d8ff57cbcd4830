"""What a random rollout suggests to change before a long run, each in one sentence."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import jax
import numpy as np

from dreamer_agent.config import Config
from dreamer_agent.envs import Interface, VectorEnv
from dreamer_agent.envs.protocol import LARGEST_REWARD
from dreamer_agent.envs.routing import FLOAT32
from dreamer_agent.envs.spaces import UNBOUNDED
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training.check.rollout import Numbers, RandomRollout

SYMBOLS = 15  # numbers that never exceed this are probably no pixels
LARGE_IMAGE = 128  # pixels a side, on a CPU
LARGE_ONEHOT = 2000  # numbers
LARGE = 1e4  # of observations and rewards
EXACT = 2**24  # integers beyond this are rounded in float32


def notices(config: Config, env: VectorEnv, rollout: RandomRollout) -> list[str]:
    """All sentences: on observations, actions, rewards, episodes, and what is asked for."""
    out: list[str] = []
    for key, numbers in rollout.observations.items():
        if numbers.count and key in env.interface.observations.routes:
            out += _observation(key, env.obs_specs[key], numbers, _member(env.interface, key), rollout)
    out += _actions(env.interface)
    if rollout.steps:
        out += _rewards(rollout) + _episodes(env, rollout)
    if config.train.steps * config.updates_per_env_step < 1 or config.train.steps <= config.replay.prefill:
        out.append(
            f"Nothing will be learned in {config.train.steps:,} env steps: the first {config.replay.prefill:,} "
            "only fill the replay (replay.prefill); ask for more --steps."
        )
    return out


def _observation(
    key: str, spec: ArraySpec, numbers: Numbers, space: gym.Space, rollout: RandomRollout
) -> list[str]:
    out = []
    asked = f"env.route.{key}"
    if numbers.constant == numbers.low.size:
        out.append(f"'{key}' never changed in {rollout.steps:,} random steps: is it filled in?")
    if spec.kind == "image":
        out += _image(key, spec, numbers, asked, space)
    if spec.kind == "discrete" and spec.encoded_size > LARGE_ONEHOT:
        out.append(f"'{key}' takes {spec.encoded_size:,} numbers as one-hot: {asked}=vector would be faster.")
    if spec.kind == "continuous":
        out += _continuous(key, numbers, space)
    return out


def _image(key: str, spec: ArraySpec, numbers: Numbers, asked: str, space: gym.Space) -> list[str]:
    out = []
    if space.dtype == np.uint8 and numbers.max <= SYMBOLS:
        out.append(
            f"The pixels of '{key}' never exceed {numbers.max:g} of 255: they are probably symbols, not "
            f"colours, and look black to the convolutions; try {asked}=vector."
        )
    side = max(spec.shape[:2])
    if side > LARGE_IMAGE and jax.default_backend() == "cpu":
        out.append(
            f"'{key}' has {spec.shape[0]} x {spec.shape[1]} pixels, which is slow on a CPU: resize it to "
            "64 x 64 in the environment (gymnasium.wrappers.ResizeObservation)."
        )
    return out


def _continuous(key: str, numbers: Numbers, space: gym.Space) -> list[str]:
    out, largest = [], max(abs(numbers.min), abs(numbers.max))
    if largest >= 0.99 * FLOAT32:
        out.append(
            f"'{key}' goes beyond what float32 holds and is cut at 3.4e38: scale it down in the environment."
        )
    elif space.dtype is not None and space.dtype.kind in "iu" and largest > EXACT:
        out.append(f"'{key}' holds integers beyond 2^24, which float32 rounds: split or scale them.")
    elif largest > LARGE:
        out.append(
            f"'{key}' reaches {largest:.3g}: it can be learned (numbers enter in symlog space), but small "
            "differences between large numbers are lost; scale it if they matter."
        )
    if isinstance(space, gym.spaces.Box) and space.shape == numbers.low.shape:
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        slack = 1e-6 * np.maximum(1, np.abs(numbers.high - numbers.low))
        outside = (numbers.low < low - slack) | (numbers.high > high + slack)
        if outside.any():
            seen, declared = _span(numbers.low, numbers.high, outside), _span(low, high, outside)
            out.append(
                f"'{key}' left the bounds of its space in {int(outside.sum())} of {outside.size} elements: seen "
                f"{seen}, declared {declared}; nothing is clipped, but mend the space or the numbers."
            )
    return out


def _span(low: np.ndarray, high: np.ndarray, where: np.ndarray) -> str:
    return f"{low[where].min():.4g} to {high[where].max():.4g}"


def _actions(interface: Interface) -> list[str]:
    out = []
    for key, choice in interface.actions.choices.items():
        space = choice.space
        if isinstance(space, gym.spaces.Box):
            free = ~(_bounded(space.low, space.bounded_below) & _bounded(space.high, space.bounded_above))
            if free.any():
                out.append(
                    f"The action '{key}' lacks bounds in {int(free.sum())} of {free.size} entries: they get "
                    "the policy's number, mostly within [-1, 1]; declare bounds if the useful range is another."
                )
    return out


def _bounded(bound: np.ndarray, flags: np.ndarray) -> np.ndarray:
    return flags & (np.abs(bound.astype(np.float64)) < UNBOUNDED)


def _rewards(rollout: RandomRollout) -> list[str]:
    rewards, out = rollout.rewards, []
    largest = max(abs(rewards.min), abs(rewards.max))
    if rewards.zeros == rewards.count:
        out.append(
            f"Every reward in {rollout.steps:,} random steps was zero: nothing is learned of a reward before "
            "chance finds it; reward progress on the way, or expect a long search."
        )
    elif rewards.constant and len(set(rollout.returns)) < 2 and set(rollout.lengths) != {1}:
        ends = f"every episode returned {rollout.returns[0]:g}" if rollout.returns else "no episode ended"
        out.append(
            f"Every reward was {rewards.min:g} and {ends}: chance has not yet found an action that is better "
            "than another; expect a long search, or reward progress on the way."
        )
    if largest >= LARGEST_REWARD:
        out.append(f"Rewards beyond {LARGEST_REWARD:g} are cut there: scale them down in the environment.")
    elif largest > LARGE:
        out.append(
            f"Rewards reach {largest:.3g}: it can be learned (in symlog space), but the small ones drown in "
            "the returns; divide them by a constant if they matter."
        )
    return out


def _episodes(env: VectorEnv, rollout: RandomRollout) -> list[str]:
    if rollout.lengths and max(rollout.lengths) == 1:
        return ["Every episode ended after one step: check that `terminated` is meant to be true at once."]
    if not rollout.lengths and not rollout.faults and time_limit(env) is None:
        return [
            f"No episode ended in {rollout.steps // env.num_envs:,} random steps, and no time limit was found: "
            "if there is none, set one (max_episode_steps in gymnasium.register, or "
            "gymnasium.wrappers.TimeLimit), since scores count whole episodes."
        ]
    return []


def time_limit(env: VectorEnv) -> int | None:
    """Steps until truncation, as far as the environment tells."""
    made: Any = getattr(env, "env", None)
    limit = getattr(made, "time_limit", None)
    single = (getattr(made, "envs", None) or [None])[0]
    while limit is None and single is not None:
        names = ("_max_episode_steps", "max_episode_steps", "max_steps")
        limit = next((vars(single)[name] for name in names if vars(single).get(name)), None)
        single = single.env if isinstance(single, gym.Wrapper) else None
    return int(limit) if isinstance(limit, int | np.integer) else None


def _member(interface: Interface, key: str) -> gym.Space:
    space: Any = interface.observation_space
    for part in interface.observations.paths[key]:
        space = space[part]
    return space
