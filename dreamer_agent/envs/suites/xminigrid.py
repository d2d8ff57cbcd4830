"""MiniGrid and XLand in JAX by xminigrid (`xminigrid:MiniGrid-Empty-8x8`) through the JAX-native protocol."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from dreamer_agent.envs.suites.libraries import build, library, refuse_unknown
from dreamer_agent.envs.suites.parts import settled
from dreamer_agent.specs import ArraySpec


class XMinigridEnv:
    """One task of xminigrid: the agent's view of tiles and colours, both one-hot.

    Keyword arguments are its parameters, such as `view_size` and `max_steps`; the latter is the time limit,
    which xminigrid keeps apart from the goal, and it enters the reward for reaching that. The tasks called
    XLand need a `ruleset` of a downloaded benchmark, else nothing is rewarded there.
    """

    def __init__(self, name: str, **kwargs: Any):
        xminigrid = library("xminigrid")
        refuse_unknown("xminigrid", name, xminigrid.registered_environments())
        self.env, params = xminigrid.make(name)
        self.params = build(f"xminigrid:{name}", params.replace, kwargs)
        self.time_limit = int(self.params.max_steps)
        constants = library("xminigrid", "xminigrid.core.constants")
        view = (*self.env.observation_shape(self.params)[:2],)
        self.obs_specs = {
            "tile": ArraySpec("discrete", view, int(constants.NUM_TILES)),
            "colour": ArraySpec("discrete", view, int(constants.NUM_COLORS)),
        }
        self.act_specs = {"action": ArraySpec("discrete", (), int(self.env.num_actions(self.params)))}

    def reset(self, key: Any) -> tuple[Any, dict[str, Any]]:
        """A fresh grid."""
        state = settled(self.env.reset(self.params, key))
        return state, _named(state.observation)

    def step(self, key: Any, state: Any, action: dict[str, Any]) -> tuple[Any, ...]:
        """One step, in which nothing is random; `terminated` is the goal."""
        new_state = settled(self.env.step(self.params, state, action["action"]), state)
        reached = new_state.discount == 0
        return new_state, _named(new_state.observation), new_state.reward, reached, jnp.zeros((), bool)


def _named(obs: Any) -> dict[str, Any]:
    return {"tile": obs[..., 0].astype(jnp.int32), "colour": obs[..., 1].astype(jnp.int32)}
