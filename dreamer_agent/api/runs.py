"""Functions over run directories: train in one, and use what lies there.

Wherever a run is asked for, an exported agent (`Dreamer.export`) or an agent that ships with the package
("pretrained:catch") will do, too.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dreamer_agent.agent import Agent, AgentState
from dreamer_agent.config import Config
from dreamer_agent.dreams import OpenLoop, longest_episode, open_loop, whole_windows
from dreamer_agent.envs import Interface, VectorEnv, make_env
from dreamer_agent.errors import ConfigError, RunDirectoryError
from dreamer_agent.planning import ObservedReward, Planner
from dreamer_agent.registry import import_plugins
from dreamer_agent.training import Driver, Evaluation, evaluate, run_directory
from dreamer_agent.training import train as train_loop
from dreamer_agent.training.checkpoint import newest
from dreamer_agent.training.evaluate import EVALUATION_SEED
from dreamer_agent.training.mesh import divide_cpu
from dreamer_agent.training.metrics import read_metrics
from dreamer_agent.training.opening import SPACES, EnvFactory
from dreamer_agent.training.weights import FILE, fill, load_weights, with_params
from dreamer_agent.world_model import CONTEXT

LONGEST_DREAM = 50  # steps of a dream whose length was not asked for
PRETRAINED = "pretrained:"
LEAST_COMPILING = 0.2  # seconds; what compiles faster is not kept
SHIPPED = Path(__file__).parent.parent / "pretrained"


class LoadedRun(NamedTuple):
    """The agent of a run, its newest state, its configuration and the interface of its environment."""

    agent: Agent
    state: AgentState
    config: Config
    interface: Interface


def enable_compilation_cache(folder: Path | None = None) -> None:
    """Keep compiled programs in the user's cache folder, so that a second start compiles nothing.

    A folder that was chosen before (in JAX's own configuration or environment variable) is left as it is.
    """
    if folder is None and jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(folder or base / "dreamer_agent" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_COMPILING)


def make_ready(config: Config) -> None:
    """What has to come before JAX is used for a run of `config`."""
    divide_cpu(devices=config.mesh.data * config.mesh.fsdp)
    enable_compilation_cache()


def train(
    config: Config, run: str | Path, quiet: bool = False, make: EnvFactory | None = None, callbacks: Any = None,
    began: float | None = None, allow: Collection[str] = (),
) -> list[Evaluation]:  # fmt: skip
    """Train in the run directory `run`, resuming what lies there; then score the final parameters.

    Gives two evaluations, with sampled actions and with the mode. `make(num_envs)` makes the environments if not
    `config.env.id` does. `began` (seconds since the epoch, by default now) is where the time until the first
    update is counted from. `allow` names values in which a run that is resumed may differ ("replay.ratio").
    Raises a `DreamerError` that says what to mend where the environment, the memory or the directory does not
    fit.
    """
    make_ready(config)
    return train_loop(config, Path(run), make, quiet, callbacks, began, allow)


def run_folder(run: str | Path) -> Path:
    """The folder of a run, of an exported agent, or of a shipped one ("pretrained:NAME")."""
    if not str(run).startswith(PRETRAINED):
        return Path(run)
    name = str(run).removeprefix(PRETRAINED)
    if name not in pretrained_names():
        raise RunDirectoryError(
            f"There is no pretrained agent '{name}': there are {', '.join(pretrained_names())}."
        )
    return SHIPPED / name


def pretrained_names() -> list[str]:
    """The agents that ship with the package."""
    return sorted(path.name for path in SHIPPED.iterdir() if (path / FILE).is_file()) if SHIPPED.is_dir() else []


def output_folder(run: str | Path) -> Path:
    """Where pictures and videos of `run` go: into it, or under runs/ for an agent of the package."""
    if str(run).startswith(PRETRAINED):
        return Path("runs") / str(run).replace(":", "-")
    return Path(run)


def load_saved(run: str | Path, best: bool = False) -> LoadedRun:
    """Everything of a run but its replay; its environment is not needed if the run wrote down its spaces.

    The newest checkpoint, or (`best`) the one with the best return.
    """
    folder = run_folder(run)
    config = run_directory.load(folder)
    import_plugins(config.plugins)
    interface = _interface(folder, config)
    agent = Agent.create(config, interface.obs_specs, interface.act_specs)
    if (folder / FILE).is_file() and not (folder / "checkpoints").is_dir():
        state = jax.jit(agent.init)(jax.random.PRNGKey(config.seed))
        params = fill(state.params, load_weights(folder / FILE), folder / FILE)
        return LoadedRun(agent, with_params(state, params), config, interface)
    state = newest(folder, best).agent(jax.eval_shape(agent.init, jax.random.PRNGKey(0)))
    return LoadedRun(agent, state, config, interface)


def load_run(run: str | Path) -> tuple[Agent, AgentState, Config]:
    """The agent of a run, its newest checkpoint and its configuration."""
    return load_saved(run)[:3]


def evaluate_run(
    run: str | Path, episodes: int = 20, explore: bool = True, seed: int | None = None, best: bool = False,
    planner: str | Planner | None = None,
) -> Evaluation:  # fmt: skip
    """Score the newest checkpoint of `run`, or the one with the best return (`best`).

    `explore` samples actions, else the mode is taken. A `planner` ("mppi", "cem:samples=128"; by default what the
    run trained with) acts instead of the policy, without noise; "none" is the policy.
    The episodes' seeds are `seed` (the run's, if not given) + 1,000,003 and on, which training does not use.
    """
    at_least_one("episodes", episodes)
    enable_compilation_cache()
    agent, state, config, _ = load_saved(run, best)
    agent = with_planner(agent, planner)
    env = make_env(config.env, min(config.train.eval_envs, episodes))
    try:
        seed, explore = config.seed if seed is None else seed, explore and agent.planner is None
        return evaluate(agent, state.average, env, episodes, seed, explore, config.train.eval_max_length)
    finally:
        env.close()


def with_planner(agent: Agent, planner: str | Planner | None, reward_fn: ObservedReward | None = None) -> Agent:
    """`agent` with `planner` to act, or as it is where None is given; see `Agent.planned_by`."""
    if planner is None and reward_fn is None:
        return agent
    return agent.planned_by(agent.planner if planner is None else planner, reward_fn)


def dream_run(
    run: str | Path, length: int | None = None, sequences: int = 3, seed: int = 0, observed: int | None = None
) -> OpenLoop:
    """Open-loop predictions of the newest checkpoint on fresh episodes.

    The first `observed` steps (half of them, if not given) of every sequence of `length` are observed, the others
    imagined from their actions. Without a `length` it is 50, or less where episodes are shorter.
    """
    enable_compilation_cache()
    agent, state, config = load_run(run)
    env = make_env(config.env, dream_envs(config, sequences))
    try:
        return dream_of(agent, state, env, length, sequences, config.seed + seed, observed)
    finally:
        env.close()


def dream_of(
    agent: Agent, state: AgentState, env: VectorEnv, length: int | None, sequences: int, seed: int,
    observed: int | None = None,
) -> OpenLoop:  # fmt: skip
    """As `dream_run`, with an agent and fresh environments at hand."""
    if length is not None and length < 2:
        raise ConfigError(f"A dream of {length} steps was asked for: it needs one to observe and one to imagine.")
    steps = _collect(agent, state, env, 3 * (length or LONGEST_DREAM), seed)
    length = length or max(2, min(LONGEST_DREAM, longest_episode(steps) - CONTEXT))
    observed = length // 2 if observed is None else observed
    if not 0 < observed < length:
        raise ConfigError(
            f"{observed} of {length} steps should be observed: leave at least one to observe and one to imagine."
        )
    batch = whole_windows(steps, CONTEXT + length, sequences)
    return open_loop(agent, state.average, batch, jax.random.PRNGKey(seed), observed)


def dream_envs(config: Config, sequences: int) -> int:
    """How many environments a dream of so many sequences steps: some to choose from, if that many are allowed."""
    at_least_one("sequences", sequences)
    return max(sequences, min(4 * sequences, config.train.eval_envs))


def at_least_one(what: str, number: int) -> None:
    """Raise `ConfigError` for a number below one."""
    if number < 1:
        raise ConfigError(f"{number} {what} were asked for: ask for at least one.")


def run_config(run: str | Path) -> Config:
    """The configuration of a run."""
    return run_directory.load(run_folder(run))


def run_metrics(run: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics."""
    return read_metrics(run_folder(run))


def _interface(folder: Path, config: Config) -> Interface:
    """The spaces that the run wrote down; a run of an older version is asked through its environment."""
    if (folder / SPACES).is_file():
        return Interface.load(folder / SPACES)
    env = make_env(config.env, 1)
    try:
        return env.interface
    finally:
        env.close()


def _collect(agent: Agent, state: AgentState, env: VectorEnv, count: int, seed: int) -> list[dict[str, Any]]:
    """`count` consecutive steps `[E, ...]` of the sampled policy on fresh environments."""
    driver = Driver(agent, env, seed + 2 * EVALUATION_SEED)
    steps: list[dict[str, Any]] = []
    while len(steps) < count:
        for rows, step in driver.rows(state.average):
            if rows.mask is None:
                steps.append(jax.tree.map(np.asarray, step))
    return steps
