"""One update divided over devices: does it give the same parameters, and what does dividing cost?

    python -m benchmarks.scaling

Eight virtual devices share the cores of the CPU, so that dividing cannot pay here: what is measured is its
overhead, the time on n devices beside that of one device for the same global batch (weak scaling: 2 sequences of
64 steps for each device, size 1m), in turns in one process. With JAX_PLATFORMS=cuda the same command takes the
GPUs there are. Results go to benchmarks/results/scaling.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if "cpu" in os.environ.setdefault("JAX_PLATFORMS", "cpu"):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    os.environ["XLA_FLAGS"] = flags

import jax
import numpy as np

from benchmarks.speed.cases import CASES, random_batch
from dreamer_agent.agent import Agent
from dreamer_agent.api import enable_compilation_cache
from dreamer_agent.compiling import compiled
from dreamer_agent.config import Config, load_config
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training.mesh import Placement, over_seeds
from dreamer_agent.training.run_directory import provenance
from dreamer_agent.training.updates import program_of

RESULTS = Path(__file__).parent / "results" / "scaling.json"
EACH = 2  # sequences for each device
COLLECTIVES = r"= \S+ (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("


def config_of(sequences: int, *overrides: str) -> Config:
    fixed = [f"replay.batch_size={sequences}", "optimizer.warmup=0", "optimizer.learning_rate=1e-4"]
    return load_config(["size/1m"], [*fixed, *overrides])


def agent_of(config: Config) -> Agent:
    case = CASES["1m-proprio"]
    specs = [{name: ArraySpec(*spec) for name, spec in side.items()} for side in (case.obs, case.act)]
    return Agent.create(config, *specs)


def batches_of(agent: Agent, count: int) -> list[Any]:
    case = dataclasses.replace(CASES["1m-proprio"], settings=dataclasses.asdict(agent.config))
    return [random_batch(case, seed) for seed in range(count)]


class Contender:
    """A program with its state; `place` puts a batch where it belongs."""

    def __init__(self, program: Any, state: Any, place: Callable[[Any], Any]):
        self.program, self.state, self.place = program, state, place

    def update(self, batch: Any) -> float:
        """Seconds of one update."""
        given = jax.block_until_ready(self.place(batch))
        start = time.perf_counter()
        self.state = jax.block_until_ready(self.program(self.state, given))[0]
        return time.perf_counter() - start

    def collectives(self, batch: Any) -> int:
        """How many operations between devices the program has; sums of several arrays at once are not counted."""
        return len(re.findall(COLLECTIVES, self.program.lower(self.state, self.place(batch)).compile().as_text()))


def one_run(agent: Agent, placement: Placement) -> Contender:
    """A single run on the devices of `placement`."""
    state = placement.state(jax.jit(agent.init)(jax.random.PRNGKey(0)))
    return Contender(program_of(agent, placement), state, lambda batch: placement.batches(stacked([batch])))


def eight_seeds(agent: Agent, devices: int) -> Contender:
    """Eight seeds as one program, divided over several devices or on one."""
    where = over_seeds(8, jax.devices()[:devices])
    states = jax.jit(jax.vmap(agent.init))(jax.random.split(jax.random.PRNGKey(0), 8))
    outputs = {} if where is None else {"out_shardings": (where, where, where)}
    program = compiled(jax.vmap(lambda state, batch: agent.update(state, batch)), donate_argnums=0, **outputs)
    return Contender(
        program, jax.device_put(states, where), lambda batch: jax.device_put(stacked([batch] * 8), where)
    )


def stacked(batches: list[Any]) -> Any:
    return jax.tree.map(lambda *x: np.stack(x), *batches)


def difference(one: Any, other: Any) -> float:
    """The largest difference of a parameter, over the largest number of its array."""
    pairs = zip(*(jax.tree.leaves(jax.device_get(x.state.params)) for x in (one, other)), strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-3)) for a, b in pairs)


def measured(one: Any, other: Any, batches: list[Any], rounds: int) -> dict[str, Any]:
    """Differences after one and five updates, then times in turns: medians, and the range of their ratios."""
    gaps = []
    for batch in batches:
        for contender in (one, other):
            contender.update(batch)
        gaps.append(difference(one, other))
    pairs = np.array([[x.update(batches[0]) for x in (one, other)] for _ in range(rounds)])
    ratios = np.array([np.median(third, axis=0) for third in np.array_split(pairs, 3)])
    ratios = ratios[:, 1] / ratios[:, 0]
    return {
        "difference_1": gaps[0],
        "difference_5": gaps[-1],
        "ms_one": 1e3 * float(np.median(pairs[:, 0])),
        "ms_divided": 1e3 * float(np.median(pairs[:, 1])),
        "ratio": float(np.median(ratios)),
        "ratios": sorted(ratios.tolist()),
        "collectives": other.collectives(batches[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="times that are measured, in three parts")
    args = parser.parse_args()
    if args.rounds < 3:
        parser.error("--rounds: give at least 3")
    enable_compilation_cache()
    there, rows = len(jax.devices()), []
    for devices in (n for n in (2, 4, 8) if n <= there):
        agent = agent_of(config_of(EACH * devices))
        batches = batches_of(agent, 5)
        axes = ["data", "fsdp"] if devices == min(there, 8) else ["data"]
        for axis in axes:
            divided = Placement.of(config_of(EACH * devices, f"mesh.{axis}={devices}"))
            one, other = one_run(agent, Placement()), one_run(agent, divided)
            rows.append({"axis": axis, "devices": devices, "sequences": EACH * devices})
            rows[-1] |= measured(one, other, batches, args.rounds)
            print(json.dumps(rows[-1]), flush=True)
    agent = agent_of(config_of(EACH))
    batches = batches_of(agent, 5)
    for devices in (n for n in (2, 4, 8) if n <= there):
        rows.append({"axis": "seed", "devices": devices, "sequences": EACH})
        rows[-1] |= measured(eight_seeds(agent, 1), eight_seeds(agent, devices), batches, args.rounds)
        print(json.dumps(rows[-1]), flush=True)
    RESULTS.write_text(json.dumps({"rows": rows, "provenance": provenance()}, indent=1) + "\n")
    print("| axis | devices | sequences | ms on one | ms divided | ratio | after 1 | after 5 | collectives |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        low, high = row["ratios"][0], row["ratios"][-1]
        print(
            f"| {row['axis']} | {row['devices']} | {row['sequences']} | {row['ms_one']:.0f} "
            f"| {row['ms_divided']:.0f} | {row['ratio']:.2f} ({low:.2f} to {high:.2f}) "
            f"| {row['difference_1']:.1e} | {row['difference_5']:.1e} | {row['collectives']} |"
        )


if __name__ == "__main__":
    main()
