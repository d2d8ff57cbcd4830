"""Several runs trained as one program: seeds, and numbers that enter the update as data, may differ.

Each has a run directory of its own, as if it had been trained alone: it can be loaded, evaluated and resumed by
itself. What a seed computes does not depend on the others, except for when it waits for them (`device_program`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.agent import HYPER, Agent
from dreamer_agent.config import Config, flatten, to_dict
from dreamer_agent.errors import ConfigError, EnvironmentFault
from dreamer_agent.interrupt import end_of, on_interrupt
from dreamer_agent.training import budget
from dreamer_agent.training.device_loop import DeviceTrainer, span
from dreamer_agent.training.device_program import Loop, Program
from dreamer_agent.training.evaluate import Evaluation
from dreamer_agent.training.opening import EnvFactory, check_folder, prepare_folder
from dreamer_agent.training.progress import crossed
from dreamer_agent.training.screen import Screen
from dreamer_agent.training.startup import Startup


def group_by_program(configs: Sequence[Config]) -> list[list[int]]:
    """Indices of `configs` that can be one program: those that differ in seed and `HYPER` only, in order."""
    groups: dict[str, list[int]] = {}
    for index, config in enumerate(configs):
        fixed = {k: v for k, v in flatten(to_dict(config)).items() if k not in ("seed", *HYPER)}
        groups.setdefault(json.dumps(fixed, sort_keys=True), []).append(index)
    return list(groups.values())


class Latest(Screen):
    """The screen of one of several runs: shows nothing and keeps the newest row."""

    latest: dict[str, float] | None = None

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
        for member in self.members:
            member.screen = Latest(config.train.steps, 0, quiet=True)

    @classmethod
    def open(
        cls, configs: Sequence[Config], folders: Sequence[Path], make: EnvFactory | None = None,
        quiet: bool = False,
    ) -> Population:  # fmt: skip
        """Start or resume a run of each of `configs` in the folder beside it.

        Raises a `DreamerError` where they are not one program, or as `Trainer.open` does; nothing was changed on
        disk then.
        """
        _check_together(configs, folders)
        make, env = DeviceTrainer.make_envs(configs[0], make)
        agent = Agent.create(configs[0], env.obs_specs, env.act_specs)
        free = DeviceTrainer.free_memory() or budget.free_memory()
        sizes = budget.check(configs[0], agent, free // len(configs))
        for config, folder in zip(configs, folders, strict=True):
            check_folder(config, folder, env)
        members = []
        for config, folder in zip(configs, folders, strict=True):
            prepare_folder(config, folder, env)
            startup = Startup(time.time())
            startup.close()  # what one of several runs waits for says nothing
            members.append(DeviceTrainer(config, folder, agent, env, make, True, startup))
        population = cls(members, quiet)
        population.screen.say(
            f"[bold]{configs[0].env.id}[/bold]: {len(configs)} runs as one program, each of "
            f"{sizes.parameters:,} parameters with {env.num_envs} environments; rows show means; "
            f"run directories {folders[0]} to {folders[-1]}"
        )
        return population

    def run(self, until: int) -> None:
        """Train until every run has made `until` env steps, then write checkpoints; see `Trainer.run`."""
        for member in self.members:
            member.begin(until)
        _check_in_step(self.members)
        self._gather()
        self.screen.begin(until, self._first.counters.env_steps)
        try:
            with self.screen, on_interrupt(self._interrupt):
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
        scores = [member.score() for member in self.members]
        for member, pair in zip(self.members, scores, strict=True):
            numbers = ", ".join(f"{score.policy} {score.mean:.1f}" for score in pair)
            self.screen.say(f"seed {member.config.seed}: return {numbers}")
        return scores

    def close(self) -> None:
        """Flush the logs."""
        for member in self.members:
            member.close()

    @property
    def _first(self) -> DeviceTrainer:
        """The run with the fewest env steps, which is the clock of all."""
        return min(self.members, key=lambda member: member.counters.env_steps)

    @cached_property
    def _take(self) -> Any:
        return jax.jit(lambda loop, index: jax.tree.map(lambda x: x[index], loop))

    def _gather(self) -> None:
        """All that the runs hold into arrays with a leading axis; for a moment it is there twice."""
        member = self.members[0]
        self.program = Program(
            member.agent, member.program.env, member.replay.replay, span(member.config), len(self.members)
        )
        self.loop: Any = jax.tree.map(lambda *x: jnp.stack(x), *(member.loop for member in self.members))
        self.loop = jax.device_put(self.loop, jax.devices()[0])
        for member in self.members:
            _empty(member)

    def _end(self) -> None:
        """Give back to the runs what is theirs, and let them log and write it."""
        for index, member in enumerate(self.members):
            member.loop = self._take(self.loop, index)
            member.end()
        self.loop = None

    @contextmanager
    def _lent(self, index: int) -> Iterator[DeviceTrainer]:
        """A run with a copy of what it holds, to evaluate and save it."""
        member = self.members[index]
        member.loop = self._take(self.loop, index)
        yield member
        _empty(member)

    def _step(self) -> None:
        first = self._first
        plan = self.program.plan(
            first.counters.env_steps, first.next_stop(), first.counters.updates, first.updates_due
        )
        self.loop, seen, updates = self.program.chunk(self.loop, plan)
        seen, updates = jax.device_get((seen, updates))
        acting = self.loop.acting
        env_steps, faults = jax.device_get((acting.env_steps, self.program.env.faults_of(acting.env)))
        for index, member in enumerate(self.members):
            own = jax.tree.map(lambda x, i=index: x[i], seen)
            member.absorb(own, int(env_steps[index]), int(updates))
        self.program.env.check(faults)
        for index in range(len(self.members)):
            self._report(index)
        self._show()

    def _report(self, index: int) -> None:
        """Whatever is due for one run; its arrays are taken out only where they are needed."""
        member = self.members[index]
        train, before, now = member.config.train, member.counters.reported, member.counters.env_steps
        if any(crossed(before, now, every) for every in (train.eval_every, train.checkpoint_every) if every):
            with self._lent(index):
                member.report()
        else:
            member.report()

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


def _check_in_step(members: Sequence[DeviceTrainer]) -> None:
    """Refuse runs that were trained apart since: the updates of all happen together."""
    done = sorted({member.counters.updates for member in members})
    if len(done) > 1:
        raise ConfigError(
            f"These runs have made {done[0]:,} to {done[-1]:,} updates, so that they cannot go on together: go "
            "on with each by itself, or give new run directories."
        )
