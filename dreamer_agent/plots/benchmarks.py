"""Figures of a benchmark's report: learning curves beside published ones, and performance profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent.plots.curves import Curve, draw_group, number
from dreamer_agent.plots.style import PUBLISHED, SERIES, figure, save

BEYOND = 2.0  # how many times our frames the axis shows of published curves
COLUMNS = 3


@dataclass(frozen=True)
class Panel:
    """One task: our curves by method, published ones by name, and lines at returns.

    The axis is of training episodes: the name of a published curve says so where it is of something else.
    """

    title: str
    groups: Mapping[str, Sequence[Curve]]
    published: Mapping[str, Curve] = field(default_factory=dict)
    lines: Mapping[str, float] = field(default_factory=dict)
    unit: str = "env steps"
    log: bool = False  # budgets that differ by far share an axis


def draw_benchmark(panels: Sequence[Panel], path: Path) -> None:
    """A panel for each task: mean over seeds with the range over them, published curves dashed."""
    columns = min(len(panels), COLUMNS)
    rows = -(-len(panels) // columns)
    fig = figure(5.4 * columns, 4.4 * rows)
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    groups = dict.fromkeys(label for panel in panels for label in panel.groups)
    others = dict.fromkeys(label for panel in panels for label in panel.published)
    colors = dict(zip(groups, cycle(SERIES), strict=False)) | dict(zip(others, cycle(PUBLISHED), strict=False))
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel, colors)
    for axis in axes[len(panels) :]:
        axis.axis("off")
    save(fig, path)


def draw_profiles(profiles: Mapping[str, Mapping[str, Sequence[float]]], scale: str, path: Path) -> None:
    """The share of runs above each normalised score, with its 95% band, one line for each method."""
    fig = figure(6.4, 4.4)
    axis = fig.subplots()
    for (name, one), color in zip(profiles.items(), cycle(SERIES), strict=False):
        axis.fill_between(one["points"], one["low"], one["high"], color=color, alpha=0.15, lw=0)
        axis.plot(one["points"], one["share"], color=color, lw=2, label=name)
    axis.set(xlabel=f"score τ ({scale})", ylabel="share of runs with a score above τ", ylim=(-0.02, 1.02))
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    save(fig, path)


def _draw(axis: Any, panel: Panel, colors: Mapping[str, str]) -> None:
    for label, curves in panel.groups.items():
        draw_group(axis, label, [curve for curve in curves if len(curve[0])], colors[label])
    ends = [curve[0][-1] for curves in panel.groups.values() for curve in curves if len(curve[0])]
    for label, (steps, values) in panel.published.items():
        axis.plot(
            steps, values, color=colors[label], ls="--", lw=1.3, marker=".", ms=4, label=f"published: {label}"
        )
    for label, value in panel.lines.items():
        axis.axhline(value, color="grey", ls=":", lw=1, label=f"{label}: {value:,.4g}")
    if panel.log:
        axis.set_xscale("log")
    elif ends and panel.published:
        starts = [curve[0][0] for curve in panel.published.values() if len(curve[0])]
        axis.set_xlim(0, max(BEYOND * max(ends), 1.2 * max(starts, default=0)))
    axis.xaxis.set_major_formatter(thousands)
    axis.yaxis.set_major_formatter(number)
    axis.set(xlabel=panel.unit, ylabel="return of training episodes", title=panel.title)
    axis.grid(alpha=0.25)
    if axis.get_legend_handles_labels()[0]:  # a run without an episode that ended has no curve
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False)


def thousands(value: float, _: Any = None) -> str:
    """Ticks as 20K or 1.5M."""
    for unit, name in ((1e6, "M"), (1e3, "K")):
        if abs(value) >= unit:
            return f"{value / unit:,.4g}{name}"
    return number(value)


def curve_of_tenths(tenths: Sequence[Sequence[float]], bins: bool) -> Curve:
    """A published curve: means over tenths in their middle, evaluations at their end."""
    steps = [(first + last) / 2 if bins else last for first, last, _ in tenths]
    return np.array(steps, float), np.array([value for *_, value in tenths], float)
