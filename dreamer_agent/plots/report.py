"""The report of a world model as a picture and as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamer_agent.dreams import DreamReport, Quantity
from dreamer_agent.plots.style import SERIES, figure, save
from dreamer_agent.statistics import Estimate

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = 3
SIGNS = {"lower": "\u2193", "higher": "\u2191"}
WORDS = {"lower": "lower is better", "higher": "higher is better"}
TITLES = {
    "error": "standardised error",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "control": "gain from the true actions",
    "reward": "reward",
    "termination": "terminations",
    "latent": "latent",
}
FIRST = ("model", "seen")  # the lines that are the world model's


def title_of(name: str) -> str:
    """The name of a quantity in words."""
    kind, _, key = name.partition("/")
    return f"{TITLES.get(kind, kind)}{f' of {key}' if key else ''}"


def good_of(quantity: Quantity) -> str:
    """What is good of it, in words."""
    return WORDS.get(quantity.good, f"best equal to '{quantity.good}'")


def draw_report(report: DreamReport, path: Path, env: str) -> None:
    """One panel for each quantity by horizon: the model with its 95% interval, and what it is held against."""
    rows = -(-len(report.quantities) // COLUMNS)
    fig = figure(3.9 * COLUMNS, 2.7 * rows + 0.6)
    axes = fig.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis, (name, quantity) in zip(axes, report.quantities.items(), strict=False):
        _draw_quantity(axis, report.horizons, name, quantity)
    for axis in axes[len(report.quantities) :]:
        axis.axis("off")
    counts = ", ".join(f"{count}" for count in report.windows)
    fig.suptitle(
        f"{env}: predicted from {report.observed} observed steps on, by horizon; windows: {counts}", fontsize=10
    )
    save(fig, path)


def _draw_quantity(axis: Any, horizons: tuple[int, ...], name: str, quantity: Quantity) -> None:
    axis.set_title(f"{title_of(name)} ({good_of(quantity)})", fontsize=8)
    axis.set_ylabel(quantity.unit, fontsize=8)
    axis.set_xlabel("horizon, steps", fontsize=8)
    axis.set_xscale("log")
    axis.set_xticks(horizons, [str(h) for h in horizons], minor=False)
    axis.set_xticks([], minor=True)
    axis.tick_params(which="both", labelsize=7)
    axis.set_xlim(horizons[0] / 1.15, horizons[-1] * 1.15)
    for index, (label, line) in enumerate(quantity.lines.items()):
        _draw_line(axis, np.array(horizons), line, label, SERIES[index % len(SERIES)])
    if all(at is None for line in quantity.lines.values() for at in line):
        axis.text(0.5, 0.5, "nothing to measure", transform=axis.transAxes, ha="center", fontsize=8)
        axis.set_yticks([])
        return
    if quantity.good == "lower" and _positive(quantity):
        axis.set_yscale("log")
        axis.tick_params(which="both", labelsize=7)
    axis.legend(fontsize=7)


def _draw_line(
    axis: Any, horizons: np.ndarray, line: tuple[Estimate | None, ...], label: str, color: str
) -> None:
    there = [at is not None for at in line]
    known = [at for at in line if at is not None]
    own = label in FIRST
    style = {"lw": 2.0, "marker": "o"} if own else {"lw": 1.2, "ls": "--", "marker": "."}
    axis.plot(horizons[there], [at.value for at in known], color=color, label=label, ms=4, **style)
    if own and known and all(at.low is not None for at in known):
        low, high = ([getattr(at, end) for at in known] for end in ("low", "high"))
        axis.fill_between(horizons[there], low, high, color=color, alpha=0.2, lw=0)


def _positive(quantity: Quantity) -> bool:
    return all(at is None or at.value > 0 for line in quantity.lines.values() for at in line)


def report_table(report: DreamReport, title: str) -> Table:
    """The numbers, a row for each line, with 95% intervals of the model's."""
    from rich.table import Table

    table = Table(
        title=title, caption="\u2193 lower is better, \u2191 higher; in brackets 95% intervals over episodes"
    )
    for column in ("", "unit", ""):
        table.add_column(column)
    for horizon in report.horizons:
        table.add_column(f"h = {horizon}", justify="right")
    counts = zip(report.windows, report.episodes, strict=True)
    table.add_row("windows (episodes)", "", "", *(f"{windows} ({episodes})" for windows, episodes in counts))
    for name, quantity in report.quantities.items():
        table.add_section()
        sign = SIGNS.get(quantity.good, f"(best: {quantity.good})")
        said = (title_of(name), f"{quantity.unit} {sign}")
        for label, line in quantity.lines.items():
            table.add_row(*said, label, *(_cell(at, label in FIRST) for at in line))
            said = ("", "")
    return table


def _cell(at: Estimate | None, interval: bool) -> str:
    if at is None:
        return "none"
    if not interval or at.low is None or at.high is None:
        return f"{at.value:.3g}"
    return f"{at.value:.3g} ({at.low:.2g} to {at.high:.2g})"
