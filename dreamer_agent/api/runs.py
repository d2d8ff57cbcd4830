"""What a user calls: train in a run directory, and use what lies in one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dreamer_agent.agent import Agent, AgentState
from dreamer_agent.config import Config
from dreamer_agent.dreams import OpenLoop, open_loop, whole_windows
from dreamer_agent.envs import VectorEnv, make_env
from dreamer_agent.training import Checkpoints, Driver, Evaluation, evaluate, run_directory
from dreamer_agent.training import train as train_loop
from dreamer_agent.training.evaluate import EVALUATION_SEED
from dreamer_agent.training.metrics import read_metrics
from dreamer_agent.world_model import CONTEXT


def enable_compilation_cache(folder: Path | None = None) -> None:
    """Keep compiled programs in the user's cache folder, so that a second start compiles nothing."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(folder or base / "dreamer_agent" / "xla"))


def train(config: Config, run: str | Path, quiet: bool = False) -> list[Evaluation]:
    """Train in the run directory `run`, resuming what lies there; then score the final parameters.

    Gives two evaluations, with sampled actions and with the mode. Raises a `DreamerError` that says what
    to mend where the environment, the memory or the directory does not fit.
    """
    enable_compilation_cache()
    return train_loop(config, Path(run), quiet=quiet)


def load_run(run: str | Path) -> tuple[Agent, AgentState, Config]:
    """The agent of a run, its newest checkpoint and its configuration."""
    folder = Path(run)
    config = run_directory.load(folder)
    env = make_env(config.env, 1)
    try:
        agent = Agent.create(config, env.obs_specs, env.act_specs)
    finally:
        env.close()
    checkpoints = Checkpoints(folder / "checkpoints", config.train.keep_checkpoints)
    template = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
    state = checkpoints.restore_agent(template)
    checkpoints.close()
    return agent, state, config


def evaluate_run(
    run: str | Path, episodes: int = 20, explore: bool = True, seed: int | None = None
) -> Evaluation:
    """Score the newest checkpoint of `run`; `explore` samples actions, else the mode is taken."""
    enable_compilation_cache()
    agent, state, config = load_run(run)
    env = make_env(config.env, min(config.train.eval_envs, episodes))
    try:
        return evaluate(agent, state.params, env, episodes, config.seed if seed is None else seed, explore)
    finally:
        env.close()


def dream_run(run: str | Path, length: int = 50, sequences: int = 3, seed: int = 0) -> OpenLoop:
    """Open-loop predictions of the newest checkpoint on fresh episodes.

    The first half of every sequence of `length` steps is observed, the second imagined from its actions.
    """
    enable_compilation_cache()
    agent, state, config = load_run(run)
    env = make_env(config.env, 4 * sequences)
    try:
        steps = _collect(agent, state, env, 3 * length, config.seed + seed)
    finally:
        env.close()
    batch = whole_windows(steps, CONTEXT + length, sequences)
    return open_loop(agent, state.params, batch, jax.random.PRNGKey(seed), length // 2)


def run_config(run: str | Path) -> Config:
    """The configuration of a run."""
    return run_directory.load(Path(run))


def run_metrics(run: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics."""
    return read_metrics(Path(run))


def _collect(agent: Agent, state: AgentState, env: VectorEnv, count: int, seed: int) -> list[dict[str, Any]]:
    """`count` consecutive steps `[E, ...]` of the sampled policy on fresh environments."""
    driver = Driver(agent, env, seed + 2 * EVALUATION_SEED)
    steps: list[dict[str, Any]] = []
    while len(steps) < count:
        for rows, step in driver.rows(state.params):
            if rows.mask is None:
                steps.append(jax.tree.map(np.asarray, step))
    return steps
