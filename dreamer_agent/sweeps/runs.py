"""The runs of a sweep as launchers see them, and the process that trains one, or several as one program.

python -m dreamer_agent.sweeps.runs RUNS CORES      # JSON: folders and configurations; what `sweep` starts
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer_agent.config import Config, merge, read_config, validate
from dreamer_agent.errors import ConfigError, DreamerError, MemoryBudgetError, RunDirectoryError
from dreamer_agent.launch import worker
from dreamer_agent.launch.work import evaluation_of
from dreamer_agent.sweeps.found import with_found
from dreamer_agent.sweeps.sweep import Setting, Sweep, nested
from dreamer_agent.values import flatten, to_dict

WAIT = 120.0  # seconds for a process that still saves what it has learned


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep, in a process of its own."""

    setting: Setting
    root: Path  # folder of all runs of the sweep

    @property
    def shown(self) -> dict[str, str]:
        """Its name."""
        return {"run": self.setting.name}

    @property
    def folder(self) -> Path:
        """Its run directory."""
        return self.root / self.setting.name

    @property
    def steps(self) -> int:
        """Its budget in env steps."""
        return self.setting.config.train.steps

    def evaluation(self) -> dict[str, Any] | None:
        """The scores of the finished run; None until it has trained for all of its steps.

        Raises `RunDirectoryError` where they are damaged.
        """
        return evaluation_of(self)

    def finished(self) -> bool:
        """Whether it is trained and scored; where the scores are damaged, it is scored anew."""
        try:
            return self.evaluation() is not None
        except RunDirectoryError:
            return False

    def held(self) -> int | None:
        """The env steps that the run in its directory was last begun with; None where there is none."""
        path = self.folder / "config.yaml"
        return read_config(path).train.steps if path.is_file() else None

    def check(self) -> None:
        """Raise a `DreamerError` where the run directory holds another run, or one of more env steps."""
        from dreamer_agent.training import run_directory

        held = self.held()
        if held is None:
            return
        if held > self.steps:
            raise RunDirectoryError(
                f"{self.folder} holds a run of {held:,} env steps, but {self.steps:,} are asked for: give "
                "another --out, or as many train.steps."
            )
        run_directory.check(self.folder, self.setting.config)

    def command(self) -> list[str]:
        """What its process executes."""
        return command_of([self])


def runs_of(sweep: Sweep, folder: Path) -> list[SweepRun]:
    """All runs of a sweep below `folder`, with those of the points that a search has found there.

    What lies there under another name keeps it.
    """
    there = {path.name.rpartition("-")[2]: path.name for path in folder.glob("*-*") if path.is_dir()}
    runs = []
    for setting in with_found(sweep, folder).settings():
        name = there.get(setting.identity, setting.name)
        runs.append(SweepRun(dataclasses.replace(setting, name=name), folder))
    return runs


def check_steps(runs: Sequence[SweepRun]) -> None:
    """Raise `ConfigError` where some of `runs` were begun with more env steps than they are to have now."""
    more = []
    for run in runs:
        with contextlib.suppress(DreamerError, OSError, ValueError):  # a damaged one fails alone
            held = run.held()
            if held is not None and held > run.steps:
                more.append((run, held))
    if more:
        run, held = more[0]
        raise ConfigError(
            f"{len(more)} of {len(runs)} runs in {run.root} were begun with more env steps than are asked for "
            f"({run.setting.name}: {held:,}, now {run.steps:,}): give as many train.steps to go on, or another "
            "--out to train anew."
        )


@dataclass(frozen=True)
class Population:
    """Runs of a sweep that are trained as one program, in one process; the first one says how far they are."""

    members: tuple[SweepRun, ...]

    @property
    def shown(self) -> dict[str, str]:
        """How many they are, and one of them."""
        return {"run": f"{self.members[0].setting.name} and {len(self.members) - 1} more as one program"}

    @property
    def folder(self) -> Path:
        """The run directory of the first one."""
        return self.members[0].folder

    @property
    def steps(self) -> int:
        """The budget of each in env steps."""
        return self.members[0].steps

    def finished(self) -> bool:
        """Whether all are trained and scored."""
        return all(member.finished() for member in self.members)

    def check(self) -> None:
        """Raise a `DreamerError` where a run directory holds another run."""
        for member in self.members:
            member.check()

    def command(self) -> list[str]:
        """What their process executes."""
        return command_of(self.members)


def command_of(runs: Sequence[SweepRun]) -> list[str]:
    """The command that trains them, several as one program.

    The whole configuration of the first one and what differs from it: a system limits how long an argument is.
    """
    shared, *_ = configs = [to_dict(run.setting.config) for run in runs]
    given = [
        {"folder": str(run.folder), "changes": _changes(shared, config)}
        for run, config in zip(runs, configs, strict=True)
    ]
    text = json.dumps({"config": shared, "runs": given})
    return [sys.executable, "-m", "dreamer_agent.sweeps.runs", text]


def _changes(shared: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The dotted values of `config` that are others in `shared`."""
    before = flatten(shared)
    return {key: value for key, value in flatten(config).items() if before.get(key) != value}


def work(text: str) -> None:
    """Train and score what `command_of` names; goes on where an earlier process stopped.

    Runs that cannot be one program (they were trained apart, or do not fit the memory together) are trained one
    after the other, and one that fails stops no other.
    """
    from dreamer_agent import api
    from dreamer_agent.training.lock import check_free

    content = json.loads(text)
    runs = []
    for run in content["runs"]:
        config = merge(Config(), content["config"])
        for key, value in run["changes"].items():
            config = merge(config, nested(key, value))
        runs.append((validate(config), Path(run["folder"])))
    for _, folder in runs:
        check_free(folder, WAIT)
    if len(runs) > 1:
        try:
            api.train_together([config for config, _ in runs], [folder for _, folder in runs])
            return
        except (ConfigError, MemoryBudgetError) as error:
            print(f"not as one program: {error}", flush=True)
    failures = []
    for config, folder in runs:
        try:
            api.train(config, folder)
        except DreamerError as error:
            failures.append(error)
            print(f"{folder} failed: {error}", flush=True)
    if failures:
        raise failures[0]


def is_native(config: Config) -> bool:
    """Whether the loop of a run can be one program on the device: its environment is written in JAX, and neither
    its replay nor a mesh needs the host.
    """
    from dreamer_agent.training.device_loop import DeviceTrainer

    try:
        _, env = DeviceTrainer.make_envs(validate(merge(config, {"train": {"loop": "device"}})), None)
    except DreamerError:
        return False
    env.close()
    return True


if __name__ == "__main__":
    sys.exit(worker.main(lambda: work(sys.argv[1]), *sys.argv[2:]))
