"""Figures: what they are drawn from, and that files come out."""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from dreamer_agent.config import save_config
from dreamer_agent.dreams import Compared, OpenLoop
from dreamer_agent.plots import curve, curves, draw_curves, draw_images, draw_vectors, plot_runs
from dreamer_agent.plots.benchmarks import Panel, draw_benchmark
from dreamer_agent.plots.curves import band
from dreamer_agent.plots.dream import _series
from dreamer_agent.plots.runs import _labels, _settings
from dreamer_agent.specs import ArraySpec
from tests.conftest import small_config


def test_curve_skips_rows_without_the_metric() -> None:
    rows = [{"step": 1}, {"step": 2, "episode/return": 5.0}, {"step": 3, "episode/return": None}]
    steps, values = curve(rows)
    assert steps.tolist() == [2.0] and values.tolist() == [5.0]
    assert len(curve([])[0]) == 0


def test_band_covers_the_steps_that_all_runs_reached() -> None:
    one = (np.array([0.0, 10.0]), np.array([0.0, 10.0]))
    two = (np.array([5.0, 20.0]), np.array([5.0, 20.0]))
    steps, values = band([one, two, (np.zeros(0), np.zeros(0))])
    assert steps.tolist() == [5, 10]
    np.testing.assert_allclose(values, [steps, steps])
    steps, values = band([one, (two[0] + 10, two[1])])  # nothing in common
    assert steps.tolist() == [15] and values.shape == (2, 1)


def test_band_has_every_logged_step() -> None:
    """A peak of one point early in a long run, where points evenly over the budget would pass it by."""
    early, late = np.array([500.0, 1000, 1500]), np.array([1200.0, 150_000, 300_000])
    one = (np.concatenate([early, late[1:]]), np.array([0.0, 90, 0, 0, 0]))
    two = (np.concatenate([early[:1], late]), np.array([0.0, 70, 7, 7]))
    steps, values = band([one, two])
    assert steps.tolist() == [500, 1000, 1200, 1500, 150_000, 300_000]
    np.testing.assert_allclose(values[0], [0, 90, 54, 0, 0, 0])
    np.testing.assert_allclose(values[1, [0, 1, 2, 4, 5]], [0, 50, 70, 7, 7])


def test_band_of_very_many_steps_is_thinned_evenly() -> None:
    line = np.arange(10_001.0)
    steps, _ = band([(line, line), (line + 0.5, line)])
    assert len(steps) == curves.MOST and (steps[0], steps[-1]) == (0.5, 10_000)
    assert set(np.diff(steps)) == {5.0, 5.0 + 0.5}
    assert band([(line, line)], most=3)[0].tolist() == [0, 5000, 10_000]


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def dreamed() -> OpenLoop:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 8, 6, 6, 3)).astype(np.uint8)
    line = rng.normal(size=(2, 8))
    obs = {"image": image, "reward": line[..., None]}
    specs = {"image": ArraySpec("image", (6, 6, 3)), "reward": ArraySpec("continuous", (1,))}
    first, pair = np.zeros((2, 8), bool), Compared(line, line)
    return OpenLoop(obs, obs, pair, Compared(np.ones((2, 8)), np.ones((2, 8))), first, 4, specs)


def test_pictures_of_dreams_are_written_and_mark_resets(tmp_path) -> None:
    dream = dreamed()
    first = dream.is_first.copy()
    first[0, 6] = True
    for name, draw in (
        ("image", partial(draw_images, key="image", sequences=1, frames=4)),
        ("vector", draw_vectors),
    ):
        before, after = tmp_path / "a" / f"{name}.png", tmp_path / f"{name}.png"
        draw(dream, path=before)
        draw(dream._replace(is_first=first), path=after)
        assert min(pixels(before).shape[:2]) > 100 and len(np.unique(pixels(before))) > 10
        assert pixels(before).shape != pixels(after).shape or (pixels(before) != pixels(after)).any()


def test_an_observation_may_be_called_reward() -> None:
    dream = dreamed()
    dream = dream._replace(prediction=dream.prediction | {"reward": dream.truth["reward"] + 2})
    names = {name: (truth, prediction) for name, truth, prediction in _series(dream, 1)}
    assert set(names) == {"observation reward", "reward", "continue"}
    np.testing.assert_allclose(names["observation reward"][1] - names["observation reward"][0], 2)
    np.testing.assert_array_equal(names["reward"][0], names["reward"][1])


def test_learning_curves_tell_runs_apart(tmp_path) -> None:
    line = (np.arange(5.0), np.arange(5.0))
    cases: dict[str, dict] = {
        "one": {"env": [line]},
        "several": {"env": [line] * 3},
        "two": {"env": [line] * 3, "other": [line]},
        "apart": {"env": [line, (line[0] + 10, line[1])]},
        "empty": {"env": [(np.zeros(0), np.zeros(0))]},
    }
    drawn = {}
    for name, groups in cases.items():
        draw_curves(groups, tmp_path / f"{name}.png", "title", goal=None if name == "empty" else 3.0)
        drawn[name] = pixels(tmp_path / f"{name}.png")
        assert min(drawn[name].shape[:2]) > 100
    assert len({image.tobytes() for image in drawn.values()}) == len(cases)


def test_runs_are_labelled_by_what_differs_between_them(tmp_path) -> None:
    seeds = {name: _settings(small_config(f"seed={name}")) for name in ("1", "2")}
    assert set(_labels("env", seeds).values()) == {"env"}
    rate = "optimizer.learning_rate"
    rates = {value: _settings(small_config(f"{rate}={value}")) for value in ("0.1", "0.2")}
    assert list(_labels("env", rates).values()) == [f"{rate}=0.1", f"{rate}=0.2"]
    other = _settings(small_config(f"{rate}=0.1", "replay.ratio=7", "model.units=8"))
    labels = _labels("env", {**rates, "other": other})
    assert len(set(labels.values())) == 3 and all(label[1:3] == ") " for label in labels.values())


def test_plot_runs_gives_each_environment_a_panel(tmp_path) -> None:
    for name in ("CartPole-v1", "Pendulum-v1"):
        folder = tmp_path / name
        folder.mkdir()
        save_config(small_config(f"env.id={name}"), folder / "config.yaml")
        rows = [{"step": step, "episode/return": 2.0 * step} for step in range(3)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one = plot_runs([tmp_path / "CartPole-v1"], tmp_path / "one.png")
    two = plot_runs([tmp_path / "CartPole-v1", tmp_path / "Pendulum-v1"], tmp_path / "two.png")
    assert pixels(two).shape[1] == 2 * pixels(one).shape[1]


def test_legends_of_neighbours_do_not_meet(tmp_path, monkeypatch) -> None:
    drawn: list = []
    monkeypatch.setattr(curves, "save", lambda fig, path: (fig.canvas.draw(), drawn.append(fig)))
    long = ", ".join(f"optimizer.some_learning_rate{number}=0.0004" for number in range(4))
    line = (np.arange(3.0), np.arange(3.0))
    curves.draw_panels({name: {f"{way}, {long}": [line] for way in "ab"} for name in "xy"}, tmp_path / "x.png")
    left, right = (axis.get_legend().get_window_extent() for axis in drawn[0].axes)
    assert left.x1 <= right.x0


def test_a_task_without_an_episode_that_ended_has_no_legend(tmp_path: Path) -> None:
    line = (np.arange(3.0), np.ones(3))
    panels = [Panel("none", {"ours": [(np.zeros(0), np.zeros(0))]}), Panel("some", {"ours": [line]})]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_benchmark(panels, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 0
