"""The host loop: act, store, update by the ratio; log, checkpoint and evaluate by env steps.

Everything that happens is a function of step counters, never of the clock, so that a run can be repeated and
resumed. The host does not wait for the updates that it launches, and what they see lags by fixed amounts:

- the policy acts with the parameters of all updates launched before, so that these do not lag;
- the updates that are due with a step of the environments are sampled from the replay before that step;
- the latents and metrics of a dispatch of updates arrive when the next one has been launched.

A checkpoint first waits for what is in flight and writes it back, so that a run that goes on from there sees what
one that is resumed from it sees. An evaluation changes nothing of what training sees.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from dreamer_agent.agent import Agent, AgentState, Metrics, hyper_parameters
from dreamer_agent.config import Config
from dreamer_agent.envs import Interface, VectorEnv, make_env
from dreamer_agent.errors import ConfigError, RunDirectoryError
from dreamer_agent.registry import import_plugins
from dreamer_agent.replay import HostReplay
from dreamer_agent.replay.host import Layout
from dreamer_agent.specs import specs_difference
from dreamer_agent.training import budget, run_directory
from dreamer_agent.training.callbacks import Callback, as_callbacks
from dreamer_agent.training.checkpoint import Checkpoints
from dreamer_agent.training.driver import Driver, Launched, env_steps
from dreamer_agent.training.evaluate import Evaluation, evaluate
from dreamer_agent.training.interrupt import on_interrupt
from dreamer_agent.training.metrics import MetricsWriter, check_loggers
from dreamer_agent.training.progress import Counters, Stopwatch, Window
from dreamer_agent.training.screen import Screen
from dreamer_agent.training.startup import Startup
from dreamer_agent.training.updates import Updates, updates_per_dispatch
from dreamer_agent.training.weights import read_weights, start_from
from dreamer_agent.world_model import CONTEXT

EnvFactory = Callable[[int], VectorEnv]  # number of environments -> environments
SPACES = "spaces.json"


def train(
    config: Config, folder: Path, make: EnvFactory | None = None, quiet: bool = False, callbacks: Any = None,
    began: float | None = None,
) -> list[Evaluation]:  # fmt: skip
    """Train in the run directory `folder` until `config.train.steps` and evaluate the final parameters.

    A directory that holds a run of the same configuration is resumed. `make(num_envs)` overrides the environment
    that `config.env` names. `began` is when the command began, in seconds since the epoch. Gives the final
    evaluations, sampled and mode.
    """
    trainer = open_trainer(config, folder, make, quiet, began)
    try:
        trainer.run(config.train.steps, callbacks)
        return trainer.score()
    finally:
        trainer.close()


def open_trainer(
    config: Config, folder: Path, make: EnvFactory | None = None, quiet: bool = False, began: float | None = None
) -> Trainer:
    """`Trainer.open` of the loop that `config.train.loop` names."""
    if config.train.loop == "device":
        from dreamer_agent.training.device_loop import DeviceTrainer

        return DeviceTrainer.open(config, folder, make, quiet, began)
    return Trainer.open(config, folder, make, quiet, began)


class Trainer:
    """One run: the learner, its replay and environments, and the counters that drive them."""

    def __init__(
        self, config: Config, folder: Path, agent: Agent, env: VectorEnv, make: EnvFactory, quiet: bool,
        startup: Startup,
    ):  # fmt: skip
        self.config, self.folder, self.agent, self.env, self.make = config, folder, agent, env, make
        self.startup = startup
        self.counters, self.window, self.clock = Counters(), Window(), Stopwatch()
        self.callbacks: list[Callback] = []
        self.stopping = self.interrupted = False
        self.replay = self._make_replay(config)
        state: AgentState = jax.jit(agent.init)(jax.random.PRNGKey(config.seed))
        # The numbers of this run: its agent may be shared with runs that have others.
        self.state = state._replace(hyper=hyper_parameters(config, env.obs_specs))
        self.updates = Updates(agent, updates_per_dispatch(config, agent), config.train.overlap, self.clock)
        self.screen = Screen(config.train.steps, 0, quiet)
        self.checkpoints = Checkpoints(folder / "checkpoints", config.train.keep_checkpoints)
        if self.checkpoints.latest() is not None:
            self._restore()
        elif config.init_from:
            self._start_from(Path(config.init_from))
        # A resumed run starts its environments anew, from other seeds than before.
        self.driver = self._make_driver(config.seed + 7919 * self.counters.resumes)
        self.driver.calls = self.counters.acts
        self.writer = MetricsWriter(folder, self.counters.env_steps, config)

    @classmethod
    def open(
        cls, config: Config, folder: Path, make: EnvFactory | None = None, quiet: bool = False,
        began: float | None = None,
    ) -> Trainer:  # fmt: skip
        """Start a run in `folder`, or resume the one that lies there; the time until its first update is taken
        from `began`, by default now.

        Raises a `DreamerError` where the environment, the memory or the directory does not fit; nothing was
        changed on disk then.
        """
        opened = time.time()
        make, env = cls.make_envs(config, make)
        startup = Startup(opened, began)
        try:
            agent = Agent.create(config, env.obs_specs, env.act_specs)
            sizes = budget.check(config, agent, cls.free_memory())
            check_folder(config, folder, env)
            prepare_folder(config, folder, env)
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
        make = make or (lambda count: make_env(config.env, count))
        env = make(config.env.num_envs)
        try:
            if env.num_envs != config.env.num_envs:
                raise ConfigError(
                    f"There are {env.num_envs} environments, but env.num_envs={config.env.num_envs}: "
                    "make them equal."
                )
            cls.check_env(env)
        except BaseException:
            env.close()
            raise
        return make, env

    @classmethod
    def check_env(cls, env: VectorEnv) -> None:
        """Raise `ConfigError` for environments that this loop cannot step."""

    @classmethod
    def free_memory(cls) -> int | None:
        """Bytes that are free where the replay lies; None: ask for the host's."""
        return None

    def introduce(self, sizes: budget.Budget) -> None:
        """Say what is about to run."""
        c, say = self.config, self.screen.say
        obs = ", ".join(f"{k} {s.kind} {list(s.shape)}" for k, s in self.env.obs_specs.items())
        act = ", ".join(
            f"{k} {s.kind} {s.classes if s.classes else list(s.shape)}" for k, s in self.env.act_specs.items()
        )
        say(f"[bold]{c.env.id}[/bold] with {c.env.num_envs} environments: observes {obs}; acts by {act}")
        say(
            f"{sizes.parameters:,} parameters on {jax.default_backend()} in {self.agent.model.dtype.name}; "
            f"replay {sizes.replay / 1e9:.3f} GB, learner about {sizes.model / 1e9:.3f} GB plus activations"
        )
        say(
            f"{c.updates_per_env_step:.3g} updates per env step "
            f"(ratio {c.replay.ratio:g} / batch {c.replay.batch_size} x {c.replay.batch_length}); "
            f"run directory {self.folder}"
        )
        if self.counters.env_steps:
            say(f"resuming at env step {self.counters.env_steps:,}, update {self.counters.updates:,}")

    def run(self, until: int, callbacks: Any = None) -> None:
        """Train until `until` env steps have been made, or a callback ends it; then write a checkpoint.

        A checkpoint is also written before an exception of the environment is passed on, and at Ctrl-C, which
        ends the step at hand and then raises `KeyboardInterrupt`; a second one raises it at once.
        """
        self.begin(until, callbacks)
        with self.screen, on_interrupt(self._interrupt):
            while self.counters.env_steps < until and not self.stopping:
                before = self.counters.env_steps
                self._step()
                self.report(before)
                self._call("on_step")
        self.end()
        if self.interrupted:
            raise KeyboardInterrupt

    def begin(self, until: int, callbacks: Any = None) -> None:
        """Get ready to train until `until` env steps."""
        self.until, self.callbacks = until, as_callbacks(callbacks)
        self.stopping = self.interrupted = False
        if self.counters.env_steps >= until:
            self.screen.say(
                f"nothing to train: the run has {self.counters.env_steps:,} of {until:,} env steps already "
                "(ask for more steps, or for another run directory)"
            )
        self._finish()
        self._make_room(until)
        self._new_window()
        self.screen.begin(until, self.counters.env_steps)
        self._call("on_start")
        self.startup.fill()

    def end(self) -> None:
        """Log and write what the training has come to."""
        self._finish()
        if self.counters.env_steps > self.window.first_step:
            self._log()
        self.startup.close()
        self._call("on_end")
        self.save()

    def score(self) -> list[Evaluation]:
        """Evaluate the parameters with sampled actions and with the mode, and write the scores."""
        evaluations = [self.evaluate(explore) for explore in (True, False)]
        self._write_scores(evaluations)
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

    def evaluate(self, explore: bool, episodes: int | None = None, seed: int | None = None) -> Evaluation:
        """Score the current parameters on fresh environments, by default as the configuration says.

        Borrowed environments are the only ones there are: the episodes in training are cut there (truncated), and
        new ones begin afterwards.
        """
        episodes = episodes or self.config.train.eval_episodes
        seed = self.config.seed if seed is None else seed
        env = self.make(min(self.config.train.eval_envs, episodes))
        try:
            longest = self.config.train.eval_max_length
            result = evaluate(self.agent, self.state.params, env, episodes, seed, explore, longest)
        finally:
            if env is self.env:
                self.replay.cut()
                self.driver.restart(self.driver.seed + self.driver.calls)
            else:
                env.close()
        self._call("on_evaluation", result)
        return result

    def report(self, before: int) -> None:
        """Whatever is due between the env steps `before` and now."""
        train, now = self.config.train, self.counters.env_steps
        if crossed(before, now, train.log_every):
            self._log()
        if train.eval_every and crossed(before, now, train.eval_every):
            evaluation = self.evaluate(explore=True)
            numbers = {k: v for k, v in evaluation.summary().items() if k != "policy"}
            self.writer.write(now, {f"evaluation/{k}": v for k, v in numbers.items()})
            self.screen.say(f"{now:>12,} evaluation: return {evaluation.mean:.1f}")
        if crossed(before, now, train.checkpoint_every):
            self.save()
        self.screen.progress(now, updating=self.counters.updates > 0)

    def save(self) -> None:
        """Write a checkpoint of everything that the run needs to go on, unless there is nothing new."""
        if self.counters.env_steps not in (0, self.checkpoints.latest()):
            self._save_in(self.checkpoints)

    def save_as(self, folder: Path) -> None:
        """Write the run as it stands to another, empty folder, which then is a run directory of its own."""
        prepare_folder(self.config, folder, self.env)
        metrics = self.folder / "metrics.jsonl"
        if metrics.is_file():
            shutil.copyfile(metrics, folder / metrics.name)
        copy = Checkpoints(folder / "checkpoints", self.config.train.keep_checkpoints)
        self._save_in(copy)
        copy.close()

    def _make_replay(self, config: Config) -> Any:
        return make_replay(config, self.agent)

    def _make_driver(self, seed: int) -> Any:
        return Driver(self.agent, self.env, seed)

    def _save_in(self, checkpoints: Checkpoints) -> None:
        self._finish()
        self.counters.acts = self.driver.calls
        counters = vars(self.counters).copy()
        checkpoints.save(self.counters.env_steps, self.state, self.replay.save(), counters)

    def _interrupt(self) -> None:
        self.stopping = self.interrupted = True
        self.screen.say("stopping after this step; Ctrl-C again stops at once, back to the last checkpoint")

    def _step(self) -> None:
        """One step of all environments into the replay, while the updates run that are due with it."""
        acts = self._launch()
        launched = self._update(self.counters.env_steps + self.driver.env_steps_waiting())
        if not launched:
            self.updates.wait()  # as the policy does, so that the clock tells them apart
        try:
            self._store(acts)
        except Exception:  # of the environment: what came before it is whole
            self.save()
            raise
        for metrics in launched:
            self._call("on_update", metrics)

    def _launch(self) -> list[Launched]:
        """Hand the rows that wait to the policy, with the parameters of all updates so far."""
        with self.clock("acting"):
            acts = self.driver.launch(self.state.params)
            if not self.config.train.overlap:
                jax.block_until_ready([act.packed for act in acts])
        return acts

    def _update(self, env_steps: int) -> list[Metrics]:
        """Launch the updates that are due with `env_steps`; their metrics, perhaps still being computed."""
        launched = []
        while self.replay.ready() and self.counters.updates + self.updates.count <= self.updates_due(env_steps):
            self.startup.filled()
            self.state, metrics = self.updates.launch(self.state, self.replay)
            self.counters.updates += self.updates.count
            launched.append(metrics)
            if self.startup.listening:
                jax.block_until_ready(metrics)
                self.screen.say(self.startup.updated())
        return launched

    def _store(self, acts: list[Launched]) -> None:
        """The rows of one step into the replay, and the environments to their next ones."""
        with self.clock("acting"):
            for rows, step in self.driver.take(acts):
                self.replay.add(step, rows.mask)
                self.counters.env_steps += env_steps(rows)
        finished = self.driver.finished()
        self.counters.episodes += len(finished)
        self.window.episodes += finished
        for episode in finished:
            self._call("on_episode", episode)

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
        self.writer.write(self.counters.env_steps, row)
        self.screen.row(self.counters.env_steps, row)
        self._new_window()

    def _new_window(self) -> None:
        self.window = Window(self.counters.env_steps, self.counters.updates)
        self.clock.reset()

    def _restore(self) -> None:
        self.state = self.checkpoints.restore_agent(self.state)
        saved, counters = self.checkpoints.restore_rest()
        self.replay.restore(saved)
        self.replay.cut()
        self.counters = Counters(**counters)
        self.counters.resumes += 1

    def _start_from(self, source: Path) -> None:
        self.state, transfer = start_from(self.state, read_weights(source))
        for line in transfer.report(str(source)):
            self.screen.say(line)

    def _make_room(self, until: int) -> None:
        """A larger replay, where the run is to be longer than it was made for and nothing was dropped yet."""
        train = dataclasses.replace(self.config.train, steps=max(until, self.config.train.steps))
        config = dataclasses.replace(self.config, train=train)
        if budget.kept_steps(config) > budget.kept_steps(self.config) and not self.replay.dropped:
            budget.check(config, self.agent, self.free_memory())
            saved = self.replay.save()
            self.replay = self._make_replay(config)
            self.replay.restore(saved)
        if config != self.config:
            self.config = config
            run_directory.prepare(self.folder, config)

    def _call(self, hook: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            if getattr(callback, hook)(self, *arguments) is False:
                self.stopping = True

    def _write_scores(self, evaluations: list[Evaluation]) -> None:
        scores = [evaluation.summary() for evaluation in evaluations]
        content = {"env_steps": self.counters.env_steps, "updates": self.counters.updates, "scores": scores}
        (self.folder / "evaluation.json").write_text(json.dumps(content, indent=2) + "\n")
        for score in scores:
            self.screen.say(
                f"final policy, {score['policy']} actions: return {score['return_mean']:.1f} "
                f"± {score['return_std']:.1f} over {score['episodes']} episodes{_cut(score)}"
            )


def _cut(score: dict[str, Any]) -> str:
    cut = score["episodes_cut"]
    return f", {cut} of them cut at {score['length_max']:,} env steps" if cut else ""


def make_replay(config: Config, agent: Agent) -> HostReplay:
    """The replay of a run, no larger than the run can fill."""
    return HostReplay(*replay_sizes(config, agent), config.seed)


def replay_sizes(config: Config, agent: Agent) -> tuple[Layout, int, int, int, int, int, bool]:
    """The first arguments of a run's replay: layout, streams, capacity, batch, context, online queue."""
    return (
        budget.layout_of(agent),
        config.env.num_envs,
        budget.kept_steps(config),
        config.replay.batch_size,
        config.replay.batch_length,
        CONTEXT,
        config.replay.online,
    )


def check_folder(config: Config, folder: Path, env: VectorEnv) -> None:
    """Raise a `DreamerError` where `folder` cannot take a run of `config` in `env`; nothing is written."""
    run_directory.check(folder, config)
    _check_spaces(folder, env)
    if config.init_from and run_directory.newest_step(folder) is None:
        read_weights(Path(config.init_from))


def prepare_folder(config: Config, folder: Path, env: VectorEnv) -> None:
    """Make `folder` the run directory of `config` in `env`."""
    run_directory.prepare(folder, config)
    env.interface.save(folder / SPACES)


def _check_spaces(folder: Path, env: VectorEnv) -> None:
    """Refuse to resume with an environment whose spaces are not those that the run in `folder` began with."""
    if not (folder / SPACES).is_file():
        return
    before = Interface.load(folder / SPACES)
    for what, old, new in (
        ("observes", before.obs_specs, env.obs_specs),
        ("acts by", before.act_specs, env.act_specs),
    ):
        difference = specs_difference(old, new)
        if difference:
            raise RunDirectoryError(
                f"The environment now {what} {difference[1]}, but the run in {folder} has {difference[0]}: "
                "give another run directory, or the environment that it was trained on. Nothing was changed "
                "there."
            )


def crossed(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]."""
    return now // every > before // every
