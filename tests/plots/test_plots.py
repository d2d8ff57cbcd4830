"""Figures: what they are drawn from, and that files come out."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dreamer_agent.dreams import OpenLoop
from dreamer_agent.plots import curve, draw_curves, draw_images, draw_vectors
from dreamer_agent.plots.curves import band
from dreamer_agent.specs import ArraySpec


def test_curve_skips_rows_without_the_metric() -> None:
    rows = [{"step": 1}, {"step": 2, "episode/return": 5.0}, {"step": 3, "episode/return": None}]
    steps, values = curve(rows)
    assert steps.tolist() == [2.0] and values.tolist() == [5.0]
    assert len(curve([])[0]) == 0


def test_band_covers_the_steps_that_all_runs_reached() -> None:
    one = (np.array([0.0, 10.0]), np.array([0.0, 10.0]))
    two = (np.array([5.0, 20.0]), np.array([5.0, 20.0]))
    steps, values = band([one, two, (np.zeros(0), np.zeros(0))], points=6)
    assert steps.tolist() == [5, 6, 7, 8, 9, 10]
    np.testing.assert_allclose(values, [steps, steps])


def test_pictures_are_written(tmp_path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 8, 6, 6, 3)).astype(np.uint8)
    line = rng.normal(size=(2, 8))
    numbers = {"image": image, "x": line[..., None], "reward": line, "continue": np.ones((2, 8))}
    specs = {"image": ArraySpec("image", (6, 6, 3)), "x": ArraySpec("continuous", (1,))}
    dream = OpenLoop(numbers, numbers, 4, specs)
    draw_images(dream, "image", tmp_path / "a" / "image.png")
    draw_vectors(dream, tmp_path / "vector.png")
    draw_curves({"env": [(np.arange(5.0), np.arange(5.0))] * 3}, tmp_path / "curve.png", "title", goal=3.0)
    for name in ("a/image.png", "vector.png", "curve.png"):
        pixels = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        assert min(pixels.shape[:2]) > 100 and len(np.unique(pixels)) > 10
