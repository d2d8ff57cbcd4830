"""The report of a run's world model on fresh episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dreamer_agent.agent import Agent, AgentState
from dreamer_agent.api.runs import at_least_one, enable_compilation_cache, load_run
from dreamer_agent.config import Config
from dreamer_agent.dreams import HORIZONS, DreamReport, Episode, load_pix, measure_dreams, split_episodes
from dreamer_agent.envs import VectorEnv, make_env
from dreamer_agent.errors import ConfigError
from dreamer_agent.specs import split_specs
from dreamer_agent.training import Driver
from dreamer_agent.training.evaluate import EVALUATION_SEED

WINDOWS = 64
EACH = 4  # windows of an episode, where that many environments are allowed
ROWS = 500  # steps of each environment that are watched


def dream_report(
    run: str | Path, windows: int = WINDOWS, horizons: Sequence[int] = HORIZONS, seed: int = 0,
    observed: int | None = None,
) -> DreamReport:  # fmt: skip
    """How well the world model of the newest checkpoint predicts fresh episodes of its policy; see `DreamReport`.

    From `windows` starts, each after at least `observed` steps of an episode (five, if not given, or half of
    shorter episodes), it imagines as far as the longest of `horizons`. Images need the extra `report`.
    """
    enable_compilation_cache()
    agent, state, config = load_run(run)
    env = make_env(config.env, report_envs(config, windows))
    try:
        return report_of(agent, state, env, windows, horizons, config.seed + seed, observed)
    finally:
        env.close()


def report_of(
    agent: Agent, state: AgentState, env: VectorEnv, windows: int, horizons: Sequence[int], seed: int,
    observed: int | None = None,
) -> DreamReport:  # fmt: skip
    """As `dream_report`, with an agent and fresh environments at hand."""
    at_least_one("windows", windows)
    if not horizons or min(horizons) < 1:
        raise ConfigError(f"The horizons {list(horizons)} were asked for: name at least one, all 1 or more.")
    if split_specs(agent.model.obs_specs)[1]:
        load_pix()  # before the environments are stepped
    rows = max(ROWS, (observed or 0) + 2 * max(horizons))
    episodes = watch(agent, state, env, rows, seed)
    return measure_dreams(agent, state.average, episodes, windows, horizons, observed, seed)


def report_envs(config: Config, windows: int) -> int:
    """How many environments a report of so many windows steps: half of them are for the probes."""
    at_least_one("windows", windows)
    return 2 * max(1, min(-(-windows // EACH), config.train.eval_envs))


def watch(agent: Agent, state: AgentState, env: VectorEnv, rows: int, seed: int) -> list[Episode]:
    """The episodes in `rows` steps of each environment with sampled actions; the last ones may be unfinished.

    Their seeds are those of `dream_run`, which neither training nor `evaluate_run` uses.
    """
    driver = Driver(agent, env, seed + 2 * EVALUATION_SEED)
    steps: list[dict[str, Any]] = []
    masks: list[np.ndarray | None] = []
    while len(steps) < rows:
        for seen, step in driver.rows(state.average):
            steps.append(jax.tree.map(np.asarray, step))
            masks.append(seen.mask)
    return split_episodes(steps, masks)
