"""Physics of brax (`brax:ant`) through the JAX-native protocol."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from dreamer_agent.envs.suites.libraries import build, library, refuse_unknown
from dreamer_agent.envs.suites.parts import PhysicsEnv


def _named(obs: Any) -> dict[str, Any]:
    """Observations by name: a few tasks have several."""
    return dict(obs) if isinstance(obs, Mapping) else {"obs": obs}


class BraxEnv(PhysicsEnv):
    """One task of brax, without the wrappers that would reset it and fold the time limit into `done`.

    `episode_length` is the time limit, 1000 as in brax; other keyword arguments go to the task, such as
    `backend` (generalized, spring, positional or mjx). Actions are not scaled: all of brax's tasks take numbers
    in [-1, 1] and stretch them themselves where their actuators have other ranges.
    """

    named = staticmethod(_named)

    def __init__(self, name: str, episode_length: int | None = 1000, **kwargs: Any):
        envs = library("brax", "brax.envs")
        refuse_unknown("brax", name, envs._envs)  # brax itself says no more than KeyError
        super().__init__(build(f"brax:{name}", partial(envs.get_environment, name), kwargs))
        self.time_limit = episode_length
