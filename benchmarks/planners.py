"""Planners on exact models: what do they reach, and how long does a decision take?

    python -m benchmarks.planners

The pendulum: mean return of ten episodes of 200 steps, planned anew at each. A maze of two rooms: share of
episodes that arrive, with the critic of a policy that never does. Milliseconds are those of a step for all ten
pendulums, or all mazes, at once. Results go to benchmarks/results/planners.json and planners.png.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.exact import maze, pendulum
from dreamer_agent.planning import CEM, MPPI, GradientPlanner, RandomShooting, TreeSearch
from dreamer_agent.training.run_directory import provenance

RESULTS = Path(__file__).parent / "results" / "planners.json"
NOISES = 5


def timed(name: str, goal: str, steps: int, run: Callable[[], Any]) -> dict[str, Any]:
    """A row: what `run` gives (episodes' returns, or one share), and the time of one of its `steps`."""
    run()  # compiles
    start = time.perf_counter()
    found = np.atleast_1d(run())
    row = {"name": name, "goal": goal, "mean": float(found.mean())}
    row |= {"min": float(found.min()), "max": float(found.max())} if len(found) > 1 else {}
    row["ms"] = 1e3 * (time.perf_counter() - start) / steps
    print(f"{name:44} {row['mean']:9.2f}   goal {goal:10} {row['ms']:8.2f} ms", flush=True)
    return row


def pendulums() -> list[dict[str, Any]]:
    plain, value = pendulum.model(), pendulum.exact_value()
    valued = pendulum.model(value)

    def row(name: str, goal: str, planner: Any, model: Any = plain) -> dict[str, Any]:
        return timed(name, goal, pendulum.STEPS, pendulum.episodes(planner, model))

    rows = [
        row("random actions", "<= -1000", pendulum.Unplanned()),
        row("shooting, 128 samples", ">= -400", RandomShooting(128, 30)),
        row("CEM, 64 samples x 4", ">= -200", CEM(64, 4)),
        row("MPPI, 64 samples x 4", ">= -200", MPPI(64, 4)),
        row("gradient, 16 candidates x 20", ">= -230", GradientPlanner()),
        row("CEM, horizon 5", "<= -700", CEM(64, 4, horizon=5)),
        row("CEM, horizon 5, exact value at the end", ">= -200", CEM(64, 4, horizon=5), valued),
        row("tree, 16 simulations, 8 actions, exact value", "", TreeSearch(16, 8), valued),
    ]
    for horizon in (1, 3):
        models = [pendulum.model(pendulum.noisy(value, seed)) for seed in range(NOISES)]
        planner = CEM(64, 4, horizon=horizon)
        runs = [pendulum.episodes(planner, model) for model in models]

        def all_noises(runs: Any = runs) -> np.ndarray:
            return np.concatenate([run() for run in runs])

        goal = "better than horizon 1" if horizon > 1 else ""
        name = f"CEM, horizon {horizon}, value with 30% noise"
        rows.append(timed(name, goal, NOISES * pendulum.STEPS, all_noises))
        rows[-1]["by_noise"] = [float(run().mean()) for run in runs]
    return rows


def mazes() -> list[dict[str, Any]]:
    good, wrong = maze.model(maze.critic()), maze.model(-maze.critic())
    return [
        timed(name, goal, maze.LIMIT, maze.arrivals(planner, model))
        for name, goal, planner, model in (
            ("policy alone", "<= 0.05", maze.Unplanned(), good),
            ("tree, 16 simulations", ">= 0.95", TreeSearch(16), good),
            ("tree, 16 simulations, wrong critic", "", TreeSearch(16), wrong),
            ("tree, 64 simulations, wrong critic", "", TreeSearch(64), wrong),
        )
    ]


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Mean returns on the pendulum, with the range over episodes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.4 * len(rows) + 1), layout="constrained")
    for place, row in enumerate(reversed(rows)):
        axes.plot([row["min"], row["max"]], [place, place], color="0.7")
        axes.plot(row["mean"], place, "o", color="C0")
    axes.set_yticks(range(len(rows)), [row["name"] for row in reversed(rows)])
    axes.set_xlabel("return of 200 steps: mean and range over episodes")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    content = {"pendulum": pendulums(), "maze": mazes(), "command": "python -m benchmarks.planners"}
    RESULTS.write_text(json.dumps(content | {"provenance": provenance()}, indent=1) + "\n")
    draw(content["pendulum"], RESULTS.with_suffix(".png"))
    print(f"written to {RESULTS.name} and {RESULTS.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
