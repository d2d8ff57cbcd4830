"""Environments of every kind behind one step contract."""

from typing import Any

from dreamer_agent.envs.make import SUITES, make_env, register_suite
from dreamer_agent.envs.protocol import JaxEnv, Rows, VectorEnv
from dreamer_agent.envs.sources import Source, source_of

__all__ = [
    "SUITES",
    "Interface",
    "JaxEnv",
    "Rows",
    "Source",
    "VectorEnv",
    "make_env",
    "register_suite",
    "source_of",
]


def __getattr__(name: str) -> Any:
    if name == "Interface":  # it needs gymnasium
        from dreamer_agent.envs.interface import Interface

        return Interface
    raise AttributeError(f"module 'dreamer_agent.envs' has no attribute '{name}'")
