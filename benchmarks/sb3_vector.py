"""A gymnasium vector environment that begins anew in the same step, as stable-baselines3 takes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv


class VectorOf(VecEnv):
    """`env`, whose autoreset mode is SAME_STEP."""

    def __init__(self, env: gym.vector.VectorEnv, seed: int):
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self.env, self.first_seed, self.actions = env, seed, np.zeros(0)

    def reset(self) -> Any:
        return self.env.reset(seed=self.first_seed)[0]

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        obs, rewards, terminated, truncated, given = self.env.step(self.actions)
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for index in np.flatnonzero(done):
            cut = bool(truncated[index] and not terminated[index])
            infos[index] = {"terminal_observation": given["final_obs"][index], "TimeLimit.truncated": cut}
        return obs, rewards.astype(np.float32), done, infos

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.env, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> Sequence[bool]:
        return [False] * self.num_envs
