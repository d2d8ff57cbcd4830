"""Before a run starts: whether its directory and its environment fit, and what is written down there."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import jax
import numpy as np

from dreamer_agent.agent import Agent
from dreamer_agent.config import Config
from dreamer_agent.envs import Interface, VectorEnv
from dreamer_agent.errors import MemoryBudgetError, RunDirectoryError
from dreamer_agent.replay import HostReplay
from dreamer_agent.replay.host import Layout
from dreamer_agent.specs import specs_difference
from dreamer_agent.training import budget, run_directory
from dreamer_agent.training.mesh import sizes_of
from dreamer_agent.training.weights import read_weights
from dreamer_agent.world_model import CONTEXT

EnvFactory = Callable[[int], VectorEnv]  # number of environments -> environments
SPACES = "spaces.json"


def check_folder(config: Config, folder: Path, env: VectorEnv, allow: Collection[str] = ()) -> None:
    """Raise a `DreamerError` where `folder` cannot take a run of `config` in `env`; nothing is written.

    `allow` names values that may differ from those of the run found there; see `run_directory.check`.
    """
    run_directory.check(folder, config, allow)
    _check_spaces(folder, env)
    if config.init_from and run_directory.newest_step(folder) is None:
        read_weights(Path(config.init_from))


def prepare_folder(config: Config, folder: Path, env: VectorEnv, allow: Collection[str] = ()) -> None:
    """Make `folder` the run directory of `config` in `env`."""
    run_directory.prepare(folder, config, allow)
    env.interface.save(folder / SPACES)


def introduction(config: Config, folder: Path, agent: Agent, env: VectorEnv, sizes: budget.Budget) -> list[str]:
    """Lines that say what is about to run."""
    obs = ", ".join(f"{k} {s.kind} {list(s.shape)}" for k, s in env.obs_specs.items())
    act = ", ".join(f"{k} {s.kind} {s.classes if s.classes else list(s.shape)}" for k, s in env.act_specs.items())
    lines = [
        f"[bold]{config.env.id}[/bold] with {config.env.num_envs} environments: observes {obs}; acts by {act}",
        f"{sizes.parameters:,} parameters on {_devices(config)} in {agent.model.dtype.name}; "
        f"replay {sizes.replay / 1e9:.3f} GB, learner about {sizes.model / 1e9:.3f} GB plus activations",
        f"{config.updates_per_env_step:.3g} updates per env step "
        f"(ratio {config.replay.ratio:g} / batch {config.replay.batch_size} x {config.replay.batch_length}); "
        f"run directory {folder}",
    ]
    if steps := config.behaviour.explore_steps:
        many = "all" if steps >= config.train.steps else f"the first {steps:,}"
        lines.append(f"an explorer collects {many} env steps, to see what the model does not know (Plan2Explore)")
    return lines


def _devices(config: Config) -> str:
    data, fsdp = sizes_of(config)
    if data * fsdp == 1:
        return jax.default_backend()
    divided = "rows" if fsdp == 1 else f"rows, and parameters among {fsdp}"
    processes = "" if jax.process_count() == 1 else f" of {jax.process_count()} processes"
    return f"{data * fsdp} {jax.default_backend()} devices{processes} (divided: {divided})"


def make_replay(config: Config, agent: Agent, folder: Path | None = None) -> HostReplay:
    """The replay of a run, no larger than the run can fill; in files of `folder` with `replay.spill`."""
    allocate = partial(_spilled, folder) if config.replay.spill and folder is not None else np.zeros
    return HostReplay(*replay_sizes(config, agent), config.seed, allocate)


def _spilled(folder: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros in a file without a name, which is gone when the process is: checkpoints keep what it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        array = np.memmap(file, dtype, "w+", shape=shape)
        _take_room(file.fileno(), array.nbytes, folder)
        return array


def _take_room(file: int, count: int, folder: Path) -> None:
    """Have the disk give all of a file now: later, a write to what it cannot give ends the process."""
    allocate = getattr(os, "posix_fallocate", None)
    if allocate is None or not count:
        return
    try:
        allocate(file, 0, count)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise MemoryBudgetError(
                f"The replay on disk needs {count / 1e9:.2f} GB in {folder}, which is not free there: make room, "
                "or lower replay.capacity."
            ) from error


def replay_sizes(config: Config, agent: Agent) -> tuple[Layout, int, int, int, int, int, bool]:
    """The first arguments of a run's replay: layout, streams, capacity, batch, context, online queue."""
    return (
        budget.layout_of(agent),
        config.env.num_envs,
        budget.kept_steps(config),
        config.replay.batch_size,
        config.replay.batch_length,
        CONTEXT,
        config.replay.online,
    )


def _check_spaces(folder: Path, env: VectorEnv) -> None:
    """Refuse to resume with an environment whose spaces are not those that the run in `folder` began with."""
    if not (folder / SPACES).is_file():
        return
    before = Interface.load(folder / SPACES)
    for what, old, new in (
        ("observes", before.obs_specs, env.obs_specs),
        ("acts by", before.act_specs, env.act_specs),
    ):
        difference = specs_difference(old, new)
        if difference:
            raise RunDirectoryError(
                f"The environment now {what} {difference[1]}, but the run in {folder} has {difference[0]}: "
                "give another run directory, or the environment that it was trained on. Nothing was changed "
                "there."
            )
