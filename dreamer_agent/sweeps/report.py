"""The page of a sweep: its curves, a table with intervals, and what random values had to do with the score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent.errors import ConfigError, RunDirectoryError
from dreamer_agent.files import write_text
from dreamer_agent.launch.work import stopped_early, why_stopped
from dreamer_agent.plots.curves import Curve, draw_panels
from dreamer_agent.plots.sweeps import correlation_told, draw_scatter
from dreamer_agent.statistics import CONFIDENCE, aggregate
from dreamer_agent.sweeps.found import found_in
from dreamer_agent.sweeps.results import rows_of, write_tables
from dreamer_agent.sweeps.runs import SweepRun
from dreamer_agent.sweeps.sweep import Sweep
from dreamer_agent.training.metrics import read_metrics

AXES = {"steps": "env steps", "frames": "frames", "updates": "updates", "minutes": "minutes of training"}
ALIASES = {"env.id": "env"}
EARLY = "stopped early"  # the state of a run
CHANGED, UNCHANGED = "variant", "unchanged"  # a column of the page, and what changes nothing
MANY = 8  # values of a key from which on it is scattered instead of compared


def write_report(
    sweep: Sweep, runs: Sequence[SweepRun], folder: Path, x: str = "steps", group: str = "env",
    compare: str | None = None, failed: dict[str, str] | None = None, goal: float | None = None,
) -> Path:  # fmt: skip
    """Write `report.md`, `curves.png`, tables, and for values drawn at random `scatter.png`; gives the page.

    A panel for each value of the key `group`, a line for each value of `compare` (by default all that the axes
    vary beside it, but for what is drawn at random or takes many values); environments never share a line, since
    their returns have nothing in common. `goal` is a return to mark. Raises `ConfigError` for keys that the sweep
    does not have, `RunDirectoryError` where no run has begun.
    """
    if x not in AXES:
        raise ConfigError(f"The axis '{x}' is unknown: choose {', '.join(AXES)}.")
    rows = rows_of(runs, sweep.varied())
    if all(row["state"] == "waiting" for row in rows):
        raise RunDirectoryError(f"There is nothing to draw: no run of the sweep '{sweep.name}' has begun there.")
    keys = [key for key in sweep.varied() if key != "env.id"]
    group = ALIASES.get(group, group)
    _check_key(group, rows)
    drawn = sweep.drawn()
    few = [key for key in keys if key != group and key not in drawn and len({row[key] for row in rows}) < MANY]
    if compare is not None:
        compare = ALIASES.get(compare, compare)
        _check_key(compare, rows)
        few = [compare]
    if len({row["env"] for row in rows}) > 1 and group != "env" and "env" not in few:
        few = ["env", *few]
    folder.mkdir(parents=True, exist_ok=True)
    write_tables(rows, runs, folder)
    shown = [group, *few]
    optional = [key for key in few if key in sweep.optional() and compare is None]
    if len(optional) > 1:  # a line is named by what its point changes, a row has one column for it
        few = [*[key for key in few if key not in optional], CHANGED]
        for row, run in zip(rows, runs, strict=True):
            row[CHANGED] = _label(row, [key for key in optional if run.setting.point.get(key) is not None])
            row[CHANGED] = row[CHANGED] or UNCHANGED
    draw_panels(_panels(rows, runs, group, few, x), folder / "curves.png", goal, AXES[x])
    parts = [f"# {sweep.title or sweep.name}", sweep.about, _counts(rows), "![Learning curves](curves.png)"]
    parts += [_table(rows, group, few)]
    pooled = [key for key in keys if key not in shown and len({row[key] for row in rows}) > 1]
    parts += [f"Runs of a row differ in {', '.join(pooled)}, too."] if pooled else []
    numeric = [key for key in keys if _is_numeric([row[key] for row in rows]) and key not in shown[1:]]
    parts += _scatter(rows, numeric, folder / "scatter.png")
    parts += _early(rows, runs)
    lines = [f"- {name}: {why}" for name, why in (failed or {}).items()]
    parts += [f"**Failed: {len(lines)}.**", "\n".join(lines)] if lines else []
    parts += ["A row for each run is in `results.csv`, every logged return in `curves.csv`."]
    write_text(folder / "report.md", "\n\n".join(part for part in parts if part) + "\n")
    return folder / "report.md"


def _scatter(rows: Sequence[dict[str, Any]], keys: Sequence[str], path: Path) -> list[str]:
    """Draw scores over the values of `keys`, each environment by itself; gives what the page says of it."""
    panels, envs = {}, list(dict.fromkeys(row["env"] for row in rows))
    for env in envs:
        scored = [row for row in rows if row["env"] == env and row["score"] is not None]
        if len(scored) > 2:
            for key in keys:
                name = key if len(envs) == 1 else f"{key}, {env}"
                panels[name] = [float(row[key]) for row in scored], [row["score"] for row in scored]
    if not panels:
        path.unlink(missing_ok=True)
        return []
    draw_scatter(panels, path, "score")
    told = "; ".join(f"{name} {correlation_told(*columns)}" for name, columns in panels.items())
    return ["![Scores over values](scatter.png)", f"Rank correlation with the score: {told}."]


def _check_key(key: str, rows: Sequence[dict[str, Any]]) -> None:
    if key not in rows[0]:
        known = [name for name in rows[0] if name in ("env", "seed") or "." in name or name in ("preset", "size")]
        raise ConfigError(f"The sweep does not vary '{key}': it has {', '.join(known)}.")


def _panels(
    rows: Sequence[dict[str, Any]], runs: Sequence[SweepRun], group: str, keys: Sequence[str], x: str
) -> dict[str, dict[str, list[Curve]]]:
    panels: dict[str, dict[str, list[Curve]]] = {}
    for row, run in zip(rows, runs, strict=True):
        curve = _curve(run, x)
        panel = panels.setdefault(row["env"] if group == "env" else _label(row, [group]), {})
        if len(curve[0]):
            label = _label(row, keys) or str(row["env"])
            label += f", {EARLY}" if row["state"] == EARLY else ""
            panel.setdefault(label, []).append(curve)
    return panels


def _curve(run: SweepRun, x: str) -> Curve:
    """Returns of training episodes over env steps, frames, updates or minutes of training."""
    path = run.folder / "metrics.jsonl"
    rows = read_metrics(run.folder) if path.is_file() else []
    points, minutes, before = [], 0.0, 0.0
    for row in rows:
        pace = row.get("time/env_steps_per_s")
        minutes += (row["step"] - before) / pace / 60 if pace else 0.0
        before = row["step"]
        frames = row["step"] * run.setting.config.env.action_repeat
        at = {"steps": row["step"], "frames": frames, "updates": row.get("updates", 0.0), "minutes": minutes}
        if row.get("episode/return") is not None:
            points.append((at[x], row["episode/return"]))
    columns = np.array(points, float).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def _label(row: dict[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(_short(row[key]) if key == CHANGED else f"{key}={_short(row[key])}" for key in keys)


def _table(rows: Sequence[dict[str, Any]], group: str, keys: Sequence[str]) -> str:
    """Scores by group and compared values, with the interquartile mean over seeds and its interval."""
    cells: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((_short(row[group]), *(_short(row[key]) for key in keys)), []).append(row)
    heads = [group, *keys, "runs done", "score, IQM", "least to most", "return over training", "minutes"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, members in cells.items():
        done = [row for row in members if row["score"] is not None]
        scores = np.array([row["score"] for row in done], float)
        areas = [row["return_all"] for row in done if row["return_all"] is not None]
        found = aggregate([scores])["IQM"] if done else None
        interval = f" ({found.low:,.4g} to {found.high:,.4g})" if found and found.low is not None else ""
        texts = [
            f"{found.value:,.4g}{interval}" if found else "-",
            f"{scores.min():,.4g} to {scores.max():,.4g}" if done else "-",
            f"{np.mean(areas):,.4g}" if areas else "-",
            f"{np.mean([row['minutes'] for row in done]):.1f}" if done else "-",
        ]
        lines.append(f"| {' | '.join([*name, f'{len(done)} of {len(members)}', *texts])} |")
    note = (
        "Score: mean return of the final policy with sampled actions. IQM: interquartile mean over the runs of a "
        f"row, with the {CONFIDENCE:.0%} interval of a bootstrap over them. Return over training: mean over all "
        "training episodes."
    )
    return "\n".join(lines) + "\n\n" + note


def _counts(rows: Sequence[dict[str, Any]]) -> str:
    states = [row["state"] for row in rows]
    told = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    unreadable = [f"{row['run']}: {row['why']}" for row in rows if row["why"]]
    return f"{len(rows)} runs: {', '.join(told)}." + (f" {'; '.join(unreadable)}." if unreadable else "")


def _early(rows: Sequence[dict[str, Any]], runs: Sequence[SweepRun]) -> list[str]:
    """Which runs were stopped early and why, and what the points of a search are; nothing where neither is."""
    parts = []
    early = [run for row, run in zip(rows, runs, strict=True) if row["state"] == EARLY]
    if early:
        parts.append(
            f"**Stopped early: {len(early)} of {len(rows)} runs.** They are in no score, area or minutes of the "
            "table, whose runs were therefore chosen by their returns on the way; their curves stand apart."
        )
        parts.append("\n".join(f"- {run.setting.name}: {why_stopped(stopped_early(run) or {})}" for run in early))
    found = len(found_in(runs[0].root)) if runs else 0
    if found:
        parts.append(f"{found} of the points were suggested by a search for high scores, not drawn evenly.")
    return parts


def _is_numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _short(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
