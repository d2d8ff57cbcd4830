"""Our device replay beside flashbax's trajectory buffer: the same steps, the same batches, one process.

    pip install flashbax
    python -m benchmarks.flashbax

Both hold size1m steps with 24 numbers observed, of 16 environments, on the device. Adding one step of all
environments and sampling a batch of 16 x 65 are timed in turn. flashbax only adds and samples: the write-back of
latents, the online queue and the flags at cut episodes are ours, and the time that they take is in ours.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.cases import CASES, REPLAY_ENVS, REPLAY_STEPS, random_steps
from benchmarks.speed.learner import Learner
from dreamer_agent.replay.device import DeviceReplay
from dreamer_agent.training.budget import layout_of
from dreamer_agent.training.run_directory import provenance

RESULTS = Path(__file__).parent / "results" / "flashbax.json"
CASE = "1m-proprio"
Call = Callable[[Any, Any], Any]


def ours(learner: Learner, add_batch: int) -> tuple[Any, Call, Call]:
    """A filled replay, and its functions (state, step) -> state and (state, key) -> (state, batch)."""
    config = learner.agent.config.replay
    replay = DeviceReplay(
        layout_of(learner.agent), add_batch, REPLAY_STEPS, config.batch_size, config.batch_length
    )

    def sample(state: Any, key: Any) -> Any:
        state, batch, _ = replay.sample(state, key)
        return state, batch

    return replay.init(), replay.add, sample


def flashbax(learner: Learner, add_batch: int) -> tuple[Any, Call, Call]:
    """The same of flashbax."""
    from flashbax import make_trajectory_buffer

    config = learner.agent.config.replay
    buffer = make_trajectory_buffer(
        add_batch_size=add_batch,
        sample_batch_size=config.batch_size,
        sample_sequence_length=config.batch_length + 1,
        period=1,
        min_length_time_axis=config.batch_length + 1,
        max_length_time_axis=REPLAY_STEPS // add_batch,
    )
    step = jax.tree.map(lambda x: jnp.asarray(x[0]), random_steps(learner.case))

    def add(state: Any, step: Any) -> Any:
        return buffer.add(state, jax.tree.map(lambda x: x[:, None], step))

    def sample(state: Any, key: Any) -> Any:
        return state, buffer.sample(state, key).experience

    return buffer.init(step), add, sample


class Timed:
    """One replay, filled, with its two compiled programs."""

    def __init__(self, made: tuple[Any, Call, Call], learner: Learner):
        self.state, add, sample = made
        self.add, self.sample = jax.jit(add, donate_argnums=0), jax.jit(sample, donate_argnums=0)
        self.step = jax.tree.map(jnp.asarray, random_steps(learner.case))
        for _ in range(REPLAY_STEPS // REPLAY_ENVS):
            self.state = self.add(self.state, self.step)
        self.key = jax.random.PRNGKey(0)
        for _ in range(20):  # serves the online queue of ours, and compiles
            self._sample()

    def measure(self, what: str, times: int) -> float:
        """Microseconds of one call."""
        call = self._add if what == "add" else self._sample
        start = time.perf_counter()
        for _ in range(times):
            call()
        return 1e6 * (time.perf_counter() - start) / times

    def _add(self) -> None:
        self.state = jax.block_until_ready(self.add(self.state, self.step))

    def _sample(self) -> None:
        self.state, _ = jax.block_until_ready(self.sample(self.state, self.key))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    learner = Learner()
    learner.build(CASES[CASE].plain())
    contenders = {
        "dreamer_agent": Timed(ours(learner, REPLAY_ENVS), learner),
        "flashbax": Timed(flashbax(learner, REPLAY_ENVS), learner),
    }
    rows = []
    for what in ("add", "sample"):
        taken = np.array(
            [[c.measure(what, args.times) for c in contenders.values()] for _ in range(args.rounds)]
        )  # [rounds, contenders]
        ratio = taken[:, 1] / taken[:, 0]
        median = dict(zip(contenders, np.median(taken, 0).round(1).tolist(), strict=True))
        spread = [round(float(x), 2) for x in (np.median(ratio), ratio.min(), ratio.max())]
        rows.append({"what": what, "microseconds": median, "flashbax_times_ours": spread})
        print(
            f"{what}: {median} microseconds; flashbax takes {spread[0]} ({spread[1]} to {spread[2]}) times ours"
        )
    content = {
        "command": "python -m benchmarks.flashbax",
        "case": CASE,
        "rounds": args.rounds,
        "provenance": provenance(),
        "results": rows,
    }
    args.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
