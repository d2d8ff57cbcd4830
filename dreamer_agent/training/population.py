"""Several runs trained as one program: seeds, and numbers that enter the update as data, may differ.

Each has a run directory of its own, as if it had been trained alone: it can be loaded, evaluated and resumed by
itself. What a seed computes does not depend on the others, except for when it waits for them (`device_program`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.agent import Agent, Skips
from dreamer_agent.config import Config
from dreamer_agent.errors import ConfigError, EnvironmentFault, RunDirectoryError
from dreamer_agent.files import write_text
from dreamer_agent.hyper import HYPER
from dreamer_agent.interrupt import end_of, on_interrupt
from dreamer_agent.training import budget
from dreamer_agent.training.checkpoint import sound
from dreamer_agent.training.device_loop import DeviceTrainer, span
from dreamer_agent.training.device_program import Loop, Program
from dreamer_agent.training.evaluate import Evaluation
from dreamer_agent.training.lock import check_free
from dreamer_agent.training.mesh import over_seeds
from dreamer_agent.training.opening import EnvFactory, check_folder, prepare_folder
from dreamer_agent.training.progress import crossed
from dreamer_agent.training.saving import resumed
from dreamer_agent.training.screen import Screen
from dreamer_agent.training.startup import Startup
from dreamer_agent.values import flatten, to_dict

NOWHERE = -1  # a number of updates after which no checkpoint was written
BESIDE = "population.json"  # in each run directory: the names of all that are trained with it


def group_by_program(configs: Sequence[Config]) -> list[list[int]]:
    """Indices of `configs` that can be one program: those that differ in seed and `HYPER` only, in order."""
    groups: dict[str, list[int]] = {}
    for index, config in enumerate(configs):
        fixed = {k: v for k, v in flatten(to_dict(config)).items() if k not in ("seed", *HYPER)}
        groups.setdefault(json.dumps(fixed, sort_keys=True), []).append(index)
    return list(groups.values())


class Latest(Screen):
    """The screen of one of several runs: hands what is said to that of all, and keeps the newest row."""

    latest: dict[str, float] | None = None

    def __init__(self, name: str, shared: Screen, total: int):
        super().__init__(total, 0, quiet=True)
        self.name, self.shared = name, shared

    def say(self, text: str) -> None:
        """Say it, and of which run."""
        self.shared.say(f"{self.name}: {text}")

    def row(self, step: int, row: dict[str, float]) -> None:
        """Keep it."""
        self.latest = row


class Population:
    """Trains `members`, runs of one group (`group_by_program`) that share an agent and its environments."""

    def __init__(self, members: Sequence[DeviceTrainer], quiet: bool = False):
        self.members = list(members)
        self.interrupted = 0  # by which signal
        config = self.members[0].config
        self.screen = Screen(config.train.steps, 0, quiet)
        by_seed = len({member.config.seed for member in self.members}) == len(self.members)
        for member in self.members:
            member.together = True
            name = f"seed {member.config.seed}" if by_seed else member.folder.name
            member.screen = Latest(name, self.screen, config.train.steps)

    @classmethod
    def open(
        cls, configs: Sequence[Config], folders: Sequence[Path], make: EnvFactory | None = None,
        quiet: bool = False, allow: Collection[str] = (),
    ) -> Population:  # fmt: skip
        """Start or resume a run of each of `configs` in the folder beside it.

        They go on from the newest checkpoints after the same number of updates: when they were killed, some may
        have written one more than others. Raises a `DreamerError` where they are not one program, or as
        `Trainer.open` does; nothing was changed on disk then.
        """
        _check_together(configs, folders)
        if jax.process_count() > 1:
            raise ConfigError("Several runs as one program are for one process: several of them train one run.")
        make, env = DeviceTrainer.make_envs(configs[0], make)
        agent = Agent.create(configs[0], env.obs_specs, env.act_specs)
        free = DeviceTrainer.free_memory() or budget.free_memory()
        sizes = budget.check(configs[0], agent, free // len(configs))
        for config, folder in zip(configs, folders, strict=True):
            check_folder(config, folder, env, allow)
            check_free(folder)
        updates = common_updates(folders)
        members = []
        for config, folder in zip(configs, folders, strict=True):
            prepare_folder(config, folder, env, allow)
            startup = Startup(time.time())
            startup.close()  # what one of several runs waits for says nothing
            members.append(DeviceTrainer(config, folder, agent, env, make, True, startup, updates))
        for folder in folders:
            write_text(folder / BESIDE, json.dumps(_names(folders)) + "\n")
        population = cls(members, quiet)
        population.screen.say(
            f"[bold]{configs[0].env.id}[/bold]: {len(configs)} runs as one program, each of "
            f"{sizes.parameters:,} parameters with {env.num_envs} environments; rows show means; "
            f"run directories {folders[0]} to {folders[-1]}"
        )
        for member in members:
            if member.counters.env_steps:
                member.screen.say(resumed(member))
        return population

    def run(self, until: int) -> None:
        """Train until every run has made `until` env steps, then write checkpoints; see `Trainer.run`."""
        for member in self.members:
            member.begin(until)
        self._gather()
        self.screen.begin(until, self._first.counters.env_steps)
        with self.screen, on_interrupt(self._interrupt):
            try:
                while self._first.counters.env_steps < until and not self.interrupted:
                    self._step()
            except EnvironmentFault:  # what came before it is whole
                self._end()
                raise
            self._end()
        if self.interrupted:
            raise end_of(self.interrupted)

    def score(self) -> list[list[Evaluation]]:
        """Evaluate every run with sampled actions and with the mode, and write the scores."""
        return [member.score() for member in self.members]

    def close(self) -> None:
        """Flush the logs."""
        for member in self.members:
            member.close()

    @property
    def _first(self) -> DeviceTrainer:
        """The run with the fewest env steps, which is the clock of all."""
        return min(self.members, key=lambda member: member.counters.env_steps)

    def _take(self, index: int) -> Any:
        """What one run holds, on the first device."""
        one = self._row(self.loop, index)
        return jax.device_put(one, jax.devices()[0])

    @cached_property
    def _row(self) -> Any:
        return jax.jit(lambda loop, index: jax.tree.map(lambda x: x[index], loop))

    def _gather(self) -> None:
        """All that the runs hold into arrays with a leading axis; for a moment it is there twice."""
        member, sharding = self.members[0], over_seeds(len(self.members))
        self.program = Program(
            member.agent,
            member.program.env,
            member.replay.replay,
            span(member.config),
            len(self.members),
            sharding,
        )
        self.loop: Any = jax.tree.map(lambda *x: jnp.stack(x), *(member.loop for member in self.members))
        self.loop = jax.device_put(self.loop, sharding or jax.devices()[0])
        for member in self.members:
            _empty(member)

    def _end(self) -> None:
        """Give back to the runs what is theirs, and let each log and write it, whatever befalls the others."""
        failures = []
        for index, member in enumerate(self.members):
            member.loop = self._take(index)
            try:
                member.end()
            except RunDirectoryError as error:
                failures.append(error)
        self.loop = None
        if failures:
            raise failures[0]

    @contextmanager
    def _lent(self, index: int) -> Iterator[DeviceTrainer]:
        """A run with a copy of what it holds, to evaluate and save it."""
        member = self.members[index]
        member.loop = self._take(index)
        yield member
        _empty(member)

    def _step(self) -> None:
        first = self._first
        before = first.counters.env_steps
        plan = self.program.plan(before, first.next_stop(), first.counters.updates, first.updates_due)
        self.loop, seen, updates = self.program.chunk(self.loop, plan)
        seen, updates = jax.device_get((seen, updates))
        acting = self.loop.acting
        env_steps, faults = jax.device_get((acting.env_steps, self.program.env.faults_of(acting.env)))
        skips = jax.device_get(self.loop.agent.skips)
        for index, member in enumerate(self.members):
            own, own_faults, own_skips = jax.tree.map(lambda x, i=index: x[i], (seen, faults, skips))
            member.absorb(own, int(env_steps[index]), int(updates))
            member.count_faults(own_faults)
            self._count_skips(member, own_skips)
        self.program.env.check(faults)
        saving = crossed(before, self._first.counters.env_steps, first.config.train.checkpoint_every)
        if saving:
            for member in self.members:  # else one could be two checkpoints ahead of another
                member.checkpoints.settle()
        for index in range(len(self.members)):
            self._report(index, saving)
        self._show()

    def _count_skips(self, member: DeviceTrainer, skips: Any) -> None:
        """Skipped updates of one run, which goes on skipping: the others cannot go back with it."""
        member.updates.skips, before = Skips(*map(int, skips)), member.counters.skipped
        member.counters.skipped = member.updates.skips.total
        if member.counters.skipped > before:
            member.screen.say(
                f"skipped {member.counters.skipped - before:,} updates whose loss or gradient is not finite "
                f"({member.counters.skipped:,} in all, {member.updates.skips.in_a_row:,} in a row)"
            )

    def _report(self, index: int, saving: bool) -> None:
        """Whatever is due for one run; its arrays are taken out only where they are needed."""
        member = self.members[index]
        every, before = member.config.train.eval_every, member.counters.reported
        if saving or (every and crossed(before, member.counters.env_steps, every)):
            with self._lent(index):
                member.report(saving)
        else:
            member.report(saving)

    def _show(self) -> None:
        step, updating = self._first.counters.env_steps, self._first.counters.updates > 0
        rows = [member.screen.latest for member in self.members]  # type: ignore[attr-defined]
        if all(rows):
            keys = set.intersection(*map(set, rows))
            self.screen.row(step, {key: float(np.mean([row[key] for row in rows])) for key in keys})
            for member in self.members:
                member.screen.latest = None  # type: ignore[attr-defined]
        self.screen.progress(step, updating)

    def _interrupt(self, number: int) -> None:
        self.interrupted = number
        for member in self.members:
            member.interrupted = number
        self.screen.say("stopping after this chunk; Ctrl-C again stops at once, back to the last checkpoints")


def _empty(member: DeviceTrainer) -> None:
    """Let go of the arrays, which the population holds."""
    nothing: Any = Loop(None, None, None, None)  # type: ignore[arg-type]
    member.loop = nothing


def _check_together(configs: Sequence[Config], folders: Sequence[Path]) -> None:
    if len(group_by_program(configs)) != 1:
        raise ConfigError(
            "These runs differ in more than their seeds and numbers such as optimizer.learning_rate, so that "
            "they are several programs: train each group of group_by_program by itself."
        )
    if len({folder.resolve() for folder in folders}) != len(configs):
        raise ConfigError(f"{len(configs)} runs need as many run directories: give seeds that differ.")


def common_updates(folders: Sequence[Path]) -> int:
    """The newest number of updates after which each of some runs has a whole checkpoint, `NOWHERE` without one.

    What some have from later is given up only where all were trained beside each other and killed while they
    wrote it. `ConfigError` where it is more than that: runs that were trained apart, or with others.
    """
    made = [list(sound(folder, with_replay=True)) for folder in folders]
    common = set.intersection(*({checkpoint.updates for checkpoint in each} for each in made))
    newest = max(common, default=NOWHERE)
    later = [checkpoint for each in made for checkpoint in each if checkpoint.updates > newest]
    beside = all(checkpoint.commit.get("together") for checkpoint in later) and _were_beside(folders)
    if later and not (beside and (common or max(map(len, made)) <= 1)):
        done = sorted(each[0].updates if each else 0 for each in made)
        raise ConfigError(
            f"These runs have made {done[0]:,} to {done[-1]:,} updates, so that they cannot go on together: go "
            "on with each by itself, or give new run directories."
        )
    return newest


def _names(folders: Sequence[Path]) -> list[str]:
    return sorted(folder.resolve().name for folder in folders)


def _were_beside(folders: Sequence[Path]) -> bool:
    """Whether these runs, and no others, were trained as one program before."""
    files = [folder / BESIDE for folder in folders]
    return all(file.is_file() and json.loads(file.read_text()) == _names(folders) for file in files)
