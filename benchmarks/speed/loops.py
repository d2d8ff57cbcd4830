"""What our worker does with the whole training loop: open a run, and time stretches of env steps."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from dreamer_agent.config import load_config

Reply = dict[str, Any]
SETTINGS = (
    "train.steps=100000",
    "train.checkpoint_every=100000",  # checkpoints are written between stretches, where the clock stands still
)
WARM = 256  # env steps with updates before the first stretch


class Loop:
    """A run in a temporary folder, which goes on whenever it is asked to."""

    def open(self, presets: list[str], overrides: list[str]) -> Reply:
        """Start the run, fill the replay and make the first updates."""
        from dreamer_agent.training.loop import Trainer

        config = load_config(presets, [*overrides, *SETTINGS])
        self.folder = tempfile.TemporaryDirectory()
        self.trainer = Trainer.open(config, Path(self.folder.name) / "run", quiet=True)
        self.trainer.run(config.replay.prefill + WARM)
        return {"updates_per_env_step": config.updates_per_env_step, "envs": config.env.num_envs}

    def steps(self, count: int) -> Reply:
        """Go on for about `count` env steps; milliseconds of one env step, with the updates that belong to it."""
        clock = _clock()
        self.trainer.run(self.trainer.counters.env_steps + count, clock)
        (first, start), (last, end) = clock.stamps
        return {"ms": [1e3 * (end - start) / (last - first)]}


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
