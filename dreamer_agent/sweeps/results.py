"""What came of a sweep: one row for each run, and files that other programs read."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent.errors import DreamerError
from dreamer_agent.files import write_text
from dreamer_agent.launch.work import stopped_early, told
from dreamer_agent.statistics import episodes_of, mean_between
from dreamer_agent.sweeps.runs import SweepRun
from dreamer_agent.sweeps.sweep import SPECIAL
from dreamer_agent.training.metrics import read_metrics
from dreamer_agent.values import flatten, to_dict

LAST = 0.1  # share of the budget whose episodes make `return_last`
SCORES = (
    "state", "env_steps", "updates", "score", "score_std", "score_mode", "return_last", "return_all", "minutes",
)  # fmt: skip
LISTS = (list, tuple, dict)
CURVES = ("run", "env_steps", "return", "episodes")


def rows_of(runs: Sequence[SweepRun], keys: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each run: its name, environment, seed, the values of `keys`, how far it is, and its scores.

    `score` is the mean return of the final policy with sampled actions, `score_mode` with the likeliest ones;
    `return_last` and `return_all` are means of training episodes, over the last tenth of the budget and over all
    of it (the area under the curve). What is not known yet is None. Lists are JSON, and so are all values of a
    key that has them of several types (1, true, "far"): a column is of one.
    """
    rows = [_row(run, keys) for run in runs]
    for key in keys:
        values = [row.get(key) for row in rows]
        mixed = len({_kind(value) for value in values if value is not None}) > 1
        for row, value in zip(rows, values, strict=True):
            if isinstance(value, LISTS) or (mixed and value is not None):
                row[key] = json.dumps(value, default=str)
    return rows


def write_tables(rows: Sequence[dict[str, Any]], runs: Sequence[SweepRun], folder: Path) -> list[Path]:
    """`results.csv` (a row for each run) and `curves.csv` (one for each logged return); gives all paths.

    Both are written as Parquet, too, where pyarrow is installed (extra `parquet`).
    """
    curves = [
        dict(zip(CURVES, (run.setting.name, step, value, count), strict=True))
        for run in runs
        for step, value, count in zip(*_episodes(run), strict=True)
    ]
    written = []
    for name, table, columns in (("results", list(rows), list(rows[0])), ("curves", curves, CURVES)):
        path = folder / f"{name}.csv"
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        write_text(path, text.getvalue())
        written.append(path)
        if importlib.util.find_spec("pyarrow") and table:
            import pyarrow
            import pyarrow.parquet

            written.append(path.with_suffix(".parquet"))
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), written[-1])
    return written


def _kind(value: Any) -> type:
    """The type of a column with such values: numbers are of one, and lists become text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float
    return str if isinstance(value, LISTS) else type(value)


def _row(run: SweepRun, keys: Sequence[str]) -> dict[str, Any]:
    config = run.setting.config
    values = flatten(to_dict(config)) | {key: run.setting.point.get(key) for key in SPECIAL}
    row: dict[str, Any] = {"run": run.setting.name, "env": config.env.id, "seed": config.seed}
    for key in keys:
        if key not in ("env.id", "seed"):
            row[key] = values.get(key)  # None of what only other runs hand to their environment
    row |= dict.fromkeys(SCORES) | {"why": ""}
    try:
        row |= _scores(run)
    except (DreamerError, OSError, ValueError, KeyError) as error:
        row |= {"state": "unreadable", "why": told(error)}
    return row


def _scores(run: SweepRun) -> dict[str, Any]:
    rows = read_metrics(run.folder) if (run.folder / "metrics.jsonl").is_file() else []
    out: dict[str, Any] = {"state": "waiting"}
    if rows:
        episodes = episodes_of(rows)
        seconds = sum(
            (after["step"] - before["step"]) / after["time/env_steps_per_s"]
            for before, after in zip([{"step": 0.0}, *rows], rows, strict=False)
            if after.get("time/env_steps_per_s")
        )
        out = {
            "state": "stopped early" if stopped_early(run) else "begun",
            "env_steps": int(rows[-1]["step"]), "updates": rows[-1].get("updates"),
            "return_last": mean_between(episodes, (1 - LAST) * run.steps, np.inf),
            "return_all": mean_between(episodes, 0, np.inf), "minutes": seconds / 60,
        }  # fmt: skip
    found = run.evaluation()
    if found is not None:
        sampled, mode = found["scores"][:2]
        out |= {
            "state": "done", "env_steps": found["env_steps"], "updates": found["updates"],
            "score": sampled["return_mean"], "score_std": sampled["return_std"],
            "score_mode": mode["return_mean"],
        }  # fmt: skip
    return out


def _episodes(run: SweepRun) -> tuple[list[float], list[float], list[float]]:
    if not (run.folder / "metrics.jsonl").is_file():
        return [], [], []
    try:
        steps, returns, counts = episodes_of(read_metrics(run.folder))
    except (DreamerError, OSError, ValueError):
        return [], [], []
    return steps.tolist(), returns.tolist(), counts.tolist()
