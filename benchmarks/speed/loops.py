"""What our worker does with the whole training loop: open a run, and time stretches of env steps."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from dreamer_agent.config import load_config

Reply = dict[str, Any]
SETTINGS = (
    "train.steps=10000000",
    "train.checkpoint_every=10000000",  # they are written between stretches, where the clock stands still
    "train.log_every=10000",
    "replay.capacity=100000",
)
WARM = 256  # env steps with updates before the first stretch


class Loop:
    """A run in a temporary folder, which goes on whenever it is asked to."""

    def open(self, presets: list[str], overrides: list[str]) -> Reply:
        """Start the run, fill the replay and make the first updates."""
        from dreamer_agent.training.loop import open_trainer

        config = load_config(presets, [*overrides, *SETTINGS])
        self.folder = tempfile.TemporaryDirectory()
        self.trainer = open_trainer(config, Path(self.folder.name) / "run", quiet=True)
        acting = config.replay.prefill >= config.train.steps
        self.trainer.run(WARM * config.env.num_envs if acting else config.replay.prefill + WARM)
        rate = 0.0 if acting else config.updates_per_env_step
        return {"updates_per_env_step": rate, "envs": config.env.num_envs}

    def steps(self, count: int) -> Reply:
        """Go on for about `count` env steps; milliseconds of one env step, with the updates that belong to it."""
        clock = _clock()
        self.trainer.run(self.trainer.counters.env_steps + count, clock)
        (first, start), (last, end) = clock.stamps
        return {"ms": [1e3 * (end - start) / (last - first)]}

    def open_population(self, presets: list[str], overrides: list[str], seeds: int) -> Reply:
        """Start `seeds` runs as one program, fill their replays and make the first updates."""
        from dreamer_agent.api import population_configs
        from dreamer_agent.training.mesh import divide_cpu
        from dreamer_agent.training.population import Population

        divide_cpu(seeds)
        config = load_config(presets, [*overrides, *SETTINGS])
        self.folder = tempfile.TemporaryDirectory()
        folders = [Path(self.folder.name) / f"run{seed}" for seed in range(seeds)]
        self.population = Population.open(population_configs(config, seeds), folders, quiet=True)
        for member in self.population.members:
            member.begin(config.train.steps)
        self.population._gather()
        self.population_steps(config.replay.prefill + WARM)
        return {"updates_per_env_step": config.updates_per_env_step, "envs": config.env.num_envs}

    def population_steps(self, count: int) -> Reply:
        """Go on for about `count` env steps of each seed; milliseconds of one env step of any of them."""
        import jax

        members = self.population.members
        before, start = sum(member.counters.env_steps for member in members), time.perf_counter()
        until = self.population._first.counters.env_steps + count
        while self.population._first.counters.env_steps < until:
            self.population._step()
        jax.block_until_ready(self.population.loop)
        done = sum(member.counters.env_steps for member in members) - before
        return {"ms": [1e3 * (time.perf_counter() - start) / done]}


def _clock() -> Any:
    """A callback that notes env steps and time at the start of a stretch, and when all its work is done."""
    import jax

    from dreamer_agent.training.callbacks import Callback

    class Clock(Callback):
        def __init__(self) -> None:
            self.stamps: list[tuple[int, float]] = []

        def on_start(self, trainer: Any) -> None:
            self.stamps.append((trainer.counters.env_steps, time.perf_counter()))

        def on_end(self, trainer: Any) -> None:
            jax.block_until_ready(trainer.state)
            self.on_start(trainer)

    return Clock()
