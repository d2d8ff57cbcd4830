"""One run in several processes, on one machine or many: `jax.distributed`.

Each process has its own part of the environments, the replay and each batch, and its own run directory:
that of the run for the first, `processes/N` in it for the others. The learner is one, on the devices of all; the
first process writes it. All make the same steps. What is due (updates, rows, checkpoints, the end) depends on
sums over all processes, which each tells before it steps its environments and hears a step later: so env steps
are counted one step late, and nobody waits for a sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from dreamer_agent.agent import Agent, AgentState
from dreamer_agent.config import Config
from dreamer_agent.errors import ConfigError, EnvironmentFault, RunDirectoryError
from dreamer_agent.interrupt import ASKING
from dreamer_agent.registry import in_one_line
from dreamer_agent.training.checkpoint import Checkpoint, sound
from dreamer_agent.training.checkpoints import Checkpoints
from dreamer_agent.training.driver import Episode
from dreamer_agent.training.evaluate import Evaluation, EvaluationStoppedError
from dreamer_agent.training.loop import HostTrainer
from dreamer_agent.training.mesh import sizes_of
from dreamer_agent.training.opening import EnvFactory
from dreamer_agent.training.processes import Meeting, from_first, gather, others
from dreamer_agent.training.run_directory import PROCESSES
from dreamer_agent.training.scoring import evaluation_of

APART = 15_485_863  # between the seeds of processes


class ProcessTrainer(HostTrainer):
    """The part of a run that this process has."""

    def __init__(self, *arguments: Any, **named: Any):
        self.processes, self.here = jax.process_count(), jax.process_index()
        self.own_steps = 0  # of these environments
        self.wishes = dict.fromkeys((*ASKING, "stop", "failed"), 0)
        self.failure: Exception | None = None  # of these environments
        self.meeting: Meeting | None = None
        super().__init__(*arguments, **named)

    @classmethod
    def open(
        cls, config: Config, folder: Path, make: EnvFactory | None = None, quiet: bool = False,
        began: float | None = None, allow: Collection[str] = (),
    ) -> Self:  # fmt: skip
        """As `Trainer.open`, in this process's run directory; only the first one talks."""
        here = jax.process_index()
        if here:
            folder, quiet = folder / PROCESSES / str(here), True
            config = dataclasses.replace(config, train=dataclasses.replace(config.train, loggers=()))
        with others():
            return super().open(config, folder, make, quiet, began, allow)

    @classmethod
    def check_config(cls, config: Config) -> None:
        """Raise `ConfigError` for what cannot be divided among the processes."""
        sizes_of(config)
        if config.train.loop == "device":
            raise ConfigError("train.loop=device is for one process: several of them need train.loop=host.")
        cls.share_of(config)

    @classmethod
    def share_of(cls, config: Config) -> Config:
        """Equal parts of the environments, the replay and a batch; `ConfigError` where there are none."""
        count = jax.process_count()
        for name, value in (
            ("env.num_envs", config.env.num_envs),
            ("replay.batch_size", config.replay.batch_size),
        ):
            if value % count:
                raise ConfigError(
                    f"{name}={value} cannot be divided among {count} processes: make it a multiple of {count}."
                )
        return dataclasses.replace(
            config,
            env=dataclasses.replace(config.env, num_envs=config.env.num_envs // count),
            replay=dataclasses.replace(
                config.replay,
                batch_size=config.replay.batch_size // count,
                capacity=-(-config.replay.capacity // count),
            ),
            train=dataclasses.replace(config.train, steps=-(-config.train.steps // count)),
        )

    @property
    def seed(self) -> int:
        """Another one in each process."""
        return self.config.seed + APART * self.here

    def run(self, until: int, callbacks: Any = None) -> None:
        """As `Trainer.run`. Raises `ProcessLostError` where another process is gone: nothing is saved then, and
        the run goes on from the last checkpoint. Environments that fail in one process end all, which save first.
        """
        with others():
            super().run(until, callbacks)
        if self.failure is not None:
            raise self.failure
        if self.meet().heard[self._place("failed")]:
            raise EnvironmentFault(
                "The environments of another process of this run have failed; it says how. All was saved."
            )

    def begin(self, until: int, callbacks: Any = None) -> None:
        """As `Trainer.begin`."""
        self.wishes, self.failure = dict.fromkeys(self.wishes, 0), None
        self.meet().hear()
        self.meet().heard[self._place(ASKING[0]) :] = 0  # what had ended it before
        super().begin(until, callbacks)

    def meet(self) -> Meeting:
        """With the other processes."""
        if self.meeting is None:
            assert self.placement.mesh is not None
            self.meeting = Meeting(self.placement.mesh, 2 + len(self.wishes))
        return self.meeting

    def env_steps_due(self) -> int:
        """Those of all processes, which were told a step ago."""
        return self.counters.env_steps

    def ready(self) -> bool:
        """Whether each process had a batch to sample a step ago."""
        return int(self.meet().heard[1]) == self.processes

    def stepped(self, env_steps: int) -> None:
        """Count env steps of this process."""
        self.own_steps += env_steps

    def stop(self) -> None:
        """Ask all processes to end."""
        self.wishes["stop"] = 1

    def asked_to_end(self) -> bool:
        """Whether a signal has come to this process."""
        return any(self.wishes[number] for number in ASKING)

    def more(self) -> dict[str, Any]:
        """What was told last, and the own env steps."""
        return {"heard": self.meet().hear(), "own_steps": self.own_steps}

    def take_more(self, saved: dict[str, Any]) -> None:
        """The inverse of `more`."""
        self.meet().heard, self.own_steps = np.array(saved["heard"]), int(saved["own_steps"])
        self.meet().told = None

    def learner_of(self, checkpoint: Checkpoint) -> AgentState:
        """The learner of the first process, which reads it for all."""
        shapes = jax.eval_shape(self.agent.init, jax.random.PRNGKey(0))
        if self.here:
            return from_first(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
        return from_first(jax.tree.map(np.asarray, checkpoint.agent(shapes)))

    def resume_from(self, checkpoint: Checkpoint) -> dict[str, int]:
        """As `Trainer.resume_from`, where all processes go on from the same."""
        updates = gather(checkpoint.updates)
        if len(set(updates)) > 1:
            raise RunDirectoryError(
                f"The processes would go on from different checkpoints, after {updates} updates: start all again."
            )
        return super().resume_from(checkpoint)

    def evaluate(
        self, explore: bool, episodes: int | None = None, seed: int | None = None, agent: Agent | None = None
    ) -> Evaluation:
        """As `Trainer.evaluate`; each process scores its part of the episodes, and all give the whole."""
        count = episodes or self.config.train.eval_episodes
        own, error = None, None
        try:
            base = self.config.seed if seed is None else seed
            own = evaluation_of(
                self, explore, -(-count // self.processes), base + APART * self.here,
                agent or self.agent.policy_alone,
            )  # fmt: skip
        except Exception as raised:
            error = raised
        stopped = isinstance(error, EvaluationStoppedError)
        with others():
            parts = gather(
                [None if own is None else dataclasses.asdict(own), stopped, in_one_line(error) if error else ""]
            )
        if any(part[1] for part in parts):
            raise EvaluationStoppedError
        if error is not None:
            raise error
        for index, (_, _, why) in enumerate(parts):
            if why:
                raise EnvironmentFault(f"The evaluation of process {index} has failed ({why}).")
        result = _together([part[0] for part in parts], count)
        self._call("on_evaluation", result)
        return result

    def save(self) -> None:
        """As `Trainer.save`, all at the same env step."""
        if self.driver.broken:
            self.saved = None  # nothing was added here, but by the others
        super().save()

    def _step(self) -> None:
        heard = self.meet().hear()
        if any(heard[2:]):
            self.stopping = True
            self.interrupted = next((n for n in ASKING if heard[self._place(n)]), 0)
            return
        self.counters.env_steps = int(heard[0])
        waiting = self.driver.env_steps_waiting()
        self.meet().tell(self.own_steps + waiting, self.replay.ready(), *self.wishes.values())
        if self.driver.broken:  # the others hear of it at the next step
            self.placement.whole({key: self.state.params[key] for key in self.agent.acting})
            self._update(self.env_steps_due())
            return
        super()._step()

    def _place(self, wish: int | str) -> int:
        return 2 + list(self.wishes).index(wish)

    def _failed(self, error: Exception) -> None:
        self.failure, self.wishes["failed"] = error, 1

    def _interrupt(self, number: int) -> None:
        self.wishes[number] = 1
        self.screen.say("stopping after this step of all processes; Ctrl-C again stops at once")

    def _make_checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder, self.config.train.keep_checkpoints, learner=self.here == 0)

    def _go_on_or_begin(self, at_updates: int | None) -> dict[str, int]:
        """As `Trainer` does, from the newest checkpoint that every process has."""
        made = gather([checkpoint.updates for checkpoint in sound(self.folder, with_replay=True)])
        common = set.intersection(*map(set, made))
        if any(made) and not common:
            missing = [index for index, updates in enumerate(made) if not updates]
            why = f"process {missing[0]} has none" if missing else f"they are after {made} updates"
            raise RunDirectoryError(
                f"There is no checkpoint of {self.folder} that all processes have ({why}): start each with the "
                "run directory that it had before, or give a new one."
            )
        return super()._go_on_or_begin(max(common, default=None))

    def _log(self) -> None:
        own = self.window.episodes
        everyone = [
            Episode(*row)
            for rows in gather([[*episode[:-1], dict(episode.numbers)] for episode in own])
            for row in rows
        ]
        self.window.episodes = everyone
        self.counters.episodes += len(everyone) - len(own)
        super()._log()


def _together(parts: list[dict[str, Any]], count: int) -> Evaluation:
    """The first `count` episodes that the processes have scored, each in turn."""

    def turns(name: str) -> list[Any]:
        return [x for row in zip(*(part[name] for part in parts), strict=True) for x in row][:count]

    return Evaluation(
        turns("returns"), turns("lengths"), parts[0]["policy"], sum(part["cut"] for part in parts),
        sum(part["faults"] for part in parts), turns("numbers"),
    )  # fmt: skip
