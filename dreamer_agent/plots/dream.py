"""Pictures of open-loop predictions: filmstrips for images, curves for vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent.dreams import OpenLoop
from dreamer_agent.plots.style import IMAGINED, OBSERVED, figure, save

MAX_PANELS = 8


def draw_images(dream: OpenLoop, key: str, path: Path, sequences: int = 3, frames: int = 12) -> None:
    """Truth, prediction and error of the image `key` as a filmstrip for some sequences."""
    truth, prediction = dream.truth[key], dream.prediction[key]
    count, steps = min(sequences, len(truth)), truth.shape[1]
    shown = np.unique(np.linspace(0, steps - 1, min(frames, steps)).round().astype(int))
    fig = figure(1.0 * len(shown) + 1.2, 3.1 * count + 0.7)
    axes = fig.subplots(3 * count, len(shown), squeeze=False)
    for row in range(count):
        gap = np.abs(truth[row].astype(int) - prediction[row].astype(int)).astype(np.uint8)
        for line, (name, video) in enumerate(
            [("truth", truth[row]), ("prediction", prediction[row]), ("error", gap)]
        ):
            for column, step in enumerate(shown):
                axis = axes[3 * row + line][column]
                axis.imshow(_rgb(video[step]), interpolation="nearest")
                _frame(axis, OBSERVED if step < dream.observed else IMAGINED)
                if column == 0:
                    axis.set_ylabel(name, fontsize=9)
                if row == 0 and line == 0:
                    axis.set_title(f"t={step}", fontsize=8)
    fig.suptitle(
        f"'{key}' open loop: green frames were observed, red ones imagined from the actions alone", fontsize=10
    )
    save(fig, path)


def draw_vectors(dream: OpenLoop, path: Path, sequence: int = 0) -> None:
    """Predicted against true numbers of one sequence, with reward and continue."""
    panels = list(_series(dream, sequence))[:MAX_PANELS]
    columns = 2 if len(panels) > 1 else 1
    rows = -(-len(panels) // columns)
    fig = figure(4.6 * columns, 1.9 * rows + 0.7)
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, truth, prediction) in zip(axes, panels, strict=False):
        steps = np.arange(len(truth))
        axis.axvspan(-0.5, dream.observed - 0.5, color=OBSERVED, alpha=0.12, lw=0)
        axis.axvspan(dream.observed - 0.5, len(truth) - 0.5, color=IMAGINED, alpha=0.08, lw=0)
        axis.plot(steps, truth, color="black", lw=1.6, label="truth")
        axis.plot(steps, prediction, color=IMAGINED, lw=1.4, ls="--", label="prediction")
        axis.set_title(name, fontsize=9)
        axis.set_xlim(-0.5, len(truth) - 0.5)
        _widen(axis)
    for axis in axes[len(panels) :]:
        axis.axis("off")
    for axis in axes[max(len(panels) - columns, 0) : len(panels)]:
        axis.set_xlabel("step", fontsize=9)
    axes[0].legend(fontsize=8, loc="best")
    fig.suptitle("Open loop: observed (green), then imagined from the actions alone (red)", fontsize=10)
    save(fig, path)


def _series(dream: OpenLoop, sequence: int) -> Any:
    """Name, truth and prediction of every number worth a panel; reward and continue are always among them."""
    scalars = [(k, dream.truth[k][sequence], dream.prediction[k][sequence]) for k in ("reward", "continue")]
    vectors = []
    for key, spec in dream.specs.items():
        if spec.kind == "image":
            continue
        truth = dream.truth[key][sequence].reshape(dream.truth[key].shape[1], -1)
        prediction = dream.prediction[key][sequence].reshape(truth.shape)
        for index in range(truth.shape[1]):
            name = key if truth.shape[1] == 1 else f"{key}[{index}]"
            vectors.append((name, truth[:, index], prediction[:, index]))
    return vectors[: MAX_PANELS - len(scalars)] + scalars


def _widen(axis: Any) -> None:
    """Keep a constant from looking like noise: at least 0.2 of height."""
    low, high = axis.get_ylim()
    if high - low < 0.2:
        middle = (low + high) / 2
        axis.set_ylim(middle - 0.1, middle + 0.1)


def _rgb(image: np.ndarray) -> np.ndarray:
    """Three channels from any number: grey is repeated, others are cut or averaged."""
    if image.shape[-1] == 3:
        return image
    grey = image.mean(-1, keepdims=True).astype(np.uint8)
    return np.repeat(grey, 3, -1)


def _frame(axis: Any, color: str) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(color=color, linewidth=2)
