"""Points that a search has found for a sweep: kept beside its runs, and from then on points as all others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from dreamer_agent.files import write_text
from dreamer_agent.sweeps.points import Point
from dreamer_agent.sweeps.sweep import Sweep

FILE = "found.json"


def found_in(folder: Path) -> list[Point]:
    """The points that were found for the sweep whose runs lie in `folder`, in their order."""
    path = folder / FILE
    return json.loads(path.read_text())["points"] if path.is_file() else []


def keep_found(folder: Path, points: Sequence[Point]) -> None:
    """Write all points that were found."""
    write_text(folder / FILE, json.dumps({"points": list(points)}, indent=1) + "\n")


def with_found(sweep: Sweep, folder: Path, more: int = 0) -> Sweep:
    """`sweep` with the points in `folder` on its random axis, and `more` that are drawn."""
    points = found_in(folder)
    if not points and not more:
        return sweep
    return dataclasses.replace(sweep, axes=tuple(_grown(axis, points, more) for axis in sweep.axes))


def _grown(axis: dict, points: Sequence[Point], more: int) -> dict:
    """A random axis with those of `points` that set its keys; another axis as it is."""
    if "random" not in axis:
        return axis
    content = axis["random"]
    fitting = [point for point in points if set(point) == set(content["values"])]
    return {"random": {**content, "samples": content["samples"] + more, "found": fitting}}
