"""Which runs of a sweep can be one program: those that differ in seeds and numbers only, in JAX environments."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dreamer_agent.config import merge, validate
from dreamer_agent.errors import DreamerError
from dreamer_agent.launch.work import Work
from dreamer_agent.sweeps.runs import Population, SweepRun, is_native


def as_programs(runs: Sequence[SweepRun], most: int) -> tuple[list[Work], list[str]]:
    """`runs` as populations of up to `most`, and the others as they are; and sentences that say how.

    Finished runs stay by themselves, and so do those whose folder holds something else, which fail alone. What
    becomes one of several is trained by the loop on the device; runs that have begun go on beside those that they
    began with.
    """
    from dreamer_agent.training.population import group_by_program

    open_runs = [run for run in runs if not run.finished()]
    native = {key: is_native(run.setting.config) for key, run in _one_of_each(open_runs).items()}
    on_device = [_device(run) for run in open_runs if native[_key(run)] and _fits(run)]
    taken = {run.folder for run in on_device}
    works: list[Work] = [run for run in runs if run.folder not in taken]
    said, together = [], 0
    for group in _by_companions(on_device):
        for indices in group_by_program([run.setting.config for run in group]):
            members = [group[index] for index in indices]
            for start in range(0, len(members), most):
                part = tuple(members[start : start + most])
                works.append(Population(part) if len(part) > 1 else part[0])
                together += len(part) if len(part) > 1 else 0
    populations = sum(isinstance(one, Population) for one in works)
    programs = f"{populations} program{'s' if populations != 1 else ''}"
    said.append(f"{together} of {len(open_runs)} runs to do as {programs} on the device")
    alone = sorted({run.setting.config.env.id for run in open_runs if not native[_key(run)]})
    if alone:
        said.append(
            "in processes of their own, since they are not written in JAX, or have replay.spill or a mesh: "
            + ", ".join(alone)
        )
    if len(on_device) > together:
        said.append(f"{len(on_device) - together} alone: no other run has their program")
    return works, said


def _by_companions(runs: Sequence[SweepRun]) -> list[list[SweepRun]]:
    """`runs` apart by what they have in common so far: those without a checkpoint, those of one population."""
    from dreamer_agent.training.population import BESIDE
    from dreamer_agent.training.run_directory import newest_step

    groups: dict[str, list[SweepRun]] = {}
    for run in runs:
        beside = run.folder / BESIDE
        key = beside.read_text() if beside.is_file() else run.folder.name
        groups.setdefault("" if newest_step(run.folder) is None else key, []).append(run)
    return list(groups.values())


def _fits(run: SweepRun) -> bool:
    """Whether its folder is free or holds this run."""
    try:
        run.check()
    except (DreamerError, OSError, ValueError):
        return False
    return True


def _device(run: SweepRun) -> SweepRun:
    config = validate(merge(run.setting.config, {"train": {"loop": "device"}}))
    return dataclasses.replace(run, setting=dataclasses.replace(run.setting, config=config))


def _one_of_each(runs: Sequence[SweepRun]) -> dict[str, SweepRun]:
    return {_key(run): run for run in runs}


def _key(run: SweepRun) -> str:
    """What says whether the loop on the device takes a run."""
    config = run.setting.config
    return repr((config.env, config.mesh, config.replay.spill, config.plugins))
