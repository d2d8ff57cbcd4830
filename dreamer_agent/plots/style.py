"""One look for all figures, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OBSERVED, IMAGINED = "#2a9d4e", "#d1495b"
SERIES = ("#2f6db5", "#d1495b", "#2a9d4e", "#e0992e", "#7d5ba6", "#4b4b4b")


def figure(width: float, height: float) -> Any:
    """An empty figure of the size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def save(fig: Any, path: Path) -> None:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=110, facecolor="white")
