"""What the adapters of JAX-native libraries share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dreamer_agent.specs import ArraySpec

NO_LIMIT = 2**30  # steps; as an int32 it is beyond every episode


def settled(state: Any, types: Any = None) -> Any:
    """`state` as arrays of strong types, of the dtypes of `types` (a tree of the same structure) where given.

    Libraries start from Python numbers and calculate with arrays: without this, the state that `step` returns
    would differ from that of `reset`, so that `step` compiled twice and a scan refused to carry it.
    """
    arrays = jax.tree.map(jnp.asarray, state)
    return jax.tree.map(lambda x, t: x.astype(jnp.asarray(t).dtype), arrays, arrays if types is None else types)


def pixels(image: Any) -> Any:
    """Floats in [0, 1] as uint8 pixels, rounded to the nearest."""
    return jnp.round(jnp.clip(image, 0, 1) * 255).astype(jnp.uint8)


class PhysicsEnv:
    """What brax and MuJoCo Playground share: an `env` whose states hold observation, reward and end.

    A subclass names the observations (`named`), and sets `time_limit`.
    """

    time_limit: int | None
    named: Callable[[Any], dict[str, Any]]

    def __init__(self, env: Any):
        self.env = env
        seen = self.named(jax.eval_shape(env.reset, jax.random.PRNGKey(0)).obs)
        self.obs_specs = {key: ArraySpec("continuous", tuple(array.shape)) for key, array in seen.items()}
        self.act_specs = {"action": ArraySpec("continuous", (int(env.action_size),))}

    def reset(self, key: Any) -> tuple[Any, dict[str, Any]]:
        """A fresh episode."""
        state = settled(self.env.reset(key))
        return state, self.named(state.obs)

    def step(self, key: Any, state: Any, action: dict[str, Any]) -> tuple[Any, ...]:
        """One step, whose chance lies in the state; `terminated` is the task's own end, such as a fall."""
        # Some tasks write into the dicts that they are given: they get a copy.
        new_state = settled(self.env.step(jax.tree.map(jnp.asarray, state), action["action"]), state)
        terminated = new_state.done.astype(bool)
        return new_state, self.named(new_state.obs), new_state.reward, terminated, jnp.zeros((), bool)
