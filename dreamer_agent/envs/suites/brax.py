"""Physics of brax (`brax:ant`) through the JAX-native protocol."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from dreamer_agent.envs.suites.libraries import build, library, refuse_unknown
from dreamer_agent.envs.suites.parts import settled
from dreamer_agent.specs import ArraySpec


class BraxEnv:
    """One task of brax, without the wrappers that would reset it and fold the time limit into `done`.

    `episode_length` is the time limit, 1000 as in brax; other keyword arguments go to the task, such as
    `backend` (generalized, spring, positional or mjx). Actions are not scaled: all of brax's tasks take numbers
    in [-1, 1] and stretch them themselves where their actuators have other ranges.
    """

    def __init__(self, name: str, episode_length: int | None = 1000, **kwargs: Any):
        envs = library("brax", "brax.envs")
        refuse_unknown("brax", name, envs._envs)  # brax itself says no more than KeyError
        self.env = build(f"brax:{name}", partial(envs.get_environment, name), kwargs)
        self.time_limit = episode_length
        seen = _named(jax.eval_shape(self.env.reset, jax.random.PRNGKey(0)).obs)
        self.obs_specs = {key: ArraySpec("continuous", tuple(array.shape)) for key, array in seen.items()}
        self.act_specs = {"action": ArraySpec("continuous", (int(self.env.action_size),))}

    def reset(self, key: Any) -> tuple[Any, dict[str, Any]]:
        """A fresh episode."""
        state = settled(self.env.reset(key))
        return state, _named(state.obs)

    def step(self, key: Any, state: Any, action: dict[str, Any]) -> tuple[Any, ...]:
        """One step, in which nothing is random; `terminated` is the task's own end, such as a fall."""
        # Some tasks write into the dict of metrics that they are given: they get a copy.
        new_state = settled(self.env.step(jax.tree.map(jnp.asarray, state), action["action"]), state)
        terminated = new_state.done.astype(bool)
        return new_state, _named(new_state.obs), new_state.reward, terminated, jnp.zeros((), bool)


def _named(obs: Any) -> dict[str, Any]:
    """Observations by name: a few tasks have several."""
    return dict(obs) if isinstance(obs, Mapping) else {"obs": obs}
