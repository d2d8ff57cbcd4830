"""Env steps per second: in one process, over several, by actors of Ray, in AsyncVectorEnv, in envpool.

    python -m benchmarks.stepping

Random actions, no policy and no learning. The contenders of a line are open at the same time and take turns; each
has the same environments (envpool its own), seeds and adapter. "wait" environments sleep in a step, as one does
whose simulator is elsewhere; "busy" ones take that much time of a core. Ray and envpool are left out where they
are not installed. The core time of a step, of all processes together, tells what a contender costs whatever else
runs on the machine. Results go to benchmarks/results/stepping.json.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import make_env
from dreamer_agent.envs.checked import CheckedEnv
from dreamer_agent.envs.gymnasium_adapter import GymnasiumEnv

RESULTS = Path(__file__).parent / "results" / "stepping.json"
HERE, SPREAD, APART, PEER, POOL = "processes=0", "processes=2", "one for each", "AsyncVectorEnv", "envpool"
ACTORS = "Ray, one for each"
SIMULATORS = ("mujoco", "ale-py", "envpool", "ray")
POOLED = ("CartPole-v1", "HalfCheetah-v5")  # what envpool has as well, under the same name
CASES = {  # name -> env.id, env.kwargs, numbers of environments
    "CartPole-v1": ("CartPole-v1", {}, (1, 4, 8, 16)),
    "HalfCheetah-v5": ("HalfCheetah-v5", {}, (1, 4, 8, 16)),
    "atari:pong": ("atari:pong", {}, (1, 4, 8, 16)),
    **{
        f"{kind} {ms} ms": ("benchmarks.stepping:Slow", {"milliseconds": ms, "busy": kind == "busy"}, (1, 4, 8))
        for kind in ("busy", "wait")
        for ms in (5, 20)
    },
}


class Slow(gym.Env):
    """An image of 64x64 random pixels, a step of which takes time: of a core (`busy`), or asleep."""

    observation_space = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gym.spaces.Discrete(4)

    def __init__(self, milliseconds: float, busy: bool):
        self.seconds, self.busy = milliseconds / 1e3, busy

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        start = time.thread_time()
        while self.busy and time.thread_time() - start < self.seconds:
            pass
        if not self.busy:
            time.sleep(self.seconds)
        self.time += 1
        return self.observe(), 0.0, False, self.time == 100, {}

    def observe(self) -> np.ndarray:
        return self.np_random.integers(0, 256, (64, 64, 3), np.uint8)


class Contender:
    """Environments that are open, with actions for them."""

    def __init__(self, make: Callable[[], Any]):
        start, before = time.perf_counter(), descendants()
        self.env = make()
        self.env.reset(0)
        self.start = time.perf_counter() - start
        self.processes = descendants() - before
        rng, count = np.random.default_rng(0), self.env.num_envs
        self.actions = [
            {
                key: rng.integers(0, spec.classes, (count, *spec.shape), np.int32)
                if spec.kind == "discrete"
                else rng.uniform(-1, 1, (count, *spec.shape)).astype(np.float32)
                for key, spec in self.env.act_specs.items()
            }
            for _ in range(64)
        ]
        self.step(3)

    def step(self, calls: int) -> None:
        for call in range(calls):
            self.env.step(self.actions[call % len(self.actions)])

    def measure(self, seconds: float) -> tuple[float, float]:
        """Env steps per second, over at least two calls, and core seconds of an env step."""
        calls, start, core = 0, time.perf_counter(), core_seconds(self.processes)
        while calls < 2 or time.perf_counter() - start < seconds:
            self.step(1)
            calls += 1
        steps = calls * self.env.num_envs
        taken = time.perf_counter() - start
        return steps / taken, (core_seconds(self.processes) - core) / steps


def descendants() -> set[int]:
    """The processes that this one has started, and theirs; none are known without /proc."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
    found: set[int] = set()
    newer = {os.getpid()}
    while newer:
        newer = {pid for pid, parent in parents.items() if parent in newer}
        found |= newer
    return found


def core_seconds(processes: set[int]) -> float:
    """Core time of this process and of `processes`, all threads together."""
    stats = [path for pid in processes for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return time.process_time() + sum(int(path.read_text().split()[0]) for path in stats) / 1e9


def contenders_of(id: str, kwargs: dict[str, Any], count: int) -> dict[str, Contender]:
    def ours(processes: int, ray: str = "") -> Contender:
        config = EnvConfig(id=id, kwargs=kwargs, num_envs=count, processes=processes, ray=ray)
        return Contender(lambda: make_env(config))

    def single() -> gym.Env:
        (env,) = make_env(EnvConfig(id=id, kwargs=kwargs, num_envs=1)).env.envs  # type: ignore[attr-defined]
        assert isinstance(env, CheckedEnv)
        return env

    # By default it would fork, which is not safe beside threads.
    peer = Contender(lambda: GymnasiumEnv(gym.vector.AsyncVectorEnv([single] * count, context="spawn")))
    spread = {SPREAD: ours(2)} if count > 2 else {}
    contenders = {HERE: ours(0), **spread, APART: ours(count), PEER: peer}
    if importlib.util.find_spec("ray"):
        contenders[ACTORS] = ours(count, "local")
    if id in POOLED and importlib.util.find_spec("envpool"):
        contenders[POOL] = Contender(lambda: make_env(EnvConfig(id=f"envpool:{id}", num_envs=count)))
    return contenders


def measured(name: str, count: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Medians of the contenders in turns, and the range of their ratios to the first."""
    id, kwargs, _ = CASES[name]
    contenders = contenders_of(id, kwargs, count)
    turns = np.array([[one.measure(seconds) for one in contenders.values()] for _ in range(rounds)])
    rates, cores = turns[..., 0], turns[..., 1]
    ratios = rates / rates[:, :1]
    row: dict[str, Any] = {"environment": name, "count": count, "contenders": {}}
    for index, (which, one) in enumerate(contenders.items()):
        row["contenders"][which] = {
            "steps_per_second": round(float(np.median(rates[:, index])), 1),
            "ratio": [round(float(x), 2) for x in (f(ratios[:, index]) for f in (np.median, np.min, np.max))],
            "core_ms": round(1e3 * float(np.median(cores[:, index])), 3),
            "seconds_to_start": round(one.start, 2),
        }
        one.env.close()
    return row


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Steps per second of the first contender, how many times as many the others make, and all core times."""
    lines = [f"| environment | of them | {HERE} | {SPREAD} | {APART} | {ACTORS} | {PEER} | {POOL} |"]
    lines.append(f"|{'---|' * 8}")
    for row in rows:
        given = row["contenders"]
        cells = [f"{given[HERE]['steps_per_second']:,.0f}; {given[HERE]['core_ms']:.3g} ms"]
        for which in (SPREAD, APART, ACTORS, PEER, POOL):
            one = given.get(which)
            middle, low, high = one["ratio"] if one else (0, 0, 0)
            shown = f"{middle:.2f} ({low:.2f} to {high:.2f}); {one['core_ms']:.3g} ms" if one else ""
            cells.append(shown)
        lines.append(f"| {row['environment']} | {row['count']} | {' | '.join(cells)} |")
    return lines


def version_of(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.1, help="of each turn")
    parser.add_argument("--only", choices=sorted(CASES), nargs="*", default=list(CASES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    load, start, rows = os.getloadavg(), time.perf_counter(), []
    for name in args.only:
        for count in CASES[name][2]:
            rows.append(measured(name, count, args.rounds, args.seconds))
            print(json.dumps(rows[-1]), flush=True)
    taken = time.perf_counter() - start
    from dreamer_agent.training.run_directory import provenance

    content: dict[str, Any] = {
        "command": "python -m benchmarks.stepping",
        "rounds": args.rounds,
        "seconds": args.seconds,
        "minutes": round(taken / 60, 1),
        "load_before": [round(x, 2) for x in load],
        "provenance": provenance(),
        "simulators": {name: version for name in SIMULATORS if (version := version_of(name))},
        "results": rows,
    }
    args.out.write_text(json.dumps(content, indent=1) + "\n")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
