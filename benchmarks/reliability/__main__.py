"""Provokes faults and says what they cost. Long: some minutes for each kind of run.

    python -m benchmarks.reliability kill --kinds classic jax pair mujoco --kills 20
    python -m benchmarks.reliability stop --kinds classic jax_device
    python -m benchmarks.reliability disk          (as root: it mounts a small file system)
    python -m benchmarks.reliability memory --minutes 32
    python -m benchmarks.reliability checkpoint

Results are merged into benchmarks/results/reliability.json by fault and kind. `kill`: a run is killed with
SIGKILL at random moments, inside of checkpoints and with a cold compilation cache too, and compared bit by bit
with one that was left alone. `stop`: the same with SIGTERM and SIGINT. `disk`: the disk is full for a while.
`memory`: of a long run. `checkpoint`: how long one of a replay of a million steps takes.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.reliability.checkpoints import measured
from benchmarks.reliability.kill import (
    Life,
    asked_to_stop,
    differences,
    fork,
    killed,
    killed_half_way,
    undisturbed,
)
from benchmarks.reliability.kinds import CUT, KINDS
from benchmarks.reliability.memory import watched
from dreamer_agent.training.checkpoint import sound
from dreamer_agent.training.run_directory import provenance

RESULTS = Path(__file__).parent.parent / "results" / "reliability.json"


def kill(kind: str, kills: int, folder: Path, rng: random.Random) -> dict[str, Any]:
    """One kind of run, killed `kills` times; where it cannot be captured, two runs forked from one that was."""
    left = folder / "left alone"
    if kind in CUT:
        equal = 0
        for number in range(kills):
            started, copies = folder / f"{number}", [folder / f"{number}-{name}" for name in "ab"]
            killed_half_way(kind, started)
            fork(started, *copies)
            for copy in copies:
                undisturbed(kind, copy)
            found = differences(*copies)
            equal += not found
            print(f"{kind}: fork {number + 1} of {kills}: {found or 'equal'}", flush=True)
        return {"forks": kills, "equal": equal}
    seconds = undisturbed(kind, left)
    done, found, number = [], [], 0
    runs = []
    while len(done) < kills:
        runs.append(folder / f"killed {number}")
        done += killed(kind, runs[-1], min(kills - len(done), 5), seconds, rng)
        found += differences(left, runs[-1])
        print(f"{kind}: after {len(done)} kills: {found or 'equal'}", flush=True)
        number += 1
    where = Counter(each.where for each in done)
    steps = [each.checkpoint for each in done]
    return {"kills": len(done), "runs": len(runs), "where": where, "checkpoints": steps, "differences": found}


def stop(kind: str, folder: Path, rng: random.Random, times: int = 5) -> dict[str, Any]:
    """One kind of run, asked to stop again and again."""
    left, asked = folder / "left alone", folder / "asked"
    seconds = undisturbed(kind, left)
    ends = []
    for number in range(times):
        which = (signal.SIGTERM, signal.SIGINT)[number % 2]
        took, code, said = asked_to_stop(kind, asked, which, seconds / times / 2, rng)
        ends.append({"signal": which.name, "seconds": took, "code": code})
        print(f"{kind}: {ends[-1]} {said}", flush=True)
    undisturbed(kind, asked)
    return {"ends": ends, "differences": differences(left, asked)}


def disk(folder: Path) -> dict[str, Any]:
    """A run on a disk that is full before it ends, and then is made larger."""
    kind, left, small = "classic", folder / "left alone", folder / "small"
    undisturbed(kind, left)
    size = sum(path.stat().st_size for path in left.rglob("*") if path.is_file())
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size // 2}", "tmpfs", str(small)], check=True)
    try:
        life = Life(kind, small / "run", ())
        code = life.end()
        whole = [checkpoint.step for checkpoint in sound(small / "run", with_replay=True)]
        print(f"disk full: code {code}, {life.said[-1].strip()}, whole checkpoints {whole}", flush=True)
        warned = sum("could not be written" in line for line in life.said)
        subprocess.run(["mount", "-o", f"remount,size={size * 4}", str(small)], check=True)
        undisturbed(kind, small / "run")
        found = differences(left, small / "run")
    finally:
        subprocess.run(["umount", str(small)], check=True)
    return {"code": code, "warned": warned, "whole_checkpoints": whole, "differences": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fault", choices=["kill", "stop", "disk", "memory", "checkpoint"])
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rng, start = random.Random(arguments.seed), time.time()
    for kind in arguments.kinds if arguments.fault in ("kill", "stop") else [""]:
        with tempfile.TemporaryDirectory() as folder:
            if arguments.fault == "kill":
                result = kill(kind, arguments.kills, Path(folder), rng)
            elif arguments.fault == "stop":
                result = stop(kind, Path(folder), rng)
            elif arguments.fault == "disk":
                result = disk(Path(folder))
            elif arguments.fault == "checkpoint":
                result = measured("1m", 1_000_000, 32, 10_000, Path(folder))
            else:
                settings = ["replay.capacity=4000", "train.steps=1000000"]
                result = watched("CartPole-v1", "classic", arguments.minutes, Path(folder) / "run", settings)
        keep(arguments.out, f"{arguments.fault} {kind}".strip(), result, start)


def keep(path: Path, name: str, result: dict[str, Any], start: float) -> None:
    """Merge one result into the file."""
    results = json.loads(path.read_text()) if path.exists() else {}
    told = [word for i, word in enumerate(sys.argv) if i and "--out" not in sys.argv[i - 1 : i + 1]]
    command = " ".join(["python -m benchmarks.reliability", *told])
    results[name] = {**result, "command": command, "provenance": provenance()}
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    print(f"{name}: {json.dumps(result)[:300]} ({(time.time() - start) / 60:.1f} min)", flush=True)


if __name__ == "__main__":
    main()
