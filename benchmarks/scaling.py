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
from pathlib import Path
from typing import Any

if "cpu" in os.environ.setdefault("JAX_PLATFORMS", "cpu"):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    os.environ["XLA_FLAGS"] = flags

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from benchmarks.speed.cases import CASES, random_batch
from dreamer_agent.agent import Agent
from dreamer_agent.api import enable_compilation_cache
from dreamer_agent.compiling import compiled
from dreamer_agent.config import Config, load_config
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training.mesh import AXES, Placement
from dreamer_agent.training.run_directory import provenance
from dreamer_agent.training.updates import program_of

RESULTS = Path(__file__).parent / "results" / "scaling.json"
EACH = 2  # sequences for each device
COLLECTIVES = r"= \S+ (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("


def config_of(sequences: int) -> Config:
    return load_config(
        ["size/1m"], [f"replay.batch_size={sequences}", "optimizer.warmup=0", "optimizer.learning_rate=1e-4"]
    )


def agent_of(config: Config) -> Agent:
    case = CASES["1m-proprio"]
    specs = [{name: ArraySpec(*spec) for name, spec in side.items()} for side in (case.obs, case.act)]
    return Agent.create(config, *specs)


def batches_of(agent: Agent, count: int) -> list[Any]:
    case = dataclasses.replace(CASES["1m-proprio"], settings=dataclasses.asdict(agent.config))
    return [random_batch(case, seed) for seed in range(count)]


class Contender:
    """One program with its state, on some devices."""

    def __init__(self, agent: Agent, placement: Placement, fresh: Any):
        self.placement, self.state = placement, placement.state(jax.tree.map(np.copy, fresh))
        self.program = program_of(agent, placement)

    def update(self, batch: Any) -> float:
        """Seconds of one update."""
        given = jax.block_until_ready(self.placement.batches(jax.tree.map(lambda x: x[None], batch)))
        start = time.perf_counter()
        self.state = jax.block_until_ready(self.program(self.state, given))[0]
        return time.perf_counter() - start

    def collectives(self, batch: Any) -> int:
        """How many operations between devices the program has; sums of several arrays at once are not counted."""
        given = self.placement.batches(jax.tree.map(lambda x: x[None], batch))
        return len(re.findall(COLLECTIVES, self.program.lower(self.state, given).compile().as_text()))


class Seeds:
    """Eight seeds as one program, on one device or divided over several."""

    def __init__(self, agent: Agent, devices: int):
        keys = jax.random.split(jax.random.PRNGKey(0), 8)
        there = np.array(jax.devices()[:devices])
        mesh = Mesh(there, ("seed",), axis_types=(AxisType.Auto,))
        self.sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("seed"))
        self.state = jax.device_put(jax.jit(jax.vmap(agent.init))(keys), self.sharding)
        self.program = compiled(
            jax.vmap(lambda s, b: agent.update(s, b)[0]), donate_argnums=0, out_shardings=self.sharding
        )

    def update(self, batch: Any) -> float:
        given = jax.tree.map(lambda x: np.stack([x] * 8), batch)
        given = jax.block_until_ready(jax.device_put(given, self.sharding))
        start = time.perf_counter()
        self.state = jax.block_until_ready(self.program(self.state, given))
        return time.perf_counter() - start

    def collectives(self, batch: Any) -> int:
        given = jax.device_put(jax.tree.map(lambda x: np.stack([x] * 8), batch), self.sharding)
        return len(re.findall(COLLECTIVES, self.program.lower(self.state, given).compile().as_text()))


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
    ratios = np.median(pairs.reshape(3, -1, 2), axis=1)
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
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    enable_compilation_cache()
    there, rows = len(jax.devices()), []
    for devices in (n for n in (2, 4, 8) if n <= there):
        agent = agent_of(config_of(EACH * devices))
        fresh = jax.device_get(jax.jit(agent.init)(jax.random.PRNGKey(0)))
        batches = batches_of(agent, 5)
        shapes = {"data": (devices, 1)} | ({"fsdp": (1, devices)} if devices == min(there, 8) else {})
        for axis, shape in shapes.items():
            mesh = Mesh(np.array(jax.devices()[:devices]).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 2)
            one, other = Contender(agent, Placement(), fresh), Contender(agent, Placement(mesh), fresh)
            rows.append({"axis": axis, "devices": devices, "sequences": EACH * devices})
            rows[-1] |= measured(one, other, batches, args.rounds)
            print(json.dumps(rows[-1]), flush=True)
    agent = agent_of(config_of(EACH))
    batches = batches_of(agent, 5)
    for devices in (n for n in (2, 4, 8) if n <= there):
        rows.append({"axis": "seed", "devices": devices, "sequences": EACH})
        rows[-1] |= measured(Seeds(agent, 1), Seeds(agent, devices), batches, args.rounds)
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
