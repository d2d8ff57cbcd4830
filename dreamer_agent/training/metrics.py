"""Metrics on disk: one JSON object a line, and TensorBoard."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np


class MetricsWriter:
    """Appends rows to `metrics.jsonl` and to TensorBoard events in the same folder."""

    def __init__(self, folder: Path, resume_step: int = 0):
        self.path = folder / "metrics.jsonl"
        if self.path.exists():
            _drop_rows_after(self.path, resume_step)
        try:
            from tensorboardX import SummaryWriter

            self.board: Any = SummaryWriter(str(folder), purge_step=resume_step or None)
        except ImportError:  # the learner runs without it
            self.board = None

    def write(self, step: int, row: dict[str, float]) -> None:
        """One row of scalars at env step `step`."""
        clean = {key: float(value) for key, value in row.items()}
        finite = {key: value if math.isfinite(value) else None for key, value in clean.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")
        if self.board:
            for key, value in clean.items():
                self.board.add_scalar(key, value, step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture `[H, W, 3]` uint8 in TensorBoard."""
        if self.board:
            self.board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flush TensorBoard."""
        if self.board:
            self.board.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All rows of a run's `metrics.jsonl`."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def average(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of each metric over `rows` of device scalars, fetched at once."""
    fetched = jax.device_get(rows)
    keys = fetched[0] if fetched else {}
    return {key: float(np.mean([row[key] for row in fetched])) for key in keys}


def _drop_rows_after(path: Path, step: int) -> None:
    """Forget what a run wrote after the checkpoint that it resumes from."""
    rows = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
    path.write_text("".join(line + "\n" for line in rows))


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):  # a line torn by a kill
        return math.inf
