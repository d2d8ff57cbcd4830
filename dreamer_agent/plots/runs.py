"""Figures of runs on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dreamer_agent.api import dream_run, run_config, run_metrics
from dreamer_agent.plots.curves import Curve, curve, draw_curves
from dreamer_agent.plots.dream import draw_images, draw_vectors


def plot_runs(runs: Sequence[str | Path], path: str | Path, goal: float | None = None) -> Path:
    """Learning curves of `runs` in one PNG; runs of one environment are drawn as one band."""
    groups: dict[str, list[Curve]] = {}
    for run in runs:
        groups.setdefault(run_config(run).env.id, []).append(curve(run_metrics(run)))
    draw_curves(groups, Path(path), "Learning curve", goal)
    return Path(path)


def plot_dream(run: str | Path, length: int = 50, sequences: int = 3) -> list[Path]:
    """Draw what the world model of `run` imagines beside what happened; gives the pictures' paths."""
    dream = dream_run(run, length, sequences)
    folder, paths = Path(run) / "dreams", []
    for key, spec in dream.specs.items():
        if spec.kind == "image":
            paths.append(folder / f"open_loop_{key.replace('/', '_')}.png")
            draw_images(dream, key, paths[-1], sequences)
    paths.append(folder / "open_loop.png")
    draw_vectors(dream, paths[-1])
    return paths
