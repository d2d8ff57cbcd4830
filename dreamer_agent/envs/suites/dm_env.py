"""Environments of the interface `dm_env` as gymnasium environments."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class DmEnv(gym.Env):
    """One `dm_env.Environment`, with its observations by name as they are.

    Real numbers become float32. A last step with the discount 0 is `terminated`, any other one `truncated`.
    """

    def __init__(self, env: Any):
        self.dm = env
        self.observation_space = space_of(env.observation_spec())
        self.action_space = space_of(env.action_spec())

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """A new episode; `seed` also starts the task's own chance anew."""
        super().reset(seed=seed)
        if seed is not None:
            self.seed_task(seed % 2**32)
        return self.observe(self.dm.reset()), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """One step of the task."""
        step = self.dm.step(np.asarray(action, self.dm.action_spec().dtype))
        terminated = bool(step.last() and step.discount == 0)
        reward = 0.0 if step.reward is None else float(step.reward)
        return self.observe(step), reward, terminated, bool(step.last()) and not terminated, {}

    def seed_task(self, seed: int) -> None:
        """Start what the task draws anew: `dm_env` has no word for it, so a suite overrides this."""

    def observe(self, step: Any) -> Any:
        """What the agent sees of a `dm_env.TimeStep`."""
        return values_of(step.observation)

    def close(self) -> None:
        """Free what the task holds."""
        self.dm.close()


def space_of(spec: Any) -> gym.Space:
    """The gymnasium space of a spec of `dm_env`, or of a dict of them."""
    if isinstance(spec, dict):
        return gym.spaces.Dict({name: space_of(member) for name, member in spec.items()})
    if hasattr(spec, "num_values"):
        return gym.spaces.Discrete(int(spec.num_values))
    dtype = _dtype(spec.dtype)
    if not hasattr(spec, "minimum"):
        bounds: Any = (-np.inf, np.inf) if dtype.kind == "f" else _limits(dtype)
    else:
        bounds = spec.minimum, spec.maximum
    low, high = (np.broadcast_to(bound, spec.shape).astype(dtype) for bound in bounds)
    return gym.spaces.Box(low, high, spec.shape, dtype.type)


def values_of(values: Any) -> Any:
    """An observation, or a dict of them, in the types of `space_of`."""
    if isinstance(values, dict):
        return {name: values_of(value) for name, value in values.items()}
    array = np.asarray(values)
    return array.astype(_dtype(array.dtype))


def _dtype(dtype: Any) -> np.dtype:
    """float32 for real numbers of any precision."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float32) if dtype.kind == "f" else dtype


def _limits(dtype: np.dtype) -> tuple[int, int]:
    return (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
