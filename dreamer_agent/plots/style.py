"""One look for all figures and videos, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

OBSERVED, IMAGINED = "#1f8a43", "#c73e52"
PUBLISHED = ("#222222", "#b07d2b", "#7a6fb0", "#b0577d", "#4f9a6a", "#5aa0b5", "#909090")  # of other work
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


def rgb(images: np.ndarray) -> np.ndarray:
    """Images uint8 `[..., H, W, C]` as `[..., H, W, 3]`; the one rule for all figures and videos.

    Of a stack of colour frames (C divisible by three) the newest is shown, one channel is grey, and other
    numbers of channels are averaged into grey.
    """
    if images.shape[-1] % 3 == 0:
        return images[..., -3:]
    grey = images.mean(-1, keepdims=True).round().astype(np.uint8)
    return np.repeat(grey, 3, -1)
