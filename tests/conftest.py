"""Shared fixtures: small configurations, and a persistent compilation cache so that tests share programs."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs of tests are small: optimising them costs more than it saves. Subprocesses inherit it. With the second
# flag an update compiles in 8 instead of 14 s; XLA ends a process whose flags it does not know, as newer may not.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""),
)

import jax
import numpy as np
import pytest

from dreamer_agent.agent import Agent
from dreamer_agent.config import Config, load_config
from dreamer_agent.specs import ArraySpec

if "device_count" not in os.environ["XLA_FLAGS"]:
    jax.config.update("jax_num_cpu_devices", 1)  # whatever test comes first: several devices are asked for apart
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent / ".xla_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

TEST_SIZE = [
    "model.deter=32", "model.hidden=16", "model.classes=4", "model.units=16", "model.depth=2",
    "model.stoch=4", "model.bins=31", "replay.batch_size=4", "replay.batch_length=8",
    "behaviour.imagination_horizon=5",
]  # fmt: skip


def small_config(*overrides: str) -> Config:
    """A configuration whose update compiles and runs quickly."""
    return load_config(overrides=[*TEST_SIZE, *overrides])


def random_batch(agent: Agent, seed: int = 0) -> dict:
    """A batch `[B, 1 + T, ...]` of random numbers for `agent`, with a few episode starts and ends."""
    c, rng = agent.config, np.random.default_rng(seed)
    shape = (c.replay.batch_size, 1 + c.replay.batch_length)

    def draw(spec: ArraySpec) -> np.ndarray:
        if spec.kind == "continuous":
            return rng.normal(size=(*shape, *spec.shape)).astype(np.float32)
        top = spec.classes if spec.kind == "discrete" else 256
        return rng.integers(0, top, (*shape, *spec.shape)).astype(spec.dtype)

    is_last = rng.random(shape) < 0.1
    is_first = np.concatenate([np.zeros((shape[0], 1), bool), is_last[:, :-1]], 1)
    return {
        "obs": {k: draw(s) for k, s in agent.model.obs_specs.items()},
        "action": {k: draw(s) for k, s in agent.model.act_specs.items()},
        "reward": rng.normal(size=shape).astype(np.float32),
        "is_first": is_first,
        "is_last": is_last,
        "is_terminal": is_last & (rng.random(shape) < 0.5),
        "latent": {
            "deter": rng.normal(size=(*shape, c.model.deter)).astype(np.float32),
            "stoch": rng.integers(0, c.model.classes, (*shape, c.model.stoch)).astype(np.uint8)
            if c.model.latent == "categorical"
            else rng.normal(size=(*shape, c.model.stoch)).astype(np.float32),
        },
    }


class Learner:
    """An agent with a fresh state and its jitted update, shared by the tests of a session."""

    def __init__(self, config: Config, obs: dict[str, ArraySpec], act: dict[str, ArraySpec]):
        self.agent = Agent.create(config, obs, act)
        self.state = jax.jit(self.agent.init)(jax.random.PRNGKey(0))
        self.traces = 0

        def update(state, batch):
            self.traces += 1
            return self.agent.update(state, batch)

        self.update = jax.jit(update)


@pytest.fixture(scope="session")
def learner() -> Learner:
    """Vector observations of two kinds and actions of two kinds."""
    obs = {"vector": ArraySpec("continuous", (3,)), "integer": ArraySpec("discrete", (), 4)}
    act = {"move": ArraySpec("continuous", (2,)), "button": ArraySpec("discrete", (), 3)}
    return Learner(small_config(), obs, act)
