"""gymnasium environments as a `VectorEnv`: the only place where autoreset modes are interpreted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from dreamer_agent.envs.protocol import Actions, Rows
from dreamer_agent.envs.spaces import SpaceCodec
from dreamer_agent.errors import EnvironmentFault


class CheckedEnv(gym.Wrapper):
    """Repeats actions, and turns a broken contract into one sentence that names the environment."""

    def __init__(self, env: gym.Env, action_repeat: int = 1):
        super().__init__(env)
        self.repeat = action_repeat

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        """As gymnasium's, with the observation checked."""
        result = self.env.reset(**kwargs)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise self._fault("reset() should return (observation, info)", result)
        self._check_obs(self.observation_space, result[0], "reset")
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """As gymnasium's, `repeat` times with the same action; rewards are summed."""
        total = 0.0
        for _ in range(self.repeat):
            result = self.env.step(action)
            if not (isinstance(result, tuple) and len(result) == 5):
                raise self._fault(
                    "step() should return (observation, reward, terminated, truncated, info)", result
                )
            obs, reward, terminated, truncated, info = result
            total += self._check_reward(reward)
            if terminated or truncated:
                break
        self._check_obs(self.observation_space, obs, "step")
        return obs, total, bool(terminated), bool(truncated), info

    def _check_reward(self, reward: Any) -> float:
        value = _as_array(reward)
        if value is None or value.size != 1 or value.dtype.kind not in "biuf" or not np.isfinite(value).all():
            raise self._fault("the reward should be one finite number", reward)
        return float(value.item())

    def _check_obs(self, space: gym.Space, obs: Any, where: str, path: str = "") -> None:
        """Shapes and finite numbers; not the bounds, which many environments break harmlessly."""
        members = _members(space)
        if members:
            for key, member in members:
                try:
                    value = obs[key]
                except (KeyError, IndexError, TypeError) as error:
                    raise self._fault(f"the observation of {where}() lacks '{path}{key}'", obs) from error
                self._check_obs(member, value, where, f"{path}{key}/")
            return
        value = _as_array(obs)
        name = f" '{path[:-1]}'" if path else ""
        if value is None or value.shape != space.shape:
            raise self._fault(
                f"the observation{name} of {where}() should have the shape {space.shape} of its space",
                obs if value is None else f"shape {value.shape}",
            )
        if value.dtype.kind not in "biuf":
            raise self._fault(f"the observation{name} of {where}() should hold numbers", value.dtype)
        if not np.all(np.isfinite(value)):
            raise self._fault(f"the observation{name} of {where}() should hold finite numbers", value)

    def _fault(self, expected: str, given: Any) -> EnvironmentFault:
        name = self.spec.id if self.spec else type(self.unwrapped).__name__
        shown = " ".join(str(given).split())
        shown = shown if len(shown) < 120 else shown[:117] + "..."
        return EnvironmentFault(
            f"The environment {name} breaks its API: {expected}, got {shown}. "
            "Mend the environment, or wrap it; the run so far is kept."
        )


class GymnasiumEnv:
    """A gymnasium vector environment of any autoreset mode."""

    def __init__(self, env: gym.vector.VectorEnv):
        self.env = env
        self.num_envs = env.num_envs
        self.mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.obs_codec = SpaceCodec(env.single_observation_space, "observation")
        self.act_codec = SpaceCodec(env.single_action_space, "action", actions=True)
        self.obs_specs, self.act_specs = self.obs_codec.specs, self.act_codec.specs
        self.done = np.zeros(self.num_envs, bool)

    def reset(self, seed: int) -> list[Rows]:
        """Start all environments, each with a seed of its own."""
        obs, _ = self.env.reset(seed=seed)
        self.done = np.zeros(self.num_envs, bool)
        return [self._first_rows(obs, None)]

    def step(self, actions: Actions) -> list[Rows]:
        """Step all environments; see `VectorEnv.step`."""
        result = self.env.step(self.act_codec.decode(actions))
        obs, reward, terminated, truncated, info = result
        if self.mode == AutoresetMode.NEXT_STEP:
            # After an end, the next call ignores the action and gives the first row of the new episode.
            rows = self._rows(obs, reward, terminated, truncated, is_first=self.done)
            self.done = rows.is_last
            return [rows]
        done = terminated | truncated
        if not done.any():
            return [self._rows(obs, reward, terminated, truncated)]
        if self.mode == AutoresetMode.SAME_STEP:
            last = self._rows(_final_obs(obs, info["final_obs"], done), reward, terminated, truncated)
        else:
            last = self._rows(obs, reward, terminated, truncated)
            obs, _ = self.env.reset(options={"reset_mask": done})
        return [last, self._first_rows(obs, done)]

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def _rows(
        self, obs: Any, reward: Any, terminated: np.ndarray, truncated: np.ndarray, is_first: Any = None
    ) -> Rows:
        first = np.zeros(self.num_envs, bool) if is_first is None else is_first
        encoded = self._encode(obs)
        reward = np.asarray(reward, np.float32)
        if not np.isfinite(reward).all():
            raise EnvironmentFault(f"The environments gave the rewards {reward}; expected finite numbers.")
        return Rows(encoded, reward, first, terminated | truncated, np.array(terminated))

    def _first_rows(self, obs: Any, mask: np.ndarray | None) -> Rows:
        zeros = np.zeros(self.num_envs, bool)
        first = ~zeros if mask is None else mask
        return Rows(self._encode(obs), zeros.astype(np.float32), first, zeros, zeros, mask)

    def _encode(self, obs: Any) -> dict[str, np.ndarray]:
        encoded = self.obs_codec.encode(obs)
        for key, value in encoded.items():
            if value.dtype == np.float32 and not np.isfinite(value).all():
                raise EnvironmentFault(f"The observation '{key}' holds NaN or infinity; expected finite numbers.")
        return encoded


def make_vector(factories: list[Callable[[], gym.Env]], action_repeat: int) -> GymnasiumEnv:
    """Environments made by `factories`, checked and stepped in this process."""

    def checked(factory: Callable[[], gym.Env]) -> Callable[[], gym.Env]:
        return lambda: CheckedEnv(factory(), action_repeat)

    return GymnasiumEnv(gym.vector.SyncVectorEnv([checked(factory) for factory in factories]))


def _members(space: gym.Space) -> list[tuple[Any, gym.Space]]:
    if isinstance(space, gym.spaces.Dict):
        return list(space.spaces.items())
    if isinstance(space, gym.spaces.Tuple):
        return list(enumerate(space.spaces))
    return []


def _as_array(value: Any) -> np.ndarray | None:
    """`value` as an array; None if it is ragged."""
    try:
        return np.asarray(value)
    except ValueError:
        return None


def _final_obs(obs: Any, final: np.ndarray, done: np.ndarray) -> Any:
    """`obs` `[E, ...]` with the last observations of the finished episodes in their places."""
    if isinstance(obs, dict):
        return {
            key: _final_obs(value, [f[key] if d else None for f, d in zip(final, done, strict=True)], done)  # type: ignore[arg-type]
            for key, value in obs.items()
        }
    if isinstance(obs, tuple):
        return tuple(
            _final_obs(value, [f[i] if d else None for f, d in zip(final, done, strict=True)], done)  # type: ignore[arg-type]
            for i, value in enumerate(obs)
        )
    merged = np.array(obs)
    for index in np.flatnonzero(done):
        merged[index] = final[index]
    return merged
