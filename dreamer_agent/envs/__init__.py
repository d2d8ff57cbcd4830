"""Environments of every kind behind one step contract."""

from dreamer_agent.envs.make import SUITES, make_env, register_suite
from dreamer_agent.envs.protocol import JaxEnv, Rows, VectorEnv

__all__ = ["SUITES", "JaxEnv", "Rows", "VectorEnv", "make_env", "register_suite"]
