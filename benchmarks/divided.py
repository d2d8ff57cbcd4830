"""Whole runs on one device, on eight virtual ones, and in two processes: do they learn alike?

    python -m benchmarks.divided --runs runs/divided

CartPole, preset `classic` with eight sequences in a batch, several seeds each. Run directories of an earlier call
go on. Results go to benchmarks/results/divided.json and divided.png.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent.plots.curves import curve, draw_curves
from dreamer_agent.training.metrics import read_metrics
from dreamer_agent.training.run_directory import provenance

RESULTS = Path(__file__).parent / "results"
ENV, GOAL = "CartPole-v1", 475.0
ONE, DEVICES, PROCESSES = "one device", "eight virtual devices", "two processes"
VIRTUAL = "--xla_force_host_platform_device_count=8"


def commands_of(way: str, folder: Path, seed: int, steps: int) -> list[list[str]]:
    """One command, or one for each process."""
    command = [
        sys.executable, "-m", "dreamer_agent", "train", ENV, "--preset", "classic", "--steps", str(steps),
        "--seed", str(seed), "--run", str(folder), "replay.batch_size=8",
    ]  # fmt: skip
    if way == ONE:
        return [command]
    if way == DEVICES:
        return [[*command, "mesh.data=8"]]
    with closing(socket.socket()) as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [[*command, "--distributed", address, "--processes", "2", "--process", str(i)] for i in range(2)]


def train(way: str, folder: Path, seed: int, steps: int) -> None:
    """Raises `RuntimeError` with what it said where a process fails."""
    flags = {"XLA_FLAGS": VIRTUAL} if way == DEVICES else {}
    folder.parent.mkdir(parents=True, exist_ok=True)
    logs = [folder.with_name(f"{folder.name}-{i}.log") for i in range(2)]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, "JAX_PLATFORMS": "cpu", **flags},
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
        )
        for command, log in zip(commands_of(way, folder, seed, steps), logs, strict=False)
    ]
    codes = [process.wait() for process in processes]
    if any(codes):
        raise RuntimeError(f"{way}, seed {seed} ended with {codes}: {logs[0].read_text()[-2000:]}")


def result(folder: Path) -> dict[str, Any]:
    scores = json.loads((folder / "evaluation.json").read_text())["scores"]
    steps, returns = curve(read_metrics(folder))
    early = returns[steps <= steps.max() / 2]
    return {
        "score": next(round(one["return_mean"], 1) for one in scores if one["policy"] == "sample"),
        "first_half": round(float(early.mean()), 1),
        "over_training": round(float(returns.mean()), 1),
        "commit": json.loads((folder / "provenance.json").read_text())["commit"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--runs", type=Path, default=Path("runs/divided"))
    args = parser.parse_args()
    folders = {
        way: [args.runs / way.replace(" ", "_") / str(seed) for seed in range(args.seeds)]
        for way in (ONE, PROCESSES, DEVICES)
    }
    rows = []
    for seed in range(args.seeds):
        for way, own in folders.items():
            if not (own[seed] / "evaluation.json").exists():
                train(way, own[seed], seed, args.steps)
            rows.append({"way": way, "seed": seed, **result(own[seed])})
            print(json.dumps(rows[-1]), flush=True)
    content = {
        "command": f"python -m benchmarks.divided --seeds {args.seeds} --steps {args.steps}",
        "provenance": provenance(),
        "rows": rows,
    }
    (RESULTS / "divided.json").write_text(json.dumps(content, indent=1) + "\n")
    groups = {way: [curve(read_metrics(folder)) for folder in own] for way, own in folders.items()}
    draw_curves(groups, RESULTS / "divided.png", f"{ENV}: one run, divided", GOAL)
    for way in folders:
        of_way = [row for row in rows if row["way"] == way]
        cells = [f"{np.mean([row[key] for row in of_way]):.0f} ({', '.join(f'{row[key]:.0f}' for row in of_way)})"
                 for key in ("first_half", "over_training", "score")]  # fmt: skip
        print(f"| {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
