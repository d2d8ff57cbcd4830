"""Memory known before the start: what the replay and the model will take, against what is free."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import jax

from dreamer_agent.agent import Agent, count_parameters
from dreamer_agent.config import Config
from dreamer_agent.errors import MemoryBudgetError
from dreamer_agent.replay import replay_bytes, step_layout
from dreamer_agent.replay.host import Layout, bookkeeping_bytes

GB = 1e9
COPIES = 6  # of the parameters: themselves, their average, gradients, two optimiser moments, the update


@dataclass(frozen=True)
class Budget:
    """Sizes in bytes, and the count of trained parameters (the slow critic aside)."""

    replay: int
    model: int
    parameters: int


def latent_layout(agent: Agent) -> Layout:
    """Shapes and types of one packed latent."""
    packed = jax.eval_shape(lambda: agent.model.rssm.initial().pack())
    return {key: (value.shape, value.dtype) for key, value in packed.items()}


def layout_of(agent: Agent) -> Layout:
    """The layout of one step of experience of this agent."""
    obs = {key: (spec.shape, spec.dtype) for key, spec in agent.model.obs_specs.items()}
    action = {key: (spec.shape, spec.dtype) for key, spec in agent.model.act_specs.items()}
    return step_layout(obs, action, latent_layout(agent))


def estimate(config: Config, agent: Agent) -> Budget:
    """What a run of `config` takes; activations and the environments come on top."""
    state = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
    parameters = count_parameters(state.params)
    replay = replay_bytes(layout_of(agent), kept_steps(config)) + bookkeeping_bytes(kept_steps(config))
    return Budget(replay, parameters * 4 * COPIES, parameters)


def stored_steps(config: Config) -> int:
    """The steps that a run stores: env steps and resets.

    As many resets as steps are allowed for in short runs; in long ones one in ten, beyond which the oldest steps
    would be dropped.
    """
    shortest = config.env.num_envs * (config.replay.batch_length + 2)
    steps = config.train.steps + config.env.num_envs
    return max(steps + min(steps, 100_000 + steps // 10), shortest)


def kept_steps(config: Config) -> int:
    """The steps that the replay of a run has room for: no more than the run can fill."""
    return min(config.replay.capacity, stored_steps(config))


def free_memory() -> int:
    """Bytes of main memory that are free now."""
    import psutil

    return int(psutil.virtual_memory().available)


def free_disk(folder: Path) -> int:
    """Bytes that are free for a run in `folder`: what its replay has taken there already counts as free."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    taken = sum(path.stat().st_size for path in (folder / "replay").glob("*.npz"))
    return shutil.disk_usage(there).free + taken


def check(config: Config, agent: Agent, free: int | None = None, disk: int | None = None) -> Budget:
    """The budget, or `MemoryBudgetError` where it does not fit `free` bytes (by default what is free now).

    With `replay.spill` the replay lies on a disk, of which `disk` bytes are free, and checkpoints hold it again.
    """
    budget = estimate(config, agent)
    free = free_memory() if free is None else free
    spilled = config.replay.spill and disk is not None
    limit = config.replay.max_gb * GB or (disk / 2 if config.replay.spill and disk is not None else free)
    if budget.replay > limit:
        steps = kept_steps(config)
        fits = int(steps * limit / budget.replay)
        where = " on disk and as much again in checkpoints" if spilled else ""
        instead = "" if spilled else ", or have it on disk with replay.spill=true"
        raise MemoryBudgetError(
            f"The replay of {steps:,} steps takes {budget.replay / GB:.2f} GB{where}, "
            f"but {limit / GB:.2f} GB are allowed: set replay.capacity to at most {fits:,}, or raise "
            f"replay.max_gb{instead}."
        )
    in_memory = 0 if spilled else budget.replay
    if jax.default_backend() == "cpu" and budget.model + in_memory > free:
        raise MemoryBudgetError(
            f"The model of {budget.parameters:,} parameters takes at least {budget.model / GB:.2f} GB to train "
            f"beside {in_memory / GB:.2f} GB of replay, but {free / GB:.2f} GB are free: choose a smaller "
            "--size or replay.capacity."
        )
    return budget
