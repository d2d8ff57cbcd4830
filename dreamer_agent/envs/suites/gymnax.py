"""Environments of gymnax (`gymnax:CartPole-v1`) through the JAX-native protocol."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from dreamer_agent.errors import ConfigError, missing_extra
from dreamer_agent.specs import ArraySpec


class GymnaxEnv:
    """One gymnax environment, stepped without its automatic reset.

    gymnax folds its time limit into `done`; here the limit is raised out of reach, and `time_limit` says
    it instead, so that a CartPole cut at 500 steps is not terminal.
    """

    def __init__(self, name: str, **kwargs: Any):
        try:
            import gymnax
        except ImportError as error:
            raise missing_extra("gymnax", "gymnax") from error
        try:
            self.env, params = gymnax.make(name, **kwargs)
        except ValueError as error:
            raise ConfigError(f"gymnax has no environment '{name}': {error}") from error
        self.time_limit = getattr(params, "max_steps_in_episode", None)
        if self.time_limit is not None:
            params = params.replace(max_steps_in_episode=2**30)
        self.params = params
        self.obs_specs = {"obs": _spec(self.env.observation_space(params))}
        self.act_space = self.env.action_space(params)
        self.act_specs = {"action": _spec(self.act_space)}

    def reset(self, key: Any) -> tuple[Any, dict[str, Any]]:
        """A fresh episode."""
        obs, state = self.env.reset_env(key, self.params)
        return state, {"obs": obs}

    def step(self, key: Any, state: Any, action: dict[str, Any]) -> tuple[Any, ...]:
        """One step; `terminated` is the task's own end."""
        raw = action["action"]
        if self.act_specs["action"].kind == "continuous":
            low, high = jnp.asarray(self.act_space.low), jnp.asarray(self.act_space.high)
            raw = low + (jnp.clip(raw, -1, 1) + 1) / 2 * (high - low)
        # (obs, state, reward, done, info), or with terminated and truncated in place of done from 1.0 on.
        obs, new_state, reward, terminated, *_ = self.env.step_env(key, state, raw, self.params)
        return new_state, {"obs": obs}, reward, terminated, jnp.zeros((), bool)


def _spec(space: Any) -> ArraySpec:
    """gymnax's own space classes mirror gymnasium's: only the kinds that its tasks use occur."""
    if hasattr(space, "n"):
        return ArraySpec("discrete", tuple(space.shape), int(space.n))
    return ArraySpec("continuous", tuple(space.shape))
