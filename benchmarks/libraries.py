"""Env steps per second of libraries in JAX, as a run steps them, and within one program.

    taskset -c 0 python -m benchmarks.libraries

Random actions, no policy and no learning; ended episodes restart. "stepped": one jitted call for each step of all
environments, whose rows come to NumPy, as in the ordinary loop. "scanned": 200 steps in one jitted `lax.scan`, as
programs on the device hold them. Rates are per second of this process's own core time, medians of turns, so that
other load counts little; compilation is apart. Libraries that are not installed are left out. Results go to
benchmarks/results/libraries.json, line by line beside what was there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.stepping import version_of
from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import make_env
from dreamer_agent.envs.catalogue import LIBRARIES
from dreamer_agent.envs.jax_adapter import JaxVectorEnv

RESULTS = Path(__file__).parent / "results" / "libraries.json"
STEPS = 200  # of one scan
WAYS = ("stepped", "scanned")
COUNTS = (1, 64)
CASES = (
    "gymnax:CartPole-v1", "navix:Navix-Empty-8x8-v0", "xminigrid:MiniGrid-Empty-8x8",
    "brax:inverted_pendulum", "brax:ant", "craftax:Craftax-Classic-Symbolic-v1", "craftax:Craftax-Symbolic-v1",
    "playground:CartpoleBalance",
)  # fmt: skip


class Turns(NamedTuple):
    """What one environment's name and number gave."""

    rates: list[float]  # env steps per second of core time
    walls: list[float]  # and per second of the clock
    compiled: float  # seconds to the end of the first calls


def random_actions(env: JaxVectorEnv, rng: np.random.Generator, *steps: int) -> dict[str, np.ndarray]:
    """Actions `[*steps, E, ...]`."""
    return {
        key: rng.integers(spec.classes, size=(*steps, env.num_envs, *spec.shape)).astype(np.int32)
        if spec.kind == "discrete"
        else rng.uniform(-1, 1, (*steps, env.num_envs, *spec.shape)).astype(np.float32)
        for key, spec in env.act_specs.items()
    }


def stepper(env: JaxVectorEnv) -> Callable[[], int]:
    """A call of which makes one step of all environments, and says how many env steps that is."""
    rng, number = np.random.default_rng(0), iter(range(2**40))
    actions = [random_actions(env, rng) for _ in range(64)]
    env.reset(0)

    def call() -> int:
        env.step(actions[next(number) % len(actions)])
        return env.num_envs

    return call


def scanner(env: JaxVectorEnv) -> Callable[[], int]:
    """The same with `STEPS` steps in one program, of which the rewards are summed."""
    actions = jax.device_put(random_actions(env, np.random.default_rng(0), STEPS))

    @jax.jit
    def roll(carry: Any) -> tuple[Any, Any]:
        def step(carry: Any, action: Any) -> tuple[Any, Any]:
            carry, rows = env.advance(carry, action)
            return carry, (rows.reward.sum(), {key: value.sum() for key, value in rows.obs.items()})

        return jax.lax.scan(step, carry, actions)

    kept = [env._start(jax.random.PRNGKey(0))[0]]

    def call() -> int:
        kept[0], sums = roll(kept[0])
        jax.block_until_ready(sums)
        return STEPS * env.num_envs

    return call


def measured(id: str, count: int, way: str, rounds: int, seconds: float) -> Turns:
    """Rates over turns of at least `seconds` each."""
    begin = time.perf_counter()
    env = make_env(EnvConfig(id=id, num_envs=count))
    assert isinstance(env, JaxVectorEnv)
    call = stepper(env) if way == "stepped" else scanner(env)
    call(), call()
    rates, walls, compiled = [], [], time.perf_counter() - begin
    for _ in range(rounds):
        made, start, core = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - start < seconds or not made:
            made += call()
        rates.append(made / (time.process_time() - core))
        walls.append(made / (time.perf_counter() - start))
    return Turns(rates, walls, compiled)


def row_of(id: str, count: int, way: str, turns: Turns) -> dict[str, Any]:
    """A line of the results."""
    suite = id.partition(":")[0]
    return {
        "environment": id,
        "count": count,
        "way": way,
        "steps_per_core_second": round(float(np.median(turns.rates)), 1),
        "range": [round(min(turns.rates), 1), round(max(turns.rates), 1)],
        "steps_per_second": round(float(np.median(turns.walls)), 1),
        "seconds_to_compile": round(turns.compiled, 1),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": [round(x, 2) for x in os.getloadavg()],
        "version": version_of(suite),
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Steps per second by environment, in the four columns of ways and numbers."""
    columns = [(way, count) for way in WAYS for count in COUNTS]
    lines = [f"| environment | {' | '.join(f'{way}, {count}' for way, count in columns)} |", f"|{'---|' * 5}"]
    for id in dict.fromkeys(row["environment"] for row in rows):
        found = {
            (row["way"], row["count"]): row["steps_per_core_second"] for row in rows if row["environment"] == id
        }
        cells = [f"{found[column]:,.0f}" if column in found else "" for column in columns]
        lines.append(f"| {id} | {' | '.join(cells)} |")
    return lines


def joined(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All lines, newer ones in the place of older ones of the same environment, number and way."""

    def key(row: dict[str, Any]) -> tuple[int, int, int]:
        return CASES.index(row["environment"]), WAYS.index(row["way"]), row["count"]

    return [value for _, value in sorted({key(row): row for row in [*old, *new]}.items())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn, at least")
    parser.add_argument("--only", choices=CASES, nargs="*", default=CASES)
    parser.add_argument("--ways", choices=WAYS, nargs="*", default=WAYS)
    parser.add_argument("--counts", type=int, choices=COUNTS, nargs="*", default=COUNTS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    from dreamer_agent.training.run_directory import provenance

    for id in args.only:
        if not all(importlib.util.find_spec(module) for module in LIBRARIES[id.partition(":")[0]].modules):
            continue
        for count in args.counts:
            for way in args.ways:
                row = row_of(id, count, way, measured(id, count, way, args.rounds, args.seconds))
                print(json.dumps(row), flush=True)
                old = json.loads(args.out.read_text())["results"] if args.out.is_file() else []
                content = {
                    "command": "taskset -c 0 python -m benchmarks.libraries",
                    "rounds": args.rounds,
                    "seconds": args.seconds,
                    "provenance": provenance(),
                    "results": joined(old, [row]),
                }
                args.out.write_text(json.dumps(content, indent=1) + "\n")
    if args.out.is_file():
        print("\n".join(table(json.loads(args.out.read_text())["results"])))


if __name__ == "__main__":
    main()
