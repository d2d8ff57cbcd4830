"""Plan2Explore on tasks whose reward nobody stumbles upon: what the task's policy learns, and what was seen.

    python -m benchmarks.exploring rooms --seeds 0 1 2

Three ways at equal env steps and as many updates, scored by fresh episodes of the task's policy, sampled:
`policy` collects by itself as ever; `explorer` never lets it act in training (zero-shot); `explorer, then policy`
lets it act for the last fifth (few-shot). Runs that were cut short go on, finished ones are not repeated (in
runs/exploring). Results go to benchmarks/results/exploring.json and exploring.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import dreamer_agent
from dreamer_agent.api.dreaming import saved_replay
from dreamer_agent.api.runs import load_saved
from dreamer_agent.config import load_config
from dreamer_agent.plots.style import SERIES, figure, save
from dreamer_agent.training.metrics import read_metrics
from dreamer_agent.training.run_directory import provenance

RESULTS = Path(__file__).parent / "results" / "exploring.json"
EPISODES = 100  # of a final score
WAYS = {"policy": None, "explorer": 1.0, "explorer, then policy": 0.8}  # share of the steps that it collects


class Task(NamedTuple):
    """An environment, and `preset` and `values` of its runs."""

    env: str
    preset: str
    steps: int
    values: tuple[str, ...]


FAR = "env.kwargs={start: [10, 4], goal: [10, 6], time_limit: 100}"  # 28 steps, through all three doors
TASKS = {"rooms": Task("toy:rooms", "classic", 26_000, (FAR, "replay.ratio=64", "train.eval_every=2000"))}


def learned(task: str, way: str, seed: int, folder: Path) -> dict[str, Any]:
    """One run: its curve of evaluations on the way, its final scores, and how much of the task it has seen."""
    about, share = TASKS[task], WAYS[way]
    settings = [f"env.id={about.env}", f"train.steps={about.steps}", f"seed={seed}", *about.values]
    if share is not None:
        settings += ["model.ensemble=8", f"behaviour.explore_steps={int(share * about.steps)}"]
    config = load_config([about.preset], [*settings, f"train.eval_episodes={EPISODES}", "train.eval_envs=20"])
    dreamer_agent.train(config, folder)
    rows = read_metrics(folder)
    points = [(row["step"], row["evaluation/return_mean"]) for row in rows if "evaluation/return_mean" in row]
    doubts = [(row["step"], row["explorer/doubt"]) for row in rows if row.get("explorer/doubt") is not None]
    return {
        "task": task, "way": way, "seed": seed, "steps": about.steps, "curve": points, "doubt": doubts,
        "scores": json.loads((folder / "evaluation.json").read_text())["scores"],
        "seen": seen(folder), "provenance": provenance(),
    }  # fmt: skip


def seen(folder: Path) -> dict[str, float]:
    """Of the replay: how many different observations there are, the best reward, and how many episodes ended."""
    saved = load_saved(folder)
    replay = saved_replay(folder, saved)
    assert replay is not None
    held = np.arange(replay.length) < replay.added[:, None]
    obs = [replay.data["obs"][name][held].reshape(held.sum(), -1) for name in saved.agent.model.obs_specs]
    different = np.unique(np.concatenate(obs, 1), axis=0)
    reward, ends = replay.data["reward"][held], replay.data["is_terminal"][held].sum()
    return {"observations": float(len(different)), "best": float(reward.max()), "ends": float(ends)}


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """A panel for each task: the policy's return over env steps, each seed thin, their mean thick."""
    tasks = [name for name in TASKS if any(run["task"] == name for run in runs)]
    fig = figure(5.0 * len(tasks), 3.6)
    for axis, name in zip(fig.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for colour, way in zip(SERIES, WAYS, strict=False):
            own = [run for run in runs if run["task"] == name and run["way"] == way]
            for run in own:
                axis.plot(*np.array(run["curve"]).T, color=colour, linewidth=0.7, alpha=0.5)
            if own:
                steps, returns = np.array([run["curve"] for run in own]).mean(0).T
                axis.plot(steps, returns, color=colour, linewidth=2.2, label=f"{way} ({len(own)} seeds)")
        axis.set(title=name, xlabel="env steps", ylabel="return of the policy, sampled")
        axis.legend(frameon=False, title="collected by", alignment="left")
        axis.grid(alpha=0.3)
    save(fig, path)


def markdown(runs: list[dict[str, Any]]) -> str:
    """Final scores by task and way, one number for each seed."""
    lines = ["| task | collected by | return, sampled | return, mode | different observations | ends reached |"]
    lines.append("|" + "---|" * 6)
    for task, way in dict.fromkeys((run["task"], run["way"]) for run in runs):
        own = sorted(
            (run for run in runs if (run["task"], run["way"]) == (task, way)), key=lambda run: run["seed"]
        )
        told = [
            " / ".join(f"{number:.3g}" for number in numbers)
            for numbers in (
                [run["scores"][0]["return_mean"] for run in own],
                [run["scores"][1]["return_mean"] for run in own],
                [run["seen"]["observations"] for run in own],
                [run["seen"]["ends"] for run in own],
            )
        ]
        lines.append(f"| {task}, {own[0]['steps']:,} env steps | {way} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, []], help="By default only draw and print.")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--runs", type=Path, default=Path("runs/exploring"))
    asked = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for seed in asked.seeds:
        for task in asked.tasks:
            for way in asked.ways:
                name = f"{task}-{way}-{seed}".replace(", ", "_").replace(" ", "_")
                results[name] = learned(task, way, seed, asked.runs / name)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    runs = list(results.values())
    if not runs:
        parser.error("there are no results yet: name a task")
    draw(runs, RESULTS.with_suffix(".png"))
    print(markdown(runs))


if __name__ == "__main__":
    main()
