"""Figures of a sweep: scores over the values that were drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dreamer_agent.plots.curves import number
from dreamer_agent.plots.style import SERIES, figure, save

COLUMNS = 3
WIDE = 20.0  # largest over smallest value from which on an axis is logarithmic


def draw_scatter(values: Mapping[str, Sequence[float]], scores: Sequence[float], path: Path, label: str) -> None:
    """A panel for each key: the score of each run over its value, the rank correlation in the title."""
    columns = min(len(values), COLUMNS)
    rows = -(-len(values) // columns)
    fig = figure(4.6 * columns, 3.8 * rows)
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for axis, (key, column) in zip(axes, values.items(), strict=False):
        x = np.array(column, float)
        axis.scatter(x, scores, color=SERIES[0], s=26, alpha=0.75, lw=0)
        if x.min() > 0 and x.max() / x.min() > WIDE:
            axis.set_xscale("log")
        else:
            axis.xaxis.set_major_formatter(number)
        axis.yaxis.set_major_formatter(number)
        axis.set(xlabel=key, ylabel=label, title=f"rank correlation {rank_correlation(x, scores):+.2f}")
        axis.grid(alpha=0.25)
    for axis in axes[len(values) :]:
        axis.axis("off")
    save(fig, path)


def rank_correlation(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Spearman's; NaN where one of the two does not vary."""
    from scipy.stats import spearmanr

    if len(set(np.asarray(x).tolist())) < 2 or len(set(np.asarray(y).tolist())) < 2:
        return float("nan")
    return float(spearmanr(x, y).statistic)
