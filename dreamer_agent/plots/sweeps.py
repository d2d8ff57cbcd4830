"""Figures of a sweep: scores over the values that were drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dreamer_agent.plots.curves import number
from dreamer_agent.plots.style import SERIES, figure, save

COLUMNS = 3
WIDE = 20.0  # largest over smallest value from which on an axis is logarithmic


Columns = tuple[Sequence[float], Sequence[float]]  # values, scores


def draw_scatter(panels: Mapping[str, Columns], path: Path, label: str) -> None:
    """A panel for each key: the score of each run over its value, the rank correlation in the title."""
    columns = min(len(panels), COLUMNS)
    rows = -(-len(panels) // columns)
    fig = figure(4.6 * columns, 3.8 * rows)
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for axis, (key, (column, scores)) in zip(axes, panels.items(), strict=False):
        x = np.array(column, float)
        axis.scatter(x, scores, color=SERIES[0], s=26, alpha=0.75, lw=0)
        if x.min() > 0 and x.max() / x.min() > WIDE:
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter("")  # their labels would run into each other
        else:
            axis.xaxis.set_major_formatter(number)
        axis.yaxis.set_major_formatter(number)
        axis.set(xlabel=key, ylabel=label, title=f"rank correlation {correlation_told(x, scores)}")
        axis.grid(alpha=0.25)
    for axis in axes[len(panels) :]:
        axis.axis("off")
    save(fig, path)


def correlation_told(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> str:
    """`rank_correlation` as text."""
    found = rank_correlation(x, y)
    return "none (equal values)" if np.isnan(found) else f"{found:+.2f}"


def rank_correlation(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Spearman's; NaN where one of the two does not vary."""
    from scipy.stats import spearmanr

    if len(set(np.asarray(x).tolist())) < 2 or len(set(np.asarray(y).tolist())) < 2:
        return float("nan")
    return float(spearmanr(x, y).statistic)
