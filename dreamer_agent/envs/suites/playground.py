"""MuJoCo Playground (`playground:CartpoleBalance`) through the JAX-native protocol."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dreamer_agent.envs.suites.libraries import build, library, refuse_unknown
from dreamer_agent.envs.suites.parts import settled
from dreamer_agent.specs import ArraySpec

SEEN = "state"  # of several observations what a robot senses; the others are for critics in simulation


class PlaygroundEnv:
    """One task of MuJoCo Playground, without the wrappers that reset it and fold the time limit into `done`.

    Keyword arguments are settings of the task, such as `episode_length` (the time limit, in steps) and `ctrl_dt`;
    `impl` is MuJoCo's implementation, "jax" unless given, since the library's own default "warp" compiled for
    minutes on a CPU. Actions in [-1, 1] are handed on as they are.
    """

    def __init__(self, name: str, **kwargs: Any):
        registry = library("playground", "mujoco_playground").registry
        refuse_unknown("playground", name, registry.ALL_ENVS)
        settings = registry.get_default_config(name)

        def load(**own: Any) -> Any:
            if not own.keys() <= set(settings):
                raise ValueError(f"its settings are {', '.join(sorted(settings))}")
            ours = {"impl": "jax"} if "impl" in settings else {}
            return registry.load(name, config_overrides={**ours, **own})

        self.env = build(f"playground:{name}", load, kwargs)
        self.time_limit = int(kwargs.get("episode_length", settings.episode_length))
        seen = _named(jax.eval_shape(self.env.reset, jax.random.PRNGKey(0)).obs)
        self.obs_specs = {key: ArraySpec("continuous", tuple(value.shape)) for key, value in seen.items()}
        self.act_specs = {"action": ArraySpec("continuous", (int(self.env.action_size),))}

    def reset(self, key: Any) -> tuple[Any, dict[str, Any]]:
        """A fresh episode."""
        state = settled(self.env.reset(key))
        return state, _named(state.obs)

    def step(self, key: Any, state: Any, action: dict[str, Any]) -> tuple[Any, ...]:
        """One step (chance lies in the state); `terminated` is the task's own end."""
        # Some tasks write into the dicts that they are given: they get a copy.
        new_state = settled(self.env.step(jax.tree.map(jnp.asarray, state), action["action"]), state)
        return new_state, _named(new_state.obs), new_state.reward, new_state.done > 0, jnp.zeros((), bool)


def tasks() -> list[str]:
    """The names of all tasks."""
    return sorted(library("playground", "mujoco_playground").registry.ALL_ENVS)


def _named(obs: Any) -> dict[str, Any]:
    """Observations by name; a single array is called "obs"."""
    if not isinstance(obs, dict):
        return {"obs": obs}
    return {SEEN: obs[SEEN]} if SEEN in obs else dict(obs)
