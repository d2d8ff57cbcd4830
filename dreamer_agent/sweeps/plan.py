"""What a sweep will take, before it starts: runs, env steps, time and disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dreamer_agent.agent import Agent
from dreamer_agent.config import Config
from dreamer_agent.errors import ConfigError
from dreamer_agent.hyper import HYPER
from dreamer_agent.sweeps.runs import SweepRun
from dreamer_agent.sweeps.sweep import Sweep
from dreamer_agent.training import budget
from dreamer_agent.training.metrics import newest_metrics
from dreamer_agent.values import flatten, to_dict

MEASURED = 4  # programs that are timed before a sweep starts
LEARNER = 16  # bytes of a checkpoint for each parameter: itself, its average, two moments
GB = 1e9
NOT_PROGRAM = ("seed", *HYPER)


@dataclass(frozen=True)
class Plan:
    """Numbers of what is left to do; `seconds` is one run after another, None where nothing could be timed."""

    runs: int
    finished: int
    env_steps: int  # of all runs that are not finished, less what they have
    gb: float  # of all run directories together
    seconds: float | None
    timed: int  # programs whose speed is known
    programs: int  # different ones among the unfinished runs

    def check(self, sweep: Sweep) -> None:
        """Raise `ConfigError` where it is more than the sweep's budget allows."""
        for name, needed in (("runs", self.runs), ("env_steps", self.env_steps), ("gb", self.gb)):
            limit = sweep.budget.get(name)
            if limit is not None and needed > limit:
                raise ConfigError(
                    f"The sweep '{sweep.name}' needs {needed:,.10g} {name}, its budget is {limit:,.10g}: take "
                    "fewer points or seeds, or raise the budget."
                )


def plan(runs: Sequence[SweepRun], measure: Callable[[Config], float | None] | None = None) -> Plan:
    """What is left of `runs`.

    The time of a run comes from its own pace or that of another run of its program, where one was begun; else
    from `measure`, which gives the seconds of a run, for up to `MEASURED` programs; others are taken to be as
    slow, for each env step, as the mean of those.
    """
    left = [run for run in runs if not run.finished()]
    steps = {run.folder: max(run.steps - _done(run), 0) for run in left}
    programs: dict[str, list[SweepRun]] = {}
    for run in left:
        programs.setdefault(program_of(run.setting.config), []).append(run)
    paces: dict[str, float] = {}  # seconds for each env step
    for program, members in programs.items():
        known = [pace for member in members if (pace := _pace(member)) is not None]
        if known:
            paces[program] = sum(known) / len(known)
    if measure is not None:
        for program in [one for one in programs if one not in paces][:MEASURED]:
            config = programs[program][0].setting.config
            seconds = measure(config)
            if seconds is not None:
                paces[program] = seconds / config.train.steps
    mean = sum(paces.values()) / len(paces) if paces else None
    total = None
    if mean is not None:
        total = sum(
            steps[run.folder] * paces.get(program, mean)
            for program, members in programs.items()
            for run in members
        )
    return Plan(
        len(runs), len(runs) - len(left), sum(steps.values()), sum(disk(run.setting.config) for run in runs) / GB,
        total, len(paces), len(programs),
    )  # fmt: skip


def program_of(config: Config) -> str:
    """What runs of one speed have in common."""
    values = flatten(to_dict(config))
    kept = {k: v for k, v in values.items() if k not in NOT_PROGRAM and not k.startswith(("train.", "mesh."))}
    return json.dumps(kept, sort_keys=True, default=str)


def measured(config: Config) -> float | None:
    """Seconds of a run, timed as `check` does; None where its environment cannot be trained in."""
    from dreamer_agent.api.check import check

    report = check(config, show=False)
    return None if report.forecast is None else report.forecast.total


_SIZES: dict[str, budget.Budget] = {}


def disk(config: Config) -> int:
    """Bytes of a run directory: its replay, and checkpoints of the learner."""
    key = program_of(config) + str(config.train.steps)
    if key not in _SIZES:
        from dreamer_agent.envs import make_env
        from dreamer_agent.registry import import_plugins

        import_plugins(config.plugins)
        env = make_env(config.env, 1)
        try:
            _SIZES[key] = budget.estimate(config, Agent.create(config, env.obs_specs, env.act_specs))
        finally:
            env.close()
    sizes = _SIZES[key]
    return sizes.replay + LEARNER * sizes.parameters * (config.train.keep_checkpoints + 1)


def _done(run: SweepRun) -> int:
    """Env steps of a run so far."""
    try:
        return int(max((row["step"] for row in newest_metrics(run.folder)), default=0))
    except OSError:
        return 0


def _pace(run: SweepRun) -> float | None:
    """Seconds for each env step in the newest rows of a run that has begun to learn."""
    try:
        rows = newest_metrics(run.folder)
    except OSError:
        return None
    speeds = [row.get("time/env_steps_per_s", 0.0) for row in rows if row.get("updates")]
    return len(speeds) / sum(speeds) if sum(speeds) else None
