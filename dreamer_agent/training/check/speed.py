"""How fast a run will be: its own compiled programs, timed for a few seconds before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dreamer_agent.agent import Agent
from dreamer_agent.config import Config
from dreamer_agent.envs import Rows, VectorEnv
from dreamer_agent.errors import EnvironmentFault
from dreamer_agent.replay import HostReplay
from dreamer_agent.specs import Specs
from dreamer_agent.training import budget
from dreamer_agent.training.check.rollout import RandomPolicy, RandomRollout, sentence_of
from dreamer_agent.training.driver import Driver
from dreamer_agent.training.mesh import Placement
from dreamer_agent.training.progress import Stopwatch
from dreamer_agent.training.updates import Updates, sample_many, updates_per_dispatch
from dreamer_agent.training.weights import read_weights, start_from
from dreamer_agent.world_model import CONTEXT

MOST_CALLS = 2000  # of one thing, while it is timed
REPEATS = 3  # at least, of an update


@dataclass(frozen=True)
class Speed:
    """Seconds of one call: all environments stepped once, the policy for all of them; and of one update.

    `compiling` is the time until the programs were ready; `activations` the bytes that an update takes beside its
    inputs, None where XLA does not tell.
    """

    env: float
    policy: float
    update: float
    compiling: float
    activations: int | None


@dataclass(frozen=True)
class Forecast:
    """Seconds that a run spends on each part, and the calls and updates that these are made of."""

    calls: int
    updates: int
    env: float
    policy: float
    update: float

    @property
    def total(self) -> float:
        """All of it, in seconds."""
        return self.env + self.policy + self.update

    @property
    def bound(self) -> str:
        """What takes more than half: "update", "env", "policy", or "none" of them."""
        parts = {"update": self.update, "env": self.env, "policy": self.policy}
        return next((name for name, seconds in parts.items() if seconds > self.total / 2), "none")


def forecast(config: Config, speed: Speed, calls_per_step: float) -> Forecast:
    """The time of a whole run. `calls_per_step`: calls of all environments for one env step; resets are none."""
    calls = int(np.ceil(config.train.steps * calls_per_step))
    updates = int(max(config.train.steps - config.replay.prefill, 0) * config.updates_per_env_step)
    return Forecast(calls, updates, calls * speed.env, calls * speed.policy, updates * speed.update)


def measure(config: Config, agent: Agent, env: VectorEnv, rollout: RandomRollout, seconds: float = 2.0) -> Speed:
    """Time the environments, the policy and the update, each for about `seconds`.

    The programs are those that the trainer compiles, for the same shapes, so that a cache serves both. Raises
    `EnvironmentFault` where the environment fails, `RunDirectoryError` for an `init_from` that cannot be read.
    """
    state = jax.jit(agent.init)(jax.random.PRNGKey(config.seed))
    if config.init_from:
        state = start_from(state, read_weights(Path(config.init_from)))[0]
    env_time, rows = _time_env(env, seconds)
    start = time.monotonic()
    driver = Driver(agent, _Still(env, rows), config.seed)  # type: ignore[arg-type]
    _ = [None for _ in driver.rows(state.params)]
    compiling = time.monotonic() - start
    policy = _median(lambda: [None for _ in driver.rows(state.params)], seconds / 2, 1)
    update, more, activations = _time_update(config, agent, state, rollout, seconds)
    return Speed(env_time, policy, update, compiling + more, activations)


class _Still:
    """Environments that stand still, so that the policy alone is timed."""

    def __init__(self, env: VectorEnv, rows: Rows):
        self.num_envs, self.rows = env.num_envs, rows
        self.obs_specs: Specs = env.obs_specs
        self.act_specs: Specs = env.act_specs

    def reset(self, seed: int) -> list[Rows]:
        return [self.rows]

    def step(self, actions: Any) -> list[Rows]:
        return [self.rows]


def _time_env(env: VectorEnv, seconds: float) -> tuple[float, Rows]:
    """Mean time of a call (resets are rare and count), and rows of all environments."""
    policy, spent, calls = RandomPolicy(env.act_specs, 1), 0.0, 0
    try:
        pending = env.reset(1)
        first = pending[0]
        while spent < seconds and calls < MOST_CALLS * 10:
            action = policy(pending[-1].obs, env.num_envs)
            start = time.perf_counter()
            pending = env.step(action)
            spent, calls = spent + time.perf_counter() - start, calls + 1
    except Exception as error:
        raise EnvironmentFault(sentence_of(error)) from error
    return spent / calls, first


def _time_update(
    config: Config, agent: Agent, state: Any, rollout: RandomRollout, seconds: float
) -> tuple[float, float, int | None]:
    replay, count = filled_replay(config, agent, rollout), updates_per_dispatch(config, agent)
    updates = Updates(agent, count, overlap=False, clock=Stopwatch(), placement=Placement.of(config))
    held = [state := updates.placement.state(state)]
    start = time.monotonic()
    program = updates.program.lower(state, sample_many(replay, count)[0]).compile()
    compiling = time.monotonic() - start
    updates.program = program

    def once() -> None:
        held[0], _ = updates.launch(held[0], replay, 0)

    once()
    return _median(once, 1.5 * seconds, REPEATS) / count, compiling, _activations(program)


def filled_replay(config: Config, agent: Agent, rollout: RandomRollout) -> HostReplay:
    """A small replay that gives batches of the run's shapes and types, of what `rollout` kept (again if it is
    short)."""
    size = config.replay.batch_length + CONTEXT
    replay = HostReplay(
        budget.layout_of(agent), config.env.num_envs, config.env.num_envs * (size + 1), config.replay.batch_size,
        config.replay.batch_length, CONTEXT, online=False, seed=config.seed,
    )  # fmt: skip
    latent = jax.tree.map(np.asarray, agent.init_act(config.env.num_envs).latent.pack())
    for index in range(size + 1):
        replay.add({**rollout.kept[index % len(rollout.kept)], "latent": latent})
    return replay


def _activations(compiled: Any) -> int | None:
    try:
        return int(compiled.memory_analysis().temp_size_in_bytes)
    except Exception:  # not every backend tells
        return None


def _median(call: Callable[[], Any], seconds: float, least: int) -> float:
    times: list[float] = []
    while len(times) < least or (sum(times) < seconds and len(times) < MOST_CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))
