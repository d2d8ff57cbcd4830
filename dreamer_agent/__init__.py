"""dreamer_agent: latent Dreamer-style model-based reinforcement learning in JAX.

The public names are imported on first use, so that `import dreamer_agent` is quick and the learner runs where
only JAX's libraries are installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dreamer_agent.version import VERSION

if TYPE_CHECKING:
    from dreamer_agent.agent import Agent, AgentState
    from dreamer_agent.api import (
        Dreamer,
        dream_env,
        dream_report,
        dream_run,
        dream_vector_env,
        evaluate_run,
        load_dream,
        load_run,
        run_config,
        run_metrics,
        train,
        train_population,
    )
    from dreamer_agent.config import Config, load_config
    from dreamer_agent.envs import JaxEnv, make_env, register_suite
    from dreamer_agent.errors import DreamerError
    from dreamer_agent.nets import Net, from_haiku, from_linen
    from dreamer_agent.planning import register_planner
    from dreamer_agent.specs import ArraySpec
    from dreamer_agent.training.callbacks import Callback, StopOnReturn
    from dreamer_agent.training.loggers import register_logger
    from dreamer_agent.world_model import Latent, register_encoder

__version__ = VERSION

_HOMES = {
    "agent": ("Agent", "AgentState"),
    "api": (
        "Dreamer",
        "dream_env",
        "dream_report",
        "dream_run",
        "dream_vector_env",
        "evaluate_run",
        "load_dream",
        "load_run",
        "run_config",
        "run_metrics",
        "train",
        "train_population",
    ),
    "config": ("Config", "load_config"),
    "envs": ("JaxEnv", "make_env", "register_suite"),
    "errors": ("DreamerError",),
    "nets": ("Net", "from_haiku", "from_linen"),
    "planning": ("register_planner",),
    "specs": ("ArraySpec",),
    "training.callbacks": ("Callback", "StopOnReturn"),
    "training.loggers": ("register_logger",),
    "world_model": ("Latent", "register_encoder"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Agent",
    "AgentState",
    "ArraySpec",
    "Callback",
    "Config",
    "Dreamer",
    "DreamerError",
    "JaxEnv",
    "Latent",
    "Net",
    "StopOnReturn",
    "dream_env",
    "dream_report",
    "dream_run",
    "dream_vector_env",
    "evaluate_run",
    "from_haiku",
    "from_linen",
    "load_config",
    "load_dream",
    "load_run",
    "make_env",
    "register_encoder",
    "register_logger",
    "register_planner",
    "register_suite",
    "run_config",
    "run_metrics",
    "train",
    "train_population",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"dreamer_agent.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'dreamer_agent' has no attribute '{name}'")
