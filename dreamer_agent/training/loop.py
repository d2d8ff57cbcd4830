"""The host loop: act, store, update by the ratio; log, checkpoint and evaluate by env steps.

Everything that happens is a function of step counters, never of the clock, so that a run can be repeated
and resumed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dreamer_agent.agent import Agent, AgentState
from dreamer_agent.config import Config
from dreamer_agent.envs import VectorEnv, make_env
from dreamer_agent.replay import HostReplay
from dreamer_agent.training import budget, run_directory
from dreamer_agent.training.checkpoint import Checkpoints
from dreamer_agent.training.driver import Driver, Episode, env_steps
from dreamer_agent.training.evaluate import Evaluation, evaluate
from dreamer_agent.training.metrics import MetricsWriter, average
from dreamer_agent.training.screen import Screen
from dreamer_agent.world_model import CONTEXT

EnvFactory = Callable[[int], VectorEnv]  # number of environments -> environments


@dataclass
class Counters:
    """What the loop counts; written with every checkpoint."""

    env_steps: int = 0
    updates: int = 0
    episodes: int = 0
    acts: int = 0
    resumes: int = 0


@dataclass
class Window:
    """What was seen since the last row of metrics."""

    metrics: list[dict[str, Any]] = field(default_factory=list)
    episodes: list[Episode] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)
    acting: float = 0.0
    updating: float = 0.0
    first_step: int = 0


def train(config: Config, folder: Path, make: EnvFactory | None = None, quiet: bool = False) -> list[Evaluation]:
    """Train in the run directory `folder` until `config.train.steps` and evaluate the final parameters.

    A directory that holds a run of the same configuration is resumed. `make(num_envs)` overrides the
    environment that `config.env` names. Gives the final evaluations, sampled and mode.
    """
    make = make or (lambda count: make_env(config.env, count))
    env = make(config.env.num_envs)
    try:
        agent = Agent.create(config, env.obs_specs, env.act_specs)
        sizes = budget.check(config, agent)
        run_directory.prepare(folder, config)
        trainer = Trainer(config, folder, agent, env, make, quiet)
        trainer.introduce(sizes)
        return trainer.run()
    finally:
        env.close()


class Trainer:
    """One run: the learner, its replay and environments, and the counters that drive them."""

    def __init__(self, config: Config, folder: Path, agent: Agent, env: VectorEnv, make: EnvFactory, quiet: bool):
        self.config, self.folder, self.agent, self.env, self.make = config, folder, agent, env, make
        self.counters, self.window = Counters(), Window()
        self.replay = make_replay(config, agent)
        self.state: AgentState = jax.jit(agent.init)(jax.random.PRNGKey(config.seed))
        self.update = jax.jit(agent.update, donate_argnums=0)
        self.checkpoints = Checkpoints(folder / "checkpoints", config.train.keep_checkpoints)
        if self.checkpoints.latest() is not None:
            self._restore()
        # A resumed run starts its environments anew, from other seeds than before.
        self.driver = Driver(agent, env, config.seed + 7919 * self.counters.resumes)
        self.driver.calls = self.counters.acts
        self.writer = MetricsWriter(folder, self.counters.env_steps)
        self.screen = Screen(config.train.steps, self.counters.env_steps, quiet)

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

    def run(self) -> list[Evaluation]:
        """Train to the end; checkpoint, evaluate and write the scores."""
        self.window.first_step = self.counters.env_steps
        with self.screen:
            while self.counters.env_steps < self.config.train.steps:
                before = self.counters.env_steps
                self._act()
                self._learn()
                self._report(before)
            if self.counters.env_steps > self.window.first_step:
                self._log()
        self.save()
        evaluations = [self.evaluate(explore) for explore in (True, False)]
        self._write_scores(evaluations)
        self.writer.close()
        self.checkpoints.close()
        return evaluations

    def evaluate(self, explore: bool) -> Evaluation:
        """Score the current parameters on fresh environments."""
        train = self.config.train
        env = self.make(min(train.eval_envs, train.eval_episodes))
        try:
            return evaluate(self.agent, self.state.params, env, train.eval_episodes, self.config.seed, explore)
        finally:
            env.close()

    def save(self) -> None:
        """Write a checkpoint of everything that the run needs to go on."""
        if self.checkpoints.latest() != self.counters.env_steps:
            self.counters.acts = self.driver.calls
            self.checkpoints.save(
                self.counters.env_steps, self.state, self.replay.save(), vars(self.counters).copy()
            )

    def _act(self) -> None:
        """One step of all environments into the replay."""
        start = time.monotonic()
        for rows, step in self.driver.rows(self.state.params):
            self.replay.add(step, rows.mask)
            self.counters.env_steps += env_steps(rows)
        finished = self.driver.finished()
        self.counters.episodes += len(finished)
        self.window.episodes += finished
        self.window.acting += time.monotonic() - start

    def _learn(self) -> None:
        """As many updates as the ratio owes for the env steps so far."""
        start = time.monotonic()
        while self.replay.ready() and self.counters.updates < self.updates_due():
            batch, ids = self.replay.sample()
            self.state, latents, metrics = self.update(self.state, batch)
            packed = jax.tree.map(np.asarray, latents.pack())
            self.replay.update_latents(ids, packed)
            self.window.metrics.append(metrics)
            self.counters.updates += 1
        self.window.updating += time.monotonic() - start

    def updates_due(self) -> int:
        """Updates that should have happened by now; an exact function of the env steps."""
        since_prefill = self.counters.env_steps - self.config.replay.prefill
        return int(since_prefill * self.config.updates_per_env_step) if since_prefill >= 0 else 0

    def _report(self, before: int) -> None:
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
        self.screen.progress(now, "training" if self.counters.updates else "filling replay")

    def _log(self) -> None:
        window, elapsed = self.window, max(time.monotonic() - self.window.start, 1e-9)
        row = average(window.metrics)
        if row:
            row["loss/model"] = sum(value for key, value in row.items() if key.startswith("loss/rec/")) + sum(
                row[f"loss/{key}"] for key in ("reward", "continue", "dyn")
            )
        if window.episodes:
            row["episode/return"] = float(np.mean([e.score for e in window.episodes]))
            row["episode/length"] = float(np.mean([e.length for e in window.episodes]))
        row["episode/count"] = self.counters.episodes
        row["updates"] = self.counters.updates
        row["time/env_steps_per_s"] = (self.counters.env_steps - window.first_step) / elapsed
        row["time/updates_per_s"] = len(window.metrics) / elapsed
        row["time/share_acting"] = window.acting / elapsed
        row["time/share_update"] = window.updating / elapsed
        self.writer.write(self.counters.env_steps, row)
        self.screen.row(self.counters.env_steps, row)
        self.window = Window(first_step=self.counters.env_steps)

    def _restore(self) -> None:
        self.state = self.checkpoints.restore_agent(self.state)
        saved, counters = self.checkpoints.restore_rest()
        self.replay.restore(saved)
        self.replay.cut()
        self.counters = Counters(**counters)
        self.counters.resumes += 1

    def _write_scores(self, evaluations: list[Evaluation]) -> None:
        scores = [evaluation.summary() for evaluation in evaluations]
        content = {"env_steps": self.counters.env_steps, "updates": self.counters.updates, "scores": scores}
        (self.folder / "evaluation.json").write_text(json.dumps(content, indent=2) + "\n")
        for score in scores:
            self.screen.say(
                f"final policy, {score['policy']} actions: return {score['return_mean']:.1f} "
                f"± {score['return_std']:.1f} over {score['episodes']} episodes"
            )


def make_replay(config: Config, agent: Agent) -> HostReplay:
    """The replay of a run, no larger than the run can fill."""
    return HostReplay(
        budget.layout_of(agent),
        config.env.num_envs,
        budget.kept_steps(config),
        config.replay.batch_size,
        config.replay.batch_length,
        CONTEXT,
        config.replay.online,
        config.seed,
    )


def crossed(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]."""
    return now // every > before // every
