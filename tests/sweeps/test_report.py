"""The page of a sweep, from what its runs have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dreamer_agent.plots.sweeps import correlation_told, draw_scatter
from dreamer_agent.sweeps import report as module
from dreamer_agent.sweeps.command import report_of, runs_of
from dreamer_agent.sweeps.results import rows_of
from dreamer_agent.sweeps.sweep import load_sweep

RATE = "optimizer.learning_rate"
TWO = {"grid": {"env.id": ["CartPole-v1", "Pendulum-v1"]}}
RATES = {"random": {"samples": 3, "values": {"optimizer.learning_rate": {"loguniform": [1e-5, 1e-2]}}}}


def swept(folder: Path, axes: list[Any], ended: bool = True, **more: Any) -> Path:
    """The folder of a sweep whose runs have all ended, or have not even ended an episode."""
    content = {"values": {"train.steps": 100}, "axes": axes, **more}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    for number, run in enumerate(runs_of(load_sweep(folder / "sweep.yaml"), folder)):
        run.folder.mkdir()
        score = {"return_mean": 10.0 * number, "return_std": 1.0}
        row = {"step": 100, "updates": 30, "time/env_steps_per_s": 5.0, "episode/count": 0}
        if ended:
            row |= {"episode/return": 10.0 * number, "episode/count": 4}
            scores = {"env_steps": 100, "updates": 30, "scores": [score, score]}
            (run.folder / "evaluation.json").write_text(json.dumps(scores))
        (run.folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the figures were given: panels of curves, panels of scores, the goal."""
    seen: dict[str, Any] = {}

    def panels(given: Any, path: Path, goal: float | None, label: str) -> None:
        seen["curves"] = {title: {name: len(c) for name, c in lines.items()} for title, lines in given.items()}
        seen["goal"] = goal

    monkeypatch.setattr(module, "draw_panels", panels)
    monkeypatch.setattr(module, "draw_scatter", lambda given, *_: seen.update(scatter=given))
    return seen


def page(folder: Path, x: str = "steps", group: str = "env", compare: str | None = None, **more: Any) -> str:
    return report_of(folder, x, group, compare, None, **more).read_text()


def test_environments_share_neither_a_line_nor_a_row_nor_a_correlation(tmp_path: Path, drawn) -> None:
    folder = swept(tmp_path, [TWO, {"grid": {"replay.ratio": [8, 16]}}, RATES], seeds=2)
    said = page(folder, group="replay.ratio", goal=7.0)
    lines = {"env=CartPole-v1": 6, "env=Pendulum-v1": 6}
    assert drawn["curves"] == {"replay.ratio=8": lines, "replay.ratio=16": lines} and drawn["goal"] == 7.0
    assert "| replay.ratio | env | runs done |" in said and "| 8 | Pendulum-v1 | 6 of 6 |" in said
    assert "Runs of a row differ in optimizer.learning_rate, too." in said
    names = [f"{key}, {env}" for env in ("CartPole-v1", "Pendulum-v1") for key in ("replay.ratio", RATE)]
    assert list(drawn["scatter"]) == names and all(len(x) == 12 for x, _ in drawn["scatter"].values())
    page(folder, group="replay.ratio", compare=RATE)
    assert all(len(lines) == 6 for lines in drawn["curves"].values())
    assert "too." not in page(folder, compare=RATE, group="replay.ratio")


def test_values_that_are_almost_equal_are_different_rows(tmp_path: Path, drawn) -> None:
    said = page(swept(tmp_path, [{"grid": {"behaviour.lambda_": [0.99991, 0.99992]}}]))
    assert "| 0.99991 | 1 of 1 |" in said and "| 0.99992 | 1 of 1 |" in said
    assert len(drawn["curves"]["CartPole-v1"]) == 2


def test_what_only_some_points_set_names_their_lines(tmp_path: Path, drawn) -> None:
    pieces = [{}, {"model.twohot": False}, {"model.unimix": 0.0}, {"size": "tiny", "model.unimix": 0.0}]
    said = page(swept(tmp_path, [{"list": pieces}, {"grid": {"replay.ratio": [8, 16]}}]))
    changed = ["unchanged", "model.twohot=False", "model.unimix=0", "model.unimix=0, size=tiny"]
    lines = {f"replay.ratio={ratio}, {one}": 1 for one in changed for ratio in (8, 16)}
    assert drawn["curves"] == {"CartPole-v1": lines} and "scatter" not in drawn
    assert "| env | replay.ratio | variant | runs done |" in said
    assert "| CartPole-v1 | 16 | model.twohot=False | 1 of 1 |" in said and "differ" not in said
    assert "variant" not in (tmp_path / "results.csv").read_text()
    assert "| model.twohot |" in page(tmp_path, compare="model.twohot")


def test_arguments_that_not_every_run_has(tmp_path: Path, drawn) -> None:
    said = page(swept(tmp_path, [{"list": [{}, {"env.kwargs.sutton_barto_reward": True}]}]))
    assert "| CartPole-v1 | None | 1 of 1 |" in said and "| CartPole-v1 | True | 1 of 1 |" in said


def test_a_column_has_values_of_one_type(tmp_path: Path, drawn) -> None:
    """What tells 3 from "3" would be lost, and Parquet has no such columns."""
    names = [f"env.kwargs.{key}" for key in ("mixed", "number", "list", "flag")]
    values = [(3, 1, [1, 2], True), ("3", 0.5, "far", None), ([3], None, None, False), (True, 2, "near", True)]
    points = [{name: v for name, v in zip(names, one, strict=True) if v is not None} for one in values]
    folder = swept(tmp_path, [{"list": points}])
    rows = rows_of(runs_of(load_sweep(folder / "sweep.yaml"), folder), names)
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("3", 1, "[1, 2]", True),
        ('"3"', 0.5, "far", None),
        ("[3]", None, None, False),
        ("true", 2, "near", True),
    ]
    said = page(folder, compare="env.kwargs.mixed")
    assert "| CartPole-v1 | 3 | 1 of 1 |" in said and '| CartPole-v1 | "3" | 1 of 1 |' in said


def test_tables_are_written_as_parquet_too(tmp_path: Path, drawn) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = swept(tmp_path, [{"list": [{"env.kwargs.mode": 3}, {"env.kwargs.mode": "far"}, {}]}])
    page(folder)
    table = parquet.read_table(folder / "results.parquet").to_pydict()
    assert table["env.kwargs.mode"] == ["3", '"far"', None] and table["score"] == [0.0, 10.0, 20.0]
    assert parquet.read_table(folder / "curves.parquet").num_rows == 3


def test_before_an_episode_has_ended(tmp_path: Path) -> None:
    folder = swept(tmp_path, [TWO, RATES], ended=False)
    assert "6 runs: 6 begun." in page(folder)
    assert (folder / "curves.csv").read_text() == "run,env_steps,return,episodes\n"
    assert (folder / "curves.png").stat().st_size > 5000 and not (folder / "scatter.png").exists()


def test_scores_that_are_all_equal_have_no_correlation(tmp_path: Path) -> None:
    assert correlation_told([1, 2, 3], [5, 5, 5]) == "none (equal values)"
    assert correlation_told([1, 2, 3], [5, 6, 7]) == "+1.00"
    draw_scatter({"rate": ([1e-5, 1e-3, 1e-2], [5.0, 5.0, 5.0])}, tmp_path / "scatter.png", "score")
    assert (tmp_path / "scatter.png").stat().st_size > 3000
