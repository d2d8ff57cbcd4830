"""The host loop: act, store, update by the ratio.

The host does not wait for the updates that it launches, and what they see lags by fixed amounts:

- the policy acts with the parameters of all updates launched before, so that these do not lag;
- the updates that are due with a step of the environments are sampled from the replay before that step;
- the latents and metrics of a dispatch of updates arrive when the next one has been launched.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax

from dreamer_agent.agent import Metrics
from dreamer_agent.config import Config
from dreamer_agent.training import memory
from dreamer_agent.training.driver import Driver, Launched, env_steps
from dreamer_agent.training.evaluate import Evaluation
from dreamer_agent.training.opening import EnvFactory, make_replay
from dreamer_agent.training.saving import remember
from dreamer_agent.training.skipped import look_at_skips
from dreamer_agent.training.trainer import Trainer


def train(
    config: Config, folder: Path, make: EnvFactory | None = None, quiet: bool = False, callbacks: Any = None,
    began: float | None = None, allow: Collection[str] = (),
) -> list[Evaluation]:  # fmt: skip
    """Train in the run directory `folder` until `config.train.steps` and evaluate the final parameters.

    A directory that holds a run of the same configuration is resumed; `allow` names values in which that may
    differ (`run_directory.check`). `make(num_envs)` overrides the environment that `config.env` names. `began` is
    when the command began, in seconds since the epoch. Gives the final evaluations, sampled and mode.
    """
    trainer = open_trainer(config, folder, make, quiet, began, allow)
    try:
        trainer.run(config.train.steps, callbacks)
        return trainer.score()
    finally:
        trainer.close()


def open_trainer(
    config: Config, folder: Path, make: EnvFactory | None = None, quiet: bool = False,
    began: float | None = None, allow: Collection[str] = (),
) -> Trainer:  # fmt: skip
    """`Trainer.open` of the loop that `config.train.loop` names; where this process is one of several
    (`jax.distributed`), each opens its part of one run.
    """
    if jax.process_count() > 1:
        from dreamer_agent.training.several import ProcessTrainer

        return ProcessTrainer.open(config, folder, make, quiet, began, allow)
    if config.train.loop == "device":
        from dreamer_agent.training.device_loop import DeviceTrainer

        return DeviceTrainer.open(config, folder, make, quiet, began, allow)
    return HostTrainer.open(config, folder, make, quiet, began, allow)


class HostTrainer(Trainer):
    """A run whose environments are stepped by this process, with a replay in its memory."""

    def make_replay(self, config: Config) -> Any:
        """An empty replay for `config`."""
        return make_replay(self.share_of(config), self.agent, self.folder)

    def _make_driver(self, seed: int) -> Any:
        return Driver(self.agent, self.env, seed)

    def _step(self) -> None:
        """One step of all environments into the replay, while the updates run that are due with it."""
        acts = self._launch()
        launched = self._update(self.env_steps_due())
        if not launched:
            self.updates.wait()  # as the policy does, so that the clock tells them apart
        try:
            self._store(acts)
        except Exception as error:  # of the environment: what came before it is whole
            self.counters.faults += self.faults_told() - self.known_faults
            self._failed(error)
        for metrics in launched:
            self._call("on_update", metrics)
        look_at_skips(self)

    def _launch(self) -> list[Launched]:
        """Hand the rows that wait to the policy, with the parameters of all updates so far."""
        with self.clock("acting"):
            self.driver.explore = self.agent.collector(self.counters.env_steps)
            acting = {key: self.state.params[key] for key in self.agent.acting}
            acts = self.driver.launch(self.placement.whole(acting))
            if not self.config.train.overlap:
                jax.block_until_ready([act.packed for act in acts])
        return acts

    def _update(self, env_steps: int) -> list[Metrics]:
        """Launch the updates that are due with `env_steps`; their metrics, perhaps still being computed."""
        launched = []
        while self.ready() and self.counters.updates + self.updates.count <= self.updates_due(env_steps):
            self.startup.filled()
            self.state, metrics = self.updates.launch(self.state, self.replay, self.counters.updates)
            self.counters.updates += self.updates.count
            launched.append(metrics)
            if self.startup.listening:
                jax.block_until_ready(metrics)
                self.screen.say(self.startup.updated())
                memory.give_back()
        return launched

    def _store(self, acts: list[Launched]) -> None:
        """The rows of one step into the replay, and the environments to their next ones."""
        with self.clock("acting"):
            for rows, step in self.driver.take(acts):
                self.replay.add(step, rows.mask)
                self.stepped(env_steps(rows))
        self._count_faults(self.faults_told(), getattr(self.env, "last_fault", ""))
        finished = self.driver.finished()
        self.counters.episodes += len(finished)
        self.window.episodes += finished
        remember(self, finished)
        for episode in finished:
            self._call("on_episode", episode)

    def _failed(self, error: Exception) -> None:
        """Save, and pass on what the environments have raised."""
        self.save()
        self.checkpoints.settle()
        raise error

    def env_steps_due(self) -> int:
        """The env steps by which the updates of this step are counted: with those that the policy sees in it."""
        return self.counters.env_steps + self.driver.env_steps_waiting()

    def ready(self) -> bool:
        """Whether there is a batch to sample."""
        return self.replay.ready()

    def stepped(self, env_steps: int) -> None:
        """Count env steps that went into the replay."""
        self.counters.env_steps += env_steps
