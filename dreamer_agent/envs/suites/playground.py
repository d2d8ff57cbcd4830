"""MuJoCo Playground (`playground:CartpoleBalance`) through the JAX-native protocol."""

from __future__ import annotations

from typing import Any

from dreamer_agent.envs.suites.libraries import build, library, refuse_unknown
from dreamer_agent.envs.suites.parts import PhysicsEnv

SEEN = "state"  # of several observations what a robot senses; the others are for critics in simulation


def _named(obs: Any) -> dict[str, Any]:
    """Observations by name; a single array is called "obs"."""
    if not isinstance(obs, dict):
        return {"obs": obs}
    return {SEEN: obs[SEEN]} if SEEN in obs else dict(obs)


class PlaygroundEnv(PhysicsEnv):
    """One task of MuJoCo Playground, without the wrappers that reset it and fold the time limit into `done`.

    Keyword arguments are settings of the task, such as `episode_length` (the time limit, in steps) and `ctrl_dt`;
    `impl` is MuJoCo's implementation, "jax" unless given, since the library's own default "warp" compiled for
    minutes on a CPU. Actions in [-1, 1] are handed on as they are.
    """

    named = staticmethod(_named)

    def __init__(self, name: str, **kwargs: Any):
        registry = library("playground", "mujoco_playground").registry
        refuse_unknown("playground", name, registry.ALL_ENVS)
        settings = registry.get_default_config(name)

        def load(**own: Any) -> Any:
            if not own.keys() <= set(settings):
                raise ValueError(f"its settings are {', '.join(sorted(settings))}")
            ours = {"impl": "jax"} if "impl" in settings else {}
            return registry.load(name, config_overrides={**ours, **own})

        super().__init__(build(f"playground:{name}", load, kwargs))
        self.time_limit = int(kwargs.get("episode_length", settings.episode_length))


def tasks() -> list[str]:
    """The names of all tasks."""
    return sorted(library("playground", "mujoco_playground").registry.ALL_ENVS)
