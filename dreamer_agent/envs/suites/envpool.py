"""Environments of envpool (`envpool:CartPole-v1`): written in C++, stepped together by its own threads."""

from __future__ import annotations

import difflib
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs.gymnasium_adapter import GymnasiumEnv
from dreamer_agent.envs.sources import refuse_repeat
from dreamer_agent.envs.suites.libraries import build, library
from dreamer_agent.errors import ConfigError


class EnvPool(gym.vector.VectorEnv):
    """`count` environments of envpool's `task`; keyword arguments go to it.

    A reset with a seed makes them anew, which is how envpool takes one. Raises `ConfigError` for an unknown task
    or keyword argument, `MissingExtraError` where envpool is missing.
    """

    def __init__(self, task: str, count: int, **kwargs: Any):
        envpool = library("envpool")
        _refuse_unknown(task, tasks())
        self.maker = partial(envpool.make_gymnasium, task, num_envs=count, **kwargs)
        self.pool = build(f"envpool:{task}", partial(self.maker, seed=0), kwargs)
        self.num_envs, self.metadata = count, {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space = self.pool.observation_space
        self.single_action_space = self.pool.action_space
        self.observation_space = batch_space(self.single_observation_space, count)
        self.action_space = batch_space(self.single_action_space, count)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start all environments; with a seed, as they always start with that seed."""
        if seed is not None:
            self.pool.close()
            self.pool = self.maker(seed=seed % 2**31)
        obs, info = self.pool.reset()
        return _copied(obs), info

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all environments; one whose episode had ended starts its next."""
        if isinstance(self.single_action_space, gym.spaces.Discrete):
            actions = np.asarray(actions, np.int32)
        obs, reward, terminated, truncated, info = self.pool.step(actions)
        return _copied(obs), reward, terminated, truncated, info

    def close_extras(self, **kwargs: Any) -> None:
        """Free the environments."""
        self.pool.close()


def make(task: str, config: EnvConfig, count: int) -> GymnasiumEnv:
    """`count` environments as a `VectorEnv`; `ConfigError` for actions that are to be repeated."""
    refuse_repeat(config)
    return GymnasiumEnv(EnvPool(task, count, **config.kwargs), config.route)


def tasks() -> list[str]:
    """The names of the tasks."""
    return sorted(library("envpool").list_all_envs())


def _refuse_unknown(task: str, known: list[str]) -> None:
    """Raise `ConfigError` unless `task` is `known`; there are too many to name them all."""
    if task not in known:
        close = difflib.get_close_matches(task, known, n=1, cutoff=0.5)
        nearest = f" ('{close[0]}' is the nearest)" if close else ""
        raise ConfigError(
            f"envpool has no environment '{task}'{nearest}: choose one of those that "
            "`dreamer-agent envs envpool` lists."
        )


def _copied(obs: Any) -> Any:
    """Arrays of our own: envpool's may be written to again."""
    return {key: _copied(value) for key, value in obs.items()} if isinstance(obs, dict) else np.array(obs)
