"""A run: what opens it, begins and ends its training, and does what has become due: rows, scores, checkpoints.

How the steps between are made is the matter of a loop: `loop.HostTrainer`, `device_loop.DeviceTrainer`, and
`several.ProcessTrainer` for one run in several processes. Everything that happens is a function of step counters,
never of the clock, so that a run can be repeated and resumed. Neither an evaluation nor a checkpoint changes
anything of what training sees: what is in flight is saved, too.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import jax

from dreamer_agent.agent import Agent, AgentState
from dreamer_agent.config import Config
from dreamer_agent.envs import VectorEnv, make_env
from dreamer_agent.errors import ConfigError, RunDirectoryError
from dreamer_agent.hyper import hyper_parameters
from dreamer_agent.interrupt import end_of, on_interrupt
from dreamer_agent.registry import import_plugins
from dreamer_agent.replay import Mark
from dreamer_agent.training import budget, memory
from dreamer_agent.training.callbacks import Callback, as_callbacks
from dreamer_agent.training.checkpoint import Checkpoint
from dreamer_agent.training.checkpoints import Checkpoints
from dreamer_agent.training.evaluate import Evaluation, EvaluationStoppedError
from dreamer_agent.training.lock import check_free
from dreamer_agent.training.mesh import Placement, sizes_of
from dreamer_agent.training.metrics import MetricsWriter, check_loggers
from dreamer_agent.training.opening import EnvFactory, check_folder, introduction, prepare_folder
from dreamer_agent.training.progress import Counters, Stopwatch, Window, crossed
from dreamer_agent.training.saving import (
    RECENT,
    cut_episodes,
    make_room,
    put_back,
    restore_callbacks,
    resumed,
    snapshot,
    tell_failure,
)
from dreamer_agent.training.scoring import evaluate_on_the_way, evaluation_of, write_scores
from dreamer_agent.training.screen import Screen
from dreamer_agent.training.skipped import count_skips
from dreamer_agent.training.startup import Startup
from dreamer_agent.training.updates import Updates, updates_per_dispatch
from dreamer_agent.training.weights import read_weights, start_from


class Trainer:
    """One run: the learner, its replay and environments, and the counters that drive them."""

    processes = 1  # that make up the run

    def __init__(
        self, config: Config, folder: Path, agent: Agent, env: VectorEnv, make: EnvFactory, quiet: bool,
        startup: Startup, at_updates: int | None = None,
    ):  # fmt: skip
        """A run that goes on from its newest checkpoint, or from that after `at_updates` updates."""
        self.config, self.folder, self.agent, self.env, self.make = config, folder, agent, env, make
        self.startup = startup
        self.counters, self.window, self.clock = Counters(), Window(), Stopwatch()
        self.callbacks: list[Callback] = []
        self.callback_states: list[Any] = []  # of a run that was resumed
        self.stopping, self.interrupted = False, 0  # by which signal
        self.known_faults = 0  # of these environments
        self.together = False  # with others, as one program
        self.memory_told = quiet  # or there is nobody to tell
        self.recent: deque[float] = deque(maxlen=RECENT)  # returns of training episodes
        self.evaluated: float | None = None  # the mean return of the last evaluation on the way
        self.replay = self.make_replay(config)
        self.reseed()
        self.placement = Placement.of(config)
        state: AgentState = jax.jit(agent.init)(jax.random.PRNGKey(config.seed))
        # The numbers of this run: its agent may be shared with runs that have others.
        self.state = self.placement.state(state._replace(hyper=hyper_parameters(config, env.obs_specs)))
        count = updates_per_dispatch(config, agent)
        self.updates = Updates(agent, count, config.train.overlap, self.clock, self.placement)
        self.screen = Screen(config.train.steps, 0, quiet)
        self.driver = self._make_driver(self.seed)
        self.checkpoints = self._make_checkpoints()
        self.saved: Mark | None = None  # the replay at the last checkpoint
        try:
            positions = self._go_on_or_begin(at_updates)
            self.writer = MetricsWriter(folder, self.counters.env_steps, config, positions)
        except BaseException:
            self.checkpoints.close()  # another try may have its lock
            raise

    @classmethod
    def open(
        cls, config: Config, folder: Path, make: EnvFactory | None = None, quiet: bool = False,
        began: float | None = None, allow: Collection[str] = (),
    ) -> Self:  # fmt: skip
        """Start a run in `folder`, or resume the one that lies there; the time until its first update is taken
        from `began`, by default now.

        Raises a `DreamerError` where the environment, the memory or the directory does not fit, but for what
        `allow` names; nothing was changed on disk then.
        """
        opened = time.time()
        make, env = cls.make_envs(config, make)
        startup = Startup(opened, began)
        try:
            agent = Agent.create(config, env.obs_specs, env.act_specs)
            sizes = budget.check(cls.share_of(config), agent, cls.free_memory(), budget.free_disk(folder))
            check_folder(config, folder, env, allow)
            check_free(folder)
            prepare_folder(config, folder, env, allow)
            trainer = cls(config, folder, agent, env, make, quiet, startup)
        except BaseException:
            startup.close()
            env.close()
            raise
        trainer.introduce(sizes)
        return trainer

    @classmethod
    def make_envs(cls, config: Config, make: EnvFactory | None) -> tuple[EnvFactory, VectorEnv]:
        """The maker of environments, and those of the training, which fit the configuration and this loop."""
        import_plugins(config.plugins)
        check_loggers(config)
        cls.check_config(config)
        make, count = make or (lambda count: make_env(config.env, count)), cls.share_of(config).env.num_envs
        env = make(count)
        try:
            if env.num_envs != count:
                raise ConfigError(
                    f"There are {env.num_envs} environments, but env.num_envs={count}: make them equal."
                )
            cls.check_env(env)
        except BaseException:
            env.close()
            raise
        return make, env

    @classmethod
    def check_config(cls, config: Config) -> None:
        """Raise `ConfigError` for a configuration that this loop cannot run here."""
        sizes_of(config)

    @classmethod
    def share_of(cls, config: Config) -> Config:
        """What this process has of `config`: its environments, its part of the replay and of a batch."""
        return config

    @classmethod
    def check_env(cls, env: VectorEnv) -> None:
        """Raise `ConfigError` for environments that this loop cannot step."""

    @classmethod
    def free_memory(cls) -> int | None:
        """Bytes that are free where the replay lies; None: ask for the host's."""
        return None

    def introduce(self, sizes: budget.Budget) -> None:
        """Say what is about to run."""
        for line in introduction(self.config, self.folder, self.agent, self.env, sizes):
            self.screen.say(line)
        if self.counters.env_steps:
            self.screen.say(resumed(self))

    def run(self, until: int, callbacks: Any = None) -> None:
        """Train until `until` env steps have been made, or a callback ends it; then write a checkpoint.

        A checkpoint is also written before an exception of the environment is passed on, and at Ctrl-C or
        SIGTERM, which end the step at hand; then `KeyboardInterrupt` or `SystemExit` (75) is raised. A second one
        acts at once. Raises `NumericsError` where updates are not finite for too long, `RunDirectoryError` where
        the last checkpoint cannot be written.
        """
        self.begin(until, callbacks)
        with self.screen, on_interrupt(self._interrupt):
            while self.counters.env_steps < until and not self.stopping:
                self._step()
                self._call("on_step")
                self.report()
            self.end()
        if self.interrupted:
            raise end_of(self.interrupted)

    def begin(self, until: int, callbacks: Any = None) -> None:
        """Get ready to train until `until` env steps."""
        self.until, self.callbacks = until, as_callbacks(callbacks)
        self.stopping, self.interrupted = False, 0
        restore_callbacks(self)
        if self.counters.env_steps >= until:
            self.screen.say(
                f"nothing to train: the run has {self.counters.env_steps:,} of {until:,} env steps already "
                "(ask for more steps, or for another run directory)"
            )
        if self.driver.broken:
            cut_episodes(self)
        make_room(self, until)
        self.window.start_clock(self.counters)
        self.clock.reset()
        self.screen.begin(until, self.counters.env_steps)
        self._call("on_start")
        if self.counters.reported < self.counters.env_steps or self._evaluation_due():
            self.report()  # a callback had the checkpoint written before, or a signal ended the evaluation
        self.startup.fill()

    def end(self) -> None:
        """Log and write what the training has come to; one that was interrupted is only written."""
        if not self.interrupted:
            self._finish()
            count_skips(self)
            if self.counters.env_steps > self.window.first_step:
                self._log()
        self.startup.close()
        self._call("on_end")
        self.save()
        self.checkpoints.settle()
        if self.checkpoints.failure:
            raise RunDirectoryError(
                f"The last checkpoint of {self.folder} could not be written "
                f"({self.checkpoints.failure}): make room, and start the same command again, which "
                f"goes on from env step {self.checkpoints.latest() or 0:,}."
            )

    def score(self) -> list[Evaluation]:
        """Evaluate the policy with sampled actions and with the mode, then the planner if one acts, and write the
        scores.
        """
        evaluations = [self.evaluate(explore) for explore in (True, False)]
        if self.agent.planner is not None:
            evaluations.append(self.evaluate(False, agent=self.agent))
        write_scores(self, evaluations)
        return evaluations

    def close(self) -> None:
        """Flush the logs and free the environments."""
        self.startup.close()
        self.writer.close()
        self.checkpoints.close()
        self.env.close()

    def log(self, row: dict[str, float]) -> None:
        """Write numbers of your own at the current env step."""
        self.writer.write(self.counters.env_steps, row)

    def evaluate(
        self, explore: bool, episodes: int | None = None, seed: int | None = None, agent: Agent | None = None
    ) -> Evaluation:
        """Score the current parameters on fresh environments, by default as the configuration says.

        The policy is scored, or what `agent` acts with (`self.agent`: as in training).

        Borrowed environments are the only ones there are: the episodes in training are cut there (truncated), and
        new ones begin afterwards.
        """
        result = evaluation_of(self, explore, episodes, seed, agent or self.agent.policy_alone)
        self._call("on_evaluation", result)
        return result

    def report(self, saving: bool | None = None) -> None:
        """Whatever has become due since the last time; a checkpoint if `saving`, by default by its own steps."""
        train, now = self.config.train, self.counters.env_steps
        before, self.counters.reported = self.counters.reported, now
        if crossed(before, now, train.log_every):
            self._log()
        if self._evaluation_due():
            try:
                evaluate_on_the_way(self)
            except EvaluationStoppedError:  # it is made when the run goes on
                return
        if crossed(before, now, train.checkpoint_every) if saving is None else saving:
            self.save()
        self.screen.progress(now, updating=self.counters.updates > 0)

    def _evaluation_due(self) -> bool:
        every = self.config.train.eval_every
        return bool(every) and crossed(self.counters.evaluated, self.counters.env_steps, every)

    def save(self) -> None:
        """Begin to write a checkpoint of everything that the run needs to go on, unless there is nothing new.

        The run waits while its state is copied, and for the checkpoint before if that is still being written.
        Training goes on where it cannot be written: the screen says so, and the one before is whole.
        """
        mark = self.replay.mark()
        self.updates.wait()
        with self.clock("checkpoint"):
            self.checkpoints.settle()
            tell_failure(self)
            written = mark.same_as(self.saved) and not self.checkpoints.failure
            if self.counters.env_steps and not written:
                self.checkpoints.save(snapshot(self, self.checkpoints.since))
                self.saved = mark

    def make_replay(self, config: Config) -> Any:
        """An empty replay for `config`."""
        raise NotImplementedError

    def _step(self) -> None:
        """Go on by as many env steps as the loop takes at a time."""
        raise NotImplementedError

    @property
    def seed(self) -> int:
        """Of the environments, the policy's draws and the replay's samples."""
        return self.config.seed

    def reseed(self) -> None:
        """Seed the replay's samples as the configuration and the rollbacks say."""
        self.replay.seed = self._sampling_seed

    @property
    def _sampling_seed(self) -> int:
        """Of the replay: another one after a rollback, so that the same batches do not come again."""
        return self.seed + 104_729 * self.counters.rollbacks

    def _make_driver(self, seed: int) -> Any:
        """What acts in the environments, and can be saved and restarted."""
        raise NotImplementedError

    def _make_checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder, self.config.train.keep_checkpoints)

    def learner_of(self, checkpoint: Checkpoint) -> AgentState:
        """The learner that `checkpoint` holds."""
        return checkpoint.agent(self.state)

    def _interrupt(self, number: int) -> None:
        self.stopping, self.interrupted = True, number
        self.screen.say("stopping after this step; Ctrl-C again stops at once, back to the last checkpoint")

    def stop(self) -> None:
        """End the training after this step."""
        self.stopping = True

    def asked_to_end(self) -> bool:
        """Whether a signal has come."""
        return bool(self.interrupted)

    def more(self) -> dict[str, Any]:
        """What a checkpoint holds beyond what every run has, as plain data."""
        return {}

    def take_more(self, saved: dict[str, Any]) -> None:
        """The inverse of `more`."""

    def faults_told(self) -> int:
        """How many faults the environments have counted."""
        return getattr(self.env, "faults", 0)

    def _count_faults(self, total: int, last: str) -> None:
        """Take over how many faults the environments count in all; `last` is what is said of a new one."""
        new, self.known_faults = total - self.known_faults, total
        if new > 0:
            self.counters.faults += new
            self.screen.say(
                f"{last}: it is restarted, its episode counts as cut ({self.counters.faults:,} in all)"
            )

    def _finish(self) -> None:
        """Wait for what is in flight, and write it back."""
        self.updates.finish(self.replay)

    def updates_due(self, env_steps: int | None = None) -> int:
        """Updates that should have happened by `env_steps` (by default now): an exact function of them.

        Those left over for less than a whole dispatch are made with a later one.
        """
        since_prefill = (self.counters.env_steps if env_steps is None else env_steps) - self.config.replay.prefill
        return int(since_prefill * self.config.updates_per_env_step) if since_prefill >= 0 else 0

    def _log(self) -> None:
        metrics, self.updates.done = self.updates.done, []
        row = self.window.row(self.counters, metrics, self.clock) | self.startup.row()
        row["system/memory_gb"] = memory.resident() / 1e9
        self.writer.write(self.counters.env_steps, row)
        self.screen.row(self.counters.env_steps, row)
        if metrics and not self.memory_told:
            self.memory_told = True
            added = int(self.replay.mark().added.sum())
            now, full = memory.outlook(self.config, self.agent, added, self.counters.env_steps)
            self.screen.say(f"main memory: {now / 1e9:.2f} GB now, {full / 1e9:.2f} GB when the replay is full")
        self._new_window()

    def _new_window(self) -> None:
        self.window = Window.since(self.counters)
        self.clock.reset()

    def _go_on_or_begin(self, at_updates: int | None) -> dict[str, int]:
        """From a checkpoint, the weights that were asked for, or new; the loggers' positions there."""
        checkpoint = self.checkpoints.newest(updates=at_updates)
        if checkpoint is not None:
            return self.resume_from(checkpoint)
        if self.config.init_from:
            self._start_from(Path(self.config.init_from))
        return {}

    def resume_from(self, checkpoint: Checkpoint) -> dict[str, int]:
        """Go on from `checkpoint`; the positions of the loggers there."""
        positions, self.whole = put_back(self, checkpoint)
        self.reseed()
        self.saved = self.checkpoints.since
        return positions

    def _start_from(self, source: Path) -> None:
        state, transfer = start_from(self.state, read_weights(source))
        self.state = self.placement.state(state)
        for line in transfer.report(str(source)):
            self.screen.say(line)

    def _call(self, hook: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            if getattr(callback, hook)(self, *arguments) is False:
                self.stop()
