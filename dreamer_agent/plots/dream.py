"""Pictures of open-loop predictions: filmstrips for images, curves for vectors."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent.dreams import OpenLoop
from dreamer_agent.plots.style import IMAGINED, OBSERVED, figure, rgb, save

MAX_PANELS = 8
LETTERS_PER_INCH = 13  # of a title
NOTE = {"facecolor": "white", "alpha": 0.85, "lw": 0, "pad": 1.5}
EXPLAINED = "the model sees the truth of the green steps and imagines the red ones from the actions alone"


def image_rows(dream: OpenLoop, key: str) -> dict[str, np.ndarray]:
    """The lines of a picture of the image `key`: truth, prediction, absolute error, each `[B, T, H, W, 3]`."""
    truth, prediction = dream.truth[key], dream.prediction[key]
    error = np.abs(truth.astype(np.int16) - prediction).astype(np.uint8)
    return {"truth": rgb(truth), "prediction": rgb(prediction), "error": rgb(error)}


def unforeseen(dream: OpenLoop, sequence: int, step: int) -> bool:
    """Whether the truth of `sequence` at `step` belongs to an episode that began while the model imagined.

    No model could foresee it, so that the error after it says nothing.
    """
    return bool(dream.is_first[sequence, dream.observed : step + 1].any())


def draw_images(dream: OpenLoop, key: str, path: Path, sequences: int = 3, frames: int = 12) -> None:
    """Truth, prediction and error of the image `key` as a filmstrip for some sequences."""
    rows = image_rows(dream, key)
    count, steps = min(sequences, len(rows["truth"])), rows["truth"].shape[1]
    shown = np.unique(np.linspace(0, steps - 1, min(frames, steps)).round().astype(int))
    fig = figure(1.0 * len(shown) + 1.2, 3.1 * count + 0.9)
    axes = fig.subplots(3 * count, len(shown), squeeze=False)
    for index in range(3 * count):
        sequence, name = index // 3, tuple(rows)[index % 3]
        for axis, step in zip(axes[index], shown, strict=True):
            axis.imshow(rows[name][sequence, step], interpolation="nearest")
            _frame(axis, OBSERVED if step < dream.observed else IMAGINED)
            if name == "error" and unforeseen(dream, sequence, step):
                axis.text(0.05, 0.95, "after reset", transform=axis.transAxes, va="top", fontsize=7, bbox=NOTE)
            if index == 0:
                axis.set_title(f"step {step}", fontsize=8)
        axes[index][0].set_ylabel(f"sequence {sequence + 1}\n{name}", fontsize=8)
    title = textwrap.fill(f"Open loop of '{key}': {EXPLAINED}", int(LETTERS_PER_INCH * fig.get_figwidth()))
    fig.suptitle(title, fontsize=10)
    save(fig, path)


def draw_vectors(dream: OpenLoop, path: Path, sequence: int = 0) -> None:
    """Predicted against true numbers of one sequence, with reward and continue.

    A dotted line marks where a new episode starts; inside the red part nobody could foresee it.
    """
    panels = _series(dream, sequence)
    rows = -(-len(panels) // 2)
    fig = figure(9.2, 1.9 * rows + 0.9)
    axes = fig.subplots(rows, 2, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw_series(axis, dream, sequence, *panel)
    for axis in axes[len(panels) :]:
        axis.axis("off")
    for axis in axes[len(panels) - 2 : len(panels)]:
        axis.set_xlabel("step", fontsize=9)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    fig.suptitle(f"Open loop: {EXPLAINED}", fontsize=9)
    save(fig, path)


def _draw_series(
    axis: Any, dream: OpenLoop, sequence: int, name: str, truth: np.ndarray, prediction: np.ndarray
) -> None:
    steps, border, end = np.arange(len(truth)), dream.observed - 0.5, len(truth) - 0.5
    axis.axvspan(-0.5, border, color=OBSERVED, alpha=0.12, lw=0)
    axis.axvspan(border, end, color=IMAGINED, alpha=0.08, lw=0)
    for index, step in enumerate(np.flatnonzero(dream.is_first[sequence])):
        label = "environment reset" if index == 0 else None
        axis.axvline(step - 0.5, color="black", lw=1.0, ls=":", label=label)
    axis.plot(steps, truth, color="black", lw=1.6, label="truth")
    axis.plot(steps, prediction, color=IMAGINED, lw=1.4, ls="--", label="prediction")
    axis.set_title(name, fontsize=9)
    axis.set_xlim(-0.5, end)
    _widen(axis)


def _series(dream: OpenLoop, sequence: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, truth and prediction of every number worth a panel; reward and continue are always among them."""
    scalars = [
        (name, pair.truth[sequence], pair.prediction[sequence])
        for name, pair in (("reward", dream.reward), ("continue", dream.continue_))
    ]
    vectors = []
    for key, spec in dream.specs.items():
        if spec.kind == "image":
            continue
        truth = dream.truth[key][sequence].reshape(dream.truth[key].shape[1], -1)
        prediction = dream.prediction[key][sequence].reshape(truth.shape)
        shown = f"observation {key}" if key in ("reward", "continue") else key
        for index in range(truth.shape[1]):
            name = shown if truth.shape[1] == 1 else f"{shown}[{index}]"
            vectors.append((name, truth[:, index], prediction[:, index]))
    return vectors[: MAX_PANELS - len(scalars)] + scalars


def _widen(axis: Any) -> None:
    """Keep a constant from looking like noise: at least 0.2 of height."""
    low, high = axis.get_ylim()
    if high - low < 0.2:
        middle = (low + high) / 2
        axis.set_ylim(middle - 0.1, middle + 0.1)


def _frame(axis: Any, color: str) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(color=color, linewidth=2)
