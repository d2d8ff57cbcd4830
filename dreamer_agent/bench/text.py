"""Numbers as the report shows them, and tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def spread(values: Iterable[float | None]) -> str:
    """Median (least to most)."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return "-"
    half = len(known) // 2
    median = known[half] if len(known) % 2 else (known[half - 1] + known[half]) / 2
    if len(known) == 1:
        return number(median)
    return f"{number(median)} ({number(known[0])} to {number(known[-1])})"


def reached(task: dict[str, Any], steps: Sequence[float | None]) -> str:
    """Median (least to most), and how many of the seeds got there; ">" where the median one did not."""
    if task["threshold"] is None:
        return "-"
    known = sorted(one for one in steps if one is not None)
    if not known:
        return f"never (0 of {len(steps)})"
    ordered = [*known, *[None] * (len(steps) - len(known))]
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    values = [one for one in middle if one is not None]
    median = f"{sum(values) / len(values):,.0f}" if len(values) == len(middle) else "> budget"
    if len(steps) == 1:
        return median
    most = "never" if len(known) < len(steps) else f"{known[-1]:,.0f}"
    return f"{median} ({known[0]:,.0f} to {most}; {len(known)} of {len(steps)})"


def interval(value: float, low: float | None, high: float | None) -> str:
    """A number and its interval, if it has one."""
    return f"{value:.2f}" if low is None else f"{value:.2f} ({low:.2f} to {high:.2f})"


def number(value: float | None) -> str:
    """Three figures or so; a dash for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def short(frames: float) -> str:
    """Frames in thousands or millions."""
    for unit, name in ((1e6, "M"), (1e3, "K")):
        if frames >= unit:
            return f"{frames / unit:,.4g}{name}"
    return f"{frames:,.4g}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
