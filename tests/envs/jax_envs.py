"""A JAX-native environment with several arrays and a mask, shared by tests."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dreamer_agent.specs import ArraySpec, mask_specs


class Drift:
    """A place that is pushed about; stopping ends the episode, and is illegal in the first step."""

    act_specs = {"push": ArraySpec("continuous", (2,)), "stop": ArraySpec("discrete", (), 2)}  # noqa: RUF012
    obs_specs = {  # noqa: RUF012
        "place": ArraySpec("continuous", (2,)),
        "turn": ArraySpec("discrete", (), 8),
        **mask_specs(act_specs),
    }
    time_limit = 6

    def __init__(self, noise: float = 0.1):
        self.noise = noise

    def reset(self, key: Any) -> tuple[Any, dict[str, Any]]:
        state = jax.random.normal(key, (2,)), jnp.zeros((), jnp.int32)
        return state, self.observe(state)

    def step(self, key: Any, state: Any, action: dict[str, Any]) -> tuple[Any, ...]:
        place = state[0] + action["push"] + self.noise * jax.random.normal(key, (2,))
        state = place, state[1] + 1
        return state, self.observe(state), -jnp.abs(place).sum(), action["stop"] == 1, jnp.zeros((), bool)

    def observe(self, state: Any) -> dict[str, Any]:
        stop = jnp.stack([jnp.ones((), bool), state[1] > 0])
        return {"place": state[0], "turn": state[1], "action_mask/stop": stop}
