"""Does it learn? Trains a task over seeds and scores the final checkpoint of each on fresh episodes.

    python benchmarks/learning.py cartpole --seeds 0 1 2
    python benchmarks/learning.py gymnax_device --seeds --beside gymnax

A run that was interrupted resumes; a finished one is scored again. Results are merged by seed into
benchmarks/results/learning_TASK.json, with a learning curve beside it. The score is that of the final
parameters on episodes whose seeds training never saw, never the best one on the way. `--beside` draws the curves
of another task, which has results, into one picture with it, and compares the mean return over training.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.stats

import dreamer_agent
from dreamer_agent.config import load_config
from dreamer_agent.plots import curve, draw_curves
from dreamer_agent.training.run_directory import provenance

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Task:
    """An environment, the preset it is trained with, and the mean return that is its goal."""

    env: str
    preset: str
    steps: int
    goal: float
    overrides: tuple[str, ...] = ()


TASKS = {
    "cartpole": Task("CartPole-v1", "classic", 12_000, 475),
    "pendulum": Task("Pendulum-v1", "pendulum", 7_500, -200),
    "catch": Task("toy:catch", "pixels", 12_000, 2.5),
    "minigrid": Task("minigrid:MiniGrid-Empty-5x5-v0", "pixels", 12_000, 0.9),
    "gymnax": Task("gymnax:CartPole-v1", "classic", 12_000, 475),
    "gymnax_device": Task("gymnax:CartPole-v1", "classic", 12_000, 475, ("train.loop=device",)),
}


def train_and_score(task: Task, seed: int, folder: Path, episodes: int, overrides: list[str]) -> dict:
    settings = [f"env.id={task.env}", f"train.steps={task.steps}", f"seed={seed}"]
    config = load_config([task.preset], [*settings, *task.overrides, *overrides])
    start = time.monotonic()
    dreamer_agent.train(config, folder)
    minutes = (time.monotonic() - start) / 60
    timing = folder / "minutes.json"  # the first, uninterrupted training counts, not a later scoring
    if not timing.exists():
        timing.write_text(json.dumps(minutes))
    scores = [dreamer_agent.evaluate_run(folder, episodes, explore).summary() for explore in (True, False)]
    trained = json.loads((folder / "evaluation.json").read_text())
    return {
        "seed": seed,
        "env_steps": trained["env_steps"],
        "updates": trained["updates"],
        "minutes": json.loads(timing.read_text()),
        "scores": scores,
        "commit": json.loads((folder / "provenance.json").read_text())["commit"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--runs", type=Path, default=Path("runs/learning"))
    parser.add_argument("--beside", choices=TASKS)
    parser.add_argument("overrides", nargs="*", help="key=value, written into the result")
    args = parser.parse_intermixed_args()
    task = TASKS[args.task]
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"learning_{args.task}.json"
    for seed in args.seeds:
        run = args.runs / f"{args.task}-{seed}"
        result = train_and_score(task, seed, run, args.episodes, args.overrides)
        result["curve"] = [points.tolist() for points in curve(dreamer_agent.run_metrics(run))]
        merge_result(path, args.task, task, result, args.overrides)
    draw(path)
    if args.beside:
        compare([args.beside, args.task])


def merge_result(path: Path, name: str, task: Task, result: dict, overrides: list[str]) -> None:
    """Add or replace the result of one seed; results with other overrides are not mixed with it, but dropped."""
    old = json.loads(path.read_text()) if path.exists() else {}
    settings = [*task.overrides, *overrides]
    if old.get("overrides", []) != settings:
        old = {}
    seeds = [entry for entry in old.get("seeds", []) if entry["seed"] != result["seed"]] + [result]
    seeds.sort(key=lambda entry: entry["seed"])
    command = " ".join(
        ["python benchmarks/learning.py", name, "--seeds", *(str(s["seed"]) for s in seeds), *overrides]
    )
    content = {
        "command": command,
        **vars(task),
        "overrides": settings,
        "provenance": provenance(),
        "seeds": seeds,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def draw(path: Path) -> None:
    content = json.loads(path.read_text())
    curves = [tuple(entry["curve"]) for entry in content["seeds"]]
    draw_curves({content["env"]: curves}, path.with_suffix(".png"), f"{content['env']}", content["goal"])
    for entry in content["seeds"]:
        sampled, mode = entry["scores"]
        print(
            f"seed {entry['seed']}: sampled {sampled['return_mean']:.1f} ± {sampled['return_std']:.1f}, "
            f"mode {mode['return_mean']:.1f} ± {mode['return_std']:.1f} over {sampled['episodes']} episodes; "
            f"{entry['env_steps']:,} env steps in {entry['minutes']:.1f} minutes"
        )


def compare(names: list[str]) -> None:
    """Draw the curves of tasks in one picture, and print the mean return over training with its 95% interval."""
    contents = {name: json.loads((RESULTS / f"learning_{name}.json").read_text()) for name in names}
    groups = {
        ", ".join(content["overrides"]) or name: [tuple(entry["curve"]) for entry in content["seeds"]]
        for name, content in contents.items()
    }
    first = contents[names[0]]
    draw_curves(groups, RESULTS / f"learning_{'_beside_'.join(names)}.png", first["env"], first["goal"])
    steps = np.linspace(0, first["steps"], 200)
    for name, curves in groups.items():
        means = np.array([np.interp(steps, *each).mean() for each in curves])
        reach = scipy.stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / len(means) ** 0.5
        each = ", ".join(f"{mean:.0f}" for mean in means)
        print(f"{name}: mean return over training {means.mean():.0f} ± {reach:.0f} (seeds: {each})")


if __name__ == "__main__":
    main()
