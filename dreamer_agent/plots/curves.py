"""Learning curves: mean over runs of one label, with the range over its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dreamer_agent.plots.style import SERIES, figure, save

Curve = tuple[np.ndarray, np.ndarray]  # env steps, values


def curve(rows: Sequence[Mapping[str, float]], key: str = "episode/return") -> Curve:
    """Env steps and values of the metric `key` where it was logged."""
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.array(steps, float), np.array(values, float)


def band(curves: Sequence[Curve], points: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Curves of several runs on one axis: env steps `[P]` and values `[runs, P]`.

    The axis covers the steps that every run reached; between logged points values are interpolated.
    """
    filled = [c for c in curves if len(c[0])]
    if not filled:
        return np.zeros(0), np.zeros((0, 0))
    low = max(steps[0] for steps, _ in filled)
    high = min(steps[-1] for steps, _ in filled)
    axis = np.linspace(low, max(high, low), points)
    return axis, np.stack([np.interp(axis, steps, values) for steps, values in filled])


def draw_curves(groups: Mapping[str, Sequence[Curve]], path: Path, title: str, goal: float | None = None) -> None:
    """One line for each label (mean over its runs), the range over runs shaded."""
    fig = figure(7.0, 4.2)
    axis = fig.subplots()
    for index, (label, curves) in enumerate(groups.items()):
        color = SERIES[index % len(SERIES)]
        steps, values = band(curves)
        if not len(steps):
            continue
        name = f"{label} (mean and range of {len(values)} runs)" if len(values) > 1 else label
        axis.plot(steps, values.mean(0), color=color, label=name)
        axis.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.18, lw=0)
    if goal is not None:
        axis.axhline(goal, color="grey", ls=":", label=f"goal {goal:g}")
    axis.set(xlabel="env steps", ylabel="return of training episodes", title=title)
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=9)
    save(fig, path)
