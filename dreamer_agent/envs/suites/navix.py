"""MiniGrid in JAX by navix (`navix:Navix-Empty-8x8-v0`) through the JAX-native protocol."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dreamer_agent.envs.suites.libraries import build, library, refuse_unknown
from dreamer_agent.envs.suites.parts import settled
from dreamer_agent.errors import ConfigError
from dreamer_agent.specs import ArraySpec

OBJECTS, COLOURS, STATES = 11, 6, 4  # navix.entities; its own spaces promise fewer objects than there are
SIGHTS = ("symbolic", "categorical", "rgb")  # each also as NAME_first_person


class NavixEnv:
    """One task of navix, stepped without its automatic reset.

    `observation_fn` is the name of a function in `navix.observations`: "symbolic" (objects, colours and states of
    all cells, one-hot), "categorical" (objects alone) or "rgb" (uint8 pixels, eight a cell), or one of them with
    `_first_person`. `max_steps`, 100 as in navix, is the time limit, which navix keeps apart from the ends of its
    tasks. Other keyword arguments go to the task.
    """

    def __init__(self, name: str, observation_fn: str = "symbolic", **kwargs: Any):
        navix = library("navix")
        refuse_unknown("navix", name, navix.registry())
        self.sight = _checked(observation_fn)
        look = getattr(navix.observations, observation_fn)
        self.env = build(f"navix:{name}", lambda **own: navix.make(name, observation_fn=look, **own), kwargs)
        self.time_limit = int(self.env.max_steps)
        seen = jax.eval_shape(self.env.reset, jax.random.PRNGKey(0)).observation.shape
        self.obs_specs = self._specs(seen)
        self.act_specs = {"action": ArraySpec("discrete", (), int(self.env.action_space.n))}

    def reset(self, key: Any) -> tuple[Any, dict[str, Any]]:
        """A fresh grid."""
        state = settled(self.env.reset(key))
        return state, self._named(state.observation)

    def step(self, key: Any, state: Any, action: dict[str, Any]) -> tuple[Any, ...]:
        """One step (chance lies in the state); `terminated` is a goal, lava or a ball."""
        new_state = settled(self.env._step(state, action["action"]), state)
        ended = new_state.is_termination()
        return new_state, self._named(new_state.observation), new_state.reward, ended, jnp.zeros((), bool)

    def _specs(self, shape: tuple[int, ...]) -> dict[str, ArraySpec]:
        cells = shape[:2]
        if self.sight == "rgb":
            return {"image": ArraySpec("image", shape)}
        if self.sight == "categorical":
            return {"object": ArraySpec("discrete", cells, OBJECTS + 1)}
        counts = {"object": OBJECTS, "colour": COLOURS, "state": STATES}
        return {key: ArraySpec("discrete", cells, count) for key, count in counts.items()}

    def _named(self, obs: Any) -> dict[str, Any]:
        if self.sight == "rgb":
            return {"image": obs}
        numbers = obs.astype(jnp.int32)
        if self.sight == "categorical":  # walls are -1, what lies outside the grid is 100
            return {"object": jnp.where((numbers >= -1) & (numbers < OBJECTS), numbers, 0) + 1}
        return {"object": numbers[..., 0], "colour": numbers[..., 1], "state": numbers[..., 2]}


def _checked(observation_fn: str) -> str:
    """The kind of observation that `observation_fn` names."""
    sight = str(observation_fn).removesuffix("_first_person")
    if sight not in SIGHTS:
        raise ConfigError(
            f"env.kwargs.observation_fn is '{observation_fn}': navix is looked at by one of {', '.join(SIGHTS)}, "
            "or by one of these with _first_person."
        )
    return sight
