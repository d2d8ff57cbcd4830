"""Which runs of a sweep can be one program: those that differ in seeds and numbers only, in JAX environments."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dreamer_agent.config import merge, validate
from dreamer_agent.launch.work import Work
from dreamer_agent.sweeps.runs import Population, SweepRun, is_native


def as_programs(runs: Sequence[SweepRun], most: int) -> tuple[list[Work], list[str]]:
    """`runs` as populations of up to `most`, and the others as they are; and sentences that say how.

    Finished runs stay by themselves. What becomes one of several is trained by the loop on the device.
    """
    from dreamer_agent.training.population import group_by_program

    open_runs = [run for run in runs if not run.finished()]
    native = {env: is_native(run.setting.config) for env, run in _one_of_each(open_runs).items()}
    on_device = [_device(run) for run in open_runs if native[_key(run)]]
    works: list[Work] = [run for run in runs if run.finished() or not native[_key(run)]]
    said, together = [], 0
    groups = group_by_program([run.setting.config for run in on_device])
    for group in groups:
        members = [on_device[index] for index in group]
        for start in range(0, len(members), most):
            part = tuple(members[start : start + most])
            works.append(Population(part) if len(part) > 1 else part[0])
            together += len(part) if len(part) > 1 else 0
    populations = sum(isinstance(one, Population) for one in works)
    programs = f"{populations} program{'s' if populations != 1 else ''}"
    said.append(f"{together} of {len(open_runs)} runs to do as {programs} on the device")
    alone = sorted({run.setting.config.env.id for run in open_runs if not native[_key(run)]})
    if alone:
        said.append(f"in processes of their own, since they are not written in JAX: {', '.join(alone)}")
    if len(on_device) > together:
        said.append(f"{len(on_device) - together} alone: no other run has their program")
    return works, said


def _device(run: SweepRun) -> SweepRun:
    config = validate(merge(run.setting.config, {"train": {"loop": "device"}}))
    return dataclasses.replace(run, setting=dataclasses.replace(run.setting, config=config))


def _one_of_each(runs: Sequence[SweepRun]) -> dict[str, SweepRun]:
    return {_key(run): run for run in runs}


def _key(run: SweepRun) -> str:
    """What says whether an environment is written in JAX."""
    return repr(run.setting.config.env)
