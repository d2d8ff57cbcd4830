"""Craftax (`craftax:Craftax-Classic-Symbolic-v1`) through the JAX-native protocol."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from dreamer_agent.envs.suites.libraries import build, library, refuse_unknown
from dreamer_agent.envs.suites.parts import NO_LIMIT, pixels, settled
from dreamer_agent.specs import ArraySpec

NAMES = (
    "Craftax-Classic-Pixels-v1",
    "Craftax-Classic-Symbolic-v1",
    "Craftax-Pixels-v1",
    "Craftax-Symbolic-v1",
)


class CraftaxEnv:
    """Craftax or Craftax-Classic, symbolic (a vector "obs") or from pixels ("image"), without automatic reset.

    Keyword arguments are the game's own parameters, such as `max_timesteps`. Craftax folds that limit (10,000
    steps in Classic, 100,000 else) into `done`; here it is raised out of reach, and `time_limit` says it instead.
    Pictures are floats in [0, 1] there and become uint8 pixels.
    """

    def __init__(self, name: str, **kwargs: Any):
        craftax = library("craftax", "craftax.craftax_env")
        refuse_unknown("craftax", name, NAMES)
        self.env = craftax.make_craftax_env_from_name(name, auto_reset=False)
        params = build(f"craftax:{name}", self.env.default_params.replace, kwargs)
        self.time_limit = int(params.max_timesteps)
        self.params = params.replace(max_timesteps=NO_LIMIT)
        shape = tuple(self.env.observation_space(params).shape)
        self.pictures = len(shape) == 3
        kind: Any = "image" if self.pictures else "continuous"
        self.obs_specs = {"image" if self.pictures else "obs": ArraySpec(kind, shape)}
        self.act_specs = {"action": ArraySpec("discrete", (), int(self.env.action_space(params).n))}

    def reset(self, key: Any) -> tuple[Any, dict[str, Any]]:
        """A new world."""
        obs, state = self.env.reset_env(key, self.params)
        return settled(state), self._named(obs)

    def step(self, key: Any, state: Any, action: dict[str, Any]) -> tuple[Any, ...]:
        """One step; `terminated` is a death, or the end of the game."""
        obs, new_state, reward, terminated, _ = self.env.step_env(key, state, action["action"], self.params)
        return settled(new_state, state), self._named(obs), reward, terminated, jnp.zeros((), bool)

    def _named(self, obs: Any) -> dict[str, Any]:
        return {"image": pixels(obs)} if self.pictures else {"obs": obs}
