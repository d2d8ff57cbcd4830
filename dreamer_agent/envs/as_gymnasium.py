"""A JAX-native environment for other libraries: as an ordinary `gymnasium.Env`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import jax
import numpy as np

from dreamer_agent.envs.interface import interface_of_specs
from dreamer_agent.envs.protocol import JaxEnv


def as_gymnasium(env: JaxEnv) -> gym.Env:
    """`env` with gymnasium's API, jitted.

    An observation or action of a single array is that array, one of several a dict of them; continuous actions
    lie in [-1, 1]. The time limit truncates. `reset(seed=...)` determines everything until the next seed.
    """
    return GymnasiumFromJax(env)


class GymnasiumFromJax(gym.Env):
    """See `as_gymnasium`."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium's own form

    def __init__(self, env: JaxEnv):
        self.env = env
        interface = interface_of_specs(env.obs_specs, env.act_specs)
        self.observation_space = _sole(interface.observation_space)
        self.action_space = _sole(interface.action_space)
        self._reset, self._step = jax.jit(env.reset), jax.jit(env.step)
        self._key: Any = None
        self._state: Any = None
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """A fresh episode, from `seed` or from what the last one led to."""
        super().reset(seed=seed)
        if seed is not None or self._key is None:
            self._key = jax.random.PRNGKey(int(self.np_random.integers(2**31)))
        self._steps = 0
        self._state, obs = self._reset(self._next_key())
        return self._observed(obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """One step; an episode that reaches the time limit is truncated."""
        if self._state is None:
            raise gym.error.ResetNeeded("Call reset() before step().")
        self._state, obs, reward, terminated, truncated = self._step(
            self._next_key(), self._state, self._actions(action)
        )
        self._steps += 1
        limit = self.env.time_limit
        late = limit is not None and self._steps >= limit
        return self._observed(obs), float(reward), bool(terminated), bool(truncated) or late, {}

    def _next_key(self) -> Any:
        self._key, key = jax.random.split(self._key)
        return key

    def _actions(self, action: Any) -> dict[str, np.ndarray]:
        named = (
            action if isinstance(self.action_space, gym.spaces.Dict) else {next(iter(self.env.act_specs)): action}
        )
        out = {key: np.asarray(named[key], spec.dtype) for key, spec in self.env.act_specs.items()}
        continuous = {key for key, spec in self.env.act_specs.items() if spec.kind == "continuous"}
        return {key: np.clip(value, -1, 1) if key in continuous else value for key, value in out.items()}

    def _observed(self, obs: dict[str, Any]) -> Any:
        """The arrays in the types of the space."""
        space = self.observation_space
        if isinstance(space, gym.spaces.Dict):
            return {key: _value(obs[key], member) for key, member in space.spaces.items()}
        return _value(next(iter(obs.values())), space)


def _sole(space: gym.Space) -> gym.Space:
    """The only member of a Dict, or the Dict if it has several."""
    assert isinstance(space, gym.spaces.Dict)
    return next(iter(space.spaces.values())) if len(space.spaces) == 1 else space


def _value(value: Any, space: gym.Space) -> Any:
    array = np.asarray(value).astype(space.dtype)
    return array[()] if isinstance(space, gym.spaces.Discrete) else array
