"""Launchers of sweeps: do killed workers go on to the same result, and what does a run cost beside its training?

    python -m benchmarks.launchers kills
    python -m benchmarks.launchers times

"kills": two seeds of CartPole with each launcher that is installed, once undisturbed and once with a worker that
is killed (SIGKILL) after its first checkpoint; then every array of the last checkpoints and every row of metrics
is compared. "times": eight seeds of gymnax CartPole, 2,000 env steps each, as one program, as processes two at a
time, one after another, and by `dreamer-agent train` in a loop; programs are compiled before. Results go to
benchmarks/results/launchers.json, one part after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.reliability.kill import differences
from dreamer_agent.sweeps.command import runs_of
from dreamer_agent.sweeps.sweep import load_sweep
from dreamer_agent.training.metrics import read_metrics
from dreamer_agent.training.run_directory import provenance

RESULTS = Path(__file__).parent / "results" / "launchers.json"
LAUNCHERS = {  # name -> the package that it needs, arguments
    "local": ("rich", ["--jobs", "2"]),
    "vmap": ("rich", []),
    "slurm": ("submitit", ["--job", "cluster=local", "--job", "timeout_min=20"]),
    "ray": ("ray", []),
}
SHORT = {
    "train.steps": 1500, "train.checkpoint_every": 200, "train.log_every": 100, "train.eval_episodes": 4,
    "replay.prefill": 200, "replay.ratio": 32,
}  # fmt: skip
EIGHT = {"train.steps": 2000, "train.eval_episodes": 8}
ENV = "gymnax:CartPole-v1"
COMMAND = [sys.executable, "-m", "dreamer_agent"]


def sweep_file(folder: Path, seeds: int, values: dict[str, Any], env: str) -> Path:
    path = folder / "sweep.yaml"
    content = {"base": "classic", "values": {"env.id": env, **values}, "axes": [], "seeds": seeds}
    path.write_text(yaml.safe_dump(content))
    return path


def sweep(path: Path, out: Path, launcher: str, *arguments: str) -> list[str]:
    return [*COMMAND, "sweep", str(path), "--out", str(out), "--launcher", launcher, *arguments]


def workers(out: Path) -> list[psutil.Process]:
    """The processes that train runs below `out`, whoever started them."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "dreamer_agent.sweeps.runs" in line and any(str(out) in part for part in line):
            found.append(process)
    return found


def killed(command: list[str], out: Path) -> tuple[int, int, str]:
    """Exit code, number of workers that were killed, and what the command said."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        count = 0
        while process.poll() is None and not count:
            time.sleep(0.05)
            if list(out.glob("*/checkpoints/*/commit.json")):
                for worker in workers(out)[:1]:
                    with contextlib.suppress(psutil.Error):
                        worker.kill()
                        count += 1
        code = process.wait()
        said.seek(0)
        return code, count, said.read()


def kills(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for launcher, (package, arguments) in LAUNCHERS.items():
        if importlib.util.find_spec(package) is None:
            print(f"{launcher}: {package} is not installed")
            continue
        own = folder / launcher
        own.mkdir()
        path = sweep_file(own, 2, SHORT, ENV if launcher == "vmap" else "CartPole-v1")
        code = subprocess.run(sweep(path, own / "left", launcher, *arguments), capture_output=True).returncode
        again, count, said = killed(sweep(path, own / "killed", launcher, *arguments), own / "killed")
        pairs = zip(*(runs_of(load_sweep(path), own / name) for name in ("left", "killed")), strict=True)
        unequal = [text for one, other in pairs for text in differences(one.folder, other.folder)]
        rows.append({"launcher": launcher, "started": code == 0, "killed": count})
        rows[-1] |= {"resumed": again == 0 and "it goes on" in said, "equal": not unequal}
        rows[-1] |= {"unequal": unequal[:5]} if unequal else {}
        print(json.dumps(rows[-1]), flush=True)
        if not rows[-1]["resumed"]:
            print(said[-2000:])
    return rows


def trained(folders: list[Path]) -> float:
    """Seconds in which runs made env steps, as their metrics tell."""
    total = 0.0
    for folder in folders:
        before = 0
        for row in read_metrics(folder):
            if row.get("time/env_steps_per_s"):
                total += (row["step"] - before) / row["time/env_steps_per_s"]
                before = row["step"]
    return total


def timed(commands: list[list[str]]) -> float:
    start = time.monotonic()
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - start


def times(folder: Path) -> list[dict[str, Any]]:
    path, rows = sweep_file(folder, 8, EIGHT, ENV), []
    few = ["train.steps=1100"]  # a little more than the prefill, so that everything is compiled
    for launcher in ("vmap", "local"):
        timed([sweep(path, folder / f"compiled-{launcher}", launcher, "--jobs", "2", *few)])
    values = [f"{key}={value}" for key, value in EIGHT.items() if key != "train.steps"]
    loop = [
        [*COMMAND, "train", ENV, "--preset", "classic", "--steps", "2000", "--seed", str(seed), *values,
         "--run", str(folder / "loop" / str(seed))]
        for seed in range(8)
    ]  # fmt: skip
    for name, commands in {
        "one program (vmap)": [sweep(path, folder / "vmap", "vmap", "--together", "8")],
        "processes, two at a time": [sweep(path, folder / "two", "local", "--jobs", "2")],
        "processes, one after another": [sweep(path, folder / "one", "local", "--jobs", "1")],
        "`dreamer-agent train` in a loop": loop,
    }.items():
        seconds = timed(commands)
        out = folder / ("loop" if commands is loop else commands[0][commands[0].index("--out") + 1])
        runs = sorted(file.parent for file in out.glob("*/metrics.jsonl"))
        rows.append({"how": name, "seconds": seconds, "training": trained(runs), "runs": len(runs)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["kills", "times"])
    part = parser.parse_args().part
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        rows = (kills if part == "kills" else times)(Path(folder).resolve())
    content[part] = {"rows": rows, "provenance": provenance(), "load": os.getloadavg()}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
