"""Everything worth knowing before a long run, measured on its own environment and programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax

from dreamer_agent.agent import Agent
from dreamer_agent.config import Config
from dreamer_agent.envs import VectorEnv, make_env
from dreamer_agent.errors import ConfigError, DreamerError, MissingExtraError
from dreamer_agent.registry import import_plugins
from dreamer_agent.training import budget
from dreamer_agent.training.budget import Budget
from dreamer_agent.training.check.rollout import RandomRollout, random_rollout, sentence_of
from dreamer_agent.training.check.speed import Forecast, Speed, forecast, measure
from dreamer_agent.training.check.words import Acted, Routed, acted, routed
from dreamer_agent.training.metrics import check_loggers
from dreamer_agent.world_model import CONTEXT

ROLLOUT_STEPS = 1000


@dataclass(frozen=True)
class Memory:
    """What the run takes (`budget`, for `steps` kept steps), and the free bytes of the host and of the device."""

    budget: Budget
    steps: int
    free: int
    device_free: int | None


@dataclass
class Report:
    """What was found. `problems` keep the run from training; `notices` are advice.

    A part that could not be made is None (or empty); so is `gymnasium` where the environment is none of its own.
    """

    config: Config
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    observations: list[Routed] = field(default_factory=list)
    actions: list[Acted] = field(default_factory=list)
    one_by_one: bool = True  # the environments are stepped in turn, so that more of them are no faster
    gymnasium: list[str] | None = None
    rollout: RandomRollout | None = None
    memory: Memory | None = None
    speed: Speed | None = None
    forecast: Forecast | None = None


def check_run(
    config: Config, make: Callable[[int], VectorEnv] | None = None, quick: bool = False, seconds: float = 2.0
) -> Report:
    """Look at the run that `config` describes, without starting it; only the compilation cache is written.

    `make(num_envs)` overrides the environment that `config.env` names. `quick` leaves out the timing, which
    compiles; else each part is timed for about `seconds`. Raises `ConfigError` where there is no such
    environment, and `MissingExtraError` where it is not installed; what else is wrong is in `Report.problems`.
    """
    import_plugins(config.plugins)
    check_loggers(config)
    report = Report(config)
    try:
        # No fault is mended on the quiet: they are what is looked for.
        env = make(config.env.num_envs) if make else make_env(replace(config.env, max_faults=0))
    except (ConfigError, MissingExtraError):
        raise
    except Exception as error:
        report.problems.append(sentence_of(error))
        _look_closer(report, make)
        return report
    if env.num_envs != config.env.num_envs:
        report.problems.append(
            f"There are {env.num_envs} environments, but env.num_envs={config.env.num_envs}: make them equal."
        )
    try:
        _look(report, env)
        agent = _weigh(report, env)
        if agent and not quick and not report.problems:
            _time(report, agent, env, seconds)
    finally:
        env.close()
    _look_closer(report, make)
    return report


def _look(report: Report, env: VectorEnv) -> None:
    """What it observes, does, and shows in a random rollout."""
    from gymnasium.vector import SyncVectorEnv

    from dreamer_agent.envs.jax_adapter import JaxVectorEnv
    from dreamer_agent.envs.resilient import ResilientVectorEnv
    from dreamer_agent.training.check.notices import notices

    config = report.config
    inner = getattr(env, "env", None)
    report.one_by_one = isinstance(inner, ResilientVectorEnv | SyncVectorEnv) and bool(inner.envs)
    report.observations = routed(env.interface, isinstance(env, JaxVectorEnv))
    report.actions = acted(env.interface)
    keep = config.replay.batch_length + CONTEXT + 1
    report.rollout = random_rollout(env, max(ROLLOUT_STEPS, keep * env.num_envs), config.seed, keep)
    report.problems += report.rollout.faults
    report.notices += notices(config, env, report.rollout)


def _look_closer(report: Report, make: Callable[[int], VectorEnv] | None) -> None:
    """Ask gymnasium's checker; and where something broke, step a single environment past its first fault."""
    from dreamer_agent.training.check.survey import gymnasium_findings, single_env, survey

    try:
        env = single_env(make, report.config.env)
    except Exception as error:
        _add(report.problems, sentence_of(error))
        return
    if env is None:
        return
    if report.problems:
        found = RandomRollout({}, faults=list(report.problems))
        survey(env, found, report.config.env.route, observations=bool(report.observations))
        report.problems = found.faults
    report.gymnasium = gymnasium_findings(env)
    try:
        env.close()
    except Exception as error:
        _add(report.problems, sentence_of(error))


def _weigh(report: Report, env: VectorEnv) -> Agent | None:
    """Count parameters and bytes; the agent, if there can be one."""
    config, free = report.config, budget.free_memory()
    try:
        agent = Agent.create(config, env.obs_specs, env.act_specs)
        report.memory = Memory(budget.estimate(config, agent), budget.kept_steps(config), free, _device_free())
        budget.check(config, agent, free)
        return agent
    except DreamerError as error:
        report.problems.append(str(error))
        return None


def _time(report: Report, agent: Agent, env: VectorEnv, seconds: float) -> None:
    """Time the run's parts, and foretell how long it takes."""
    assert report.rollout is not None
    if not report.rollout.kept:
        report.notices.append("The speed was not measured: no steps of all environments together were seen.")
        return
    try:
        report.speed = measure(report.config, agent, env, report.rollout, seconds)
    except DreamerError as error:
        report.problems.append(str(error))
        return
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        report.problems.append(
            "The update does not fit the memory of the device: choose a smaller --size, replay.batch_size or "
            "replay.batch_length."
        )
        return
    report.notices += _tight(report)
    per_step = report.rollout.calls / max(report.rollout.steps, 1)
    report.forecast = forecast(report.config, report.speed, per_step)


def _tight(report: Report) -> list[str]:
    """A sentence where the activations, which the budget leaves out, do not fit beside the rest."""
    assert report.memory is not None and report.speed is not None
    memory, on_device = report.memory, report.memory.device_free is not None
    needed = memory.budget.model + (report.speed.activations or 0) + (0 if on_device else memory.budget.replay)
    free = memory.device_free if memory.device_free is not None else memory.free
    if needed < 0.9 * free:
        return []
    return [
        f"With its activations the run takes {needed / budget.GB:.2f} GB of {free / budget.GB:.2f} GB that are "
        "free: lower replay.batch_size, replay.capacity or --size, or expect it to be killed."
    ]


def _device_free() -> int | None:
    """Free bytes of an accelerator; None on a CPU, or where it does not tell."""
    stats = None if jax.default_backend() == "cpu" else jax.devices()[0].memory_stats()
    return int(stats["bytes_limit"] - stats["bytes_in_use"]) if stats and "bytes_limit" in stats else None


def _add(sentences: list[str], sentence: str) -> None:
    if sentence not in sentences:
        sentences.append(sentence)
