"""Learning curves: mean over runs of one label, with the range over its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from dreamer_agent.plots.style import SERIES, figure, save

Curve = tuple[np.ndarray, np.ndarray]  # env steps, values
Groups = Mapping[str, Sequence[Curve]]  # label -> the curves of its runs
THIN, SHADE = 0.7, 0.15  # width of the line of a single run, opacity of a band
LONG = 55  # letters of a label that leave no room for one beside it
WIDEST = 95  # letters of a line of it, so that it does not run into the next panel
MOST = 2000  # points of the axis that several runs share
STYLES = ("-", "--", ":", "-.")  # of lines, where there are more than colours


def curve(rows: Sequence[Mapping[str, float]], key: str = "episode/return") -> Curve:
    """Env steps and values of the metric `key` where it was logged."""
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.array(steps, float), np.array(values, float)


def band(curves: Sequence[Curve], most: int = MOST) -> tuple[np.ndarray, np.ndarray]:
    """Curves of several runs on one axis: env steps `[P]` and values `[runs, P]`, with P at most `most`.

    The axis covers only the steps that every run reached: a run that is behind shortens it for all. It has each
    step there at which any of them was logged, so that none is missed; of more than `most` only as many, evenly
    by their number. Between its own logged points a curve is interpolated.
    """
    filled = [c for c in curves if len(c[0])]
    if not filled:
        return np.zeros(0), np.zeros((0, 0))
    low = max(steps[0] for steps, _ in filled)
    high = min(steps[-1] for steps, _ in filled)
    logged = np.unique(np.concatenate([steps for steps, _ in filled]))
    axis = logged[(logged >= low) & (logged <= max(high, low))]
    if len(axis) > most:
        axis = axis[np.linspace(0, len(axis) - 1, most).round().astype(int)]
    return axis, np.stack([np.interp(axis, steps, values) for steps, values in filled])


def draw_curves(groups: Groups, path: Path, title: str, goal: float | None = None) -> None:
    """One line for each label (mean over its runs), the range over runs shaded, each run as a thin line."""
    draw_panels({title: groups}, path, goal)


def draw_panels(
    panels: Mapping[str, Groups], path: Path, goal: float | None = None, label: str = "env steps"
) -> None:
    """A panel as of `draw_curves` for each title: returns of different environments share no axis."""
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    fig = figure(7.0 * columns, 4.8 * rows)
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, groups) in zip(axes, panels.items(), strict=False):
        _draw_panel(axis, title, groups, goal, label)
    for axis in axes[len(panels) :]:
        axis.axis("off")
    save(fig, path)


def _draw_panel(axis: Any, title: str, groups: Groups, goal: float | None, label: str) -> None:
    filled = {label: [c for c in curves if len(c[0])] for label, curves in groups.items()}
    looks = cycle((color, style) for style in STYLES for color in SERIES)
    for (name, curves), (color, style) in zip(filled.items(), looks, strict=False):
        draw_group(axis, name, curves, color, style)
    if not axis.lines:
        axis.text(0.5, 0.5, "no episode has ended yet", ha="center", va="center", transform=axis.transAxes)
    if any(len(curves) > 1 for curves in filled.values()):
        axis.plot([], [], color="grey", lw=THIN, label="thin lines: each run")
        axis.fill_between([], [], color="grey", alpha=SHADE, lw=0, label="shaded: lowest to highest run")
    if goal is not None:
        axis.axhline(goal, color="grey", ls=":", label=f"goal: {goal:,g}")
    axis.set(xlabel=label, ylabel="return of training episodes", title=f"{title}: learning curve")
    axis.xaxis.set_major_formatter(number)
    axis.yaxis.set_major_formatter(number)
    axis.grid(alpha=0.25)
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        # Below the axes, where no curve can run into it.
        columns = 1 if max(map(len, labels)) > LONG else 2
        axis.legend(
            handles, [fill(label, WIDEST) for label in labels], fontsize=8, loc="upper center",
            bbox_to_anchor=(0.5, -0.14), ncols=columns, frameon=False,
        )  # fmt: skip


def draw_group(axis: Any, label: str, curves: Sequence[Curve], color: str, style: str = "-") -> None:
    """One run is one line; several are thin lines, their mean and the band between lowest and highest."""
    if not curves:
        return
    if len(curves) == 1:
        axis.plot(*curves[0], color=color, ls=style, label=f"{label}: 1 run")
        return
    steps, values = band(curves)
    for own_steps, own_values in curves:
        axis.plot(own_steps, own_values, color=color, lw=THIN, alpha=0.55)
    common = "mean of" if steps[0] < steps[-1] else "no env steps are common to"
    axis.fill_between(steps, values.min(0), values.max(0), color=color, alpha=SHADE, lw=0)
    axis.plot(steps, values.mean(0), color=color, ls=style, lw=2.0, label=f"{label}: {common} {len(curves)} runs")


def number(value: float, _: Any = None) -> str:
    """Ticks with thousands separators and no needless zeros."""
    return f"{value:,.10g}"
