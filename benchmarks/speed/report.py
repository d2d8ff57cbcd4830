"""Results: JSON that is written as soon as a row is there, and the same rows as a table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
# What tells rows of one part apart; a new one replaces the old one of the same name.
KEY = ("case", "contender", "envs", "seeds", "updates_per_call", "flags")


class Results:
    """The JSON file: for every part its rows, each with the command, versions and hardware it comes from."""

    def __init__(self, path: Path, command: str):
        self.path, self.command = path, command
        self.parts: dict[str, list[Row]] = json.loads(path.read_text()) if path.exists() else {}

    def add(self, part: str, row: Row, provenance: Row) -> None:
        """Put a row into the file."""
        row = {**row, "command": self.command, "provenance": provenance}
        rows = self.parts.setdefault(part, [])
        same = [index for index, old in enumerate(rows) if _key(old) == _key(row)]
        if same:
            rows[same[0]] = row
        else:
            rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(self.parts, indent=1) + "\n")
        beside.replace(self.path)


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in KEY)


def _plain(name: str, form: str = "") -> Callable[[Row], str]:
    return lambda row: format(row[name], form)


def _times(name: str) -> Callable[[Row], str]:
    return lambda row: f"{number(row[name]['median'])} / {number(row[name]['min'])} ({row[name]['n']})"


def _ratio(name: str) -> Callable[[Row], str]:
    return lambda row: "{median:.2f} ({min:.2f} to {max:.2f})".format(**row[name])


def _bytes(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[name] / 1e9:.2f} GB"


def number(value: float) -> str:
    """Three figures, without an exponent."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


CASE, WHO = ("case", _plain("case")), ("contender", _plain("contender"))
PROGRAM = [
    ("parameters", _plain("parameters", ",")),
    ("trace s", _plain("trace_s", ".1f")),
    ("compile s", _plain("compile_s", ".1f")),
    ("update ms, median / min (n)", _times("update_ms")),
]
WORK = [
    ("GFLOP", lambda row: number(row["flops"] / 1e9)),
    ("GFLOP/s", lambda row: number(row["gflops"])),
    ("of matmul", lambda row: f"{row['gflops'] / row['matmul_gflops']:.1%}"),
]
COLUMNS: dict[str, list[tuple[str, Callable[[Row], str]]]] = {
    "update": [CASE, WHO, *PROGRAM, *WORK, ("peak memory", _bytes("peak_rss")), ("times ours", _ratio("ratio"))],
    "policy": [
        CASE, WHO, ("envs", _plain("envs")), ("step ms, median / min (n)", _times("policy_ms")),
        ("times ours", _ratio("ratio")),
    ],
    "replay": [
        CASE, WHO, ("sample ms, median / min (n)", _times("sample_ms")), ("times ours", _ratio("sample_ratio")),
        ("add ms, median / min (n)", _times("add_ms")), ("times ours", _ratio("add_ratio")),
    ],
    "loop": [
        CASE, ("loop", _plain("contender")), ("env steps per s, median (min to max)", _ratio("env_steps_per_s")),
        ("updates per s", _plain("updates_per_s", ".1f")), ("times the first's speed", _ratio("ratio")),
    ],
    "scaling": [
        CASE, *PROGRAM, ("times the base", _plain("times_base", ".2f")),
        ("us per replayed step", _plain("us_per_step", ".1f")), *WORK,
    ],
    "gpu": [
        CASE, ("flags", _plain("flags")), ("seeds", _plain("seeds")),
        ("updates per call", _plain("updates_per_call")),
        *PROGRAM, ("ms per seed", _plain("ms_per_seed", ".3g")), *WORK, ("device memory", _bytes("peak_device")),
        ("policy ms, 1 env", _times("policy_ms_1")), ("16 envs", _times("policy_ms_16")),
    ],
}  # fmt: skip


def cells(part: str, row: Row) -> list[str]:
    """The row as text; what it does not hold is left empty, and a failure is told in the last column."""
    out = []
    for _, show in COLUMNS[part]:
        try:
            out.append(show(row))
        except (KeyError, TypeError):
            out.append("")
    if "failed" in row:
        out[-1] = "failed"
    return out


def show(part: str, rows: list[Row]) -> None:
    """Print the rows as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=part)
    for header, _ in COLUMNS[part]:
        table.add_column(header)
    for row in rows:
        table.add_row(*cells(part, row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # into a file rich would fold the table into 80 columns
    console.print(table)
    for row in rows:
        if "failed" in row:
            console.print(f"{row['case']}: {row['failed']}", markup=False, highlight=False)


def markdown(part: str, rows: list[Row]) -> list[str]:
    """The rows as lines of a Markdown table; those that failed are left out."""
    headers = [header for header, _ in COLUMNS[part]]
    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    return lines + ["| " + " | ".join(cells(part, row)) + " |" for row in rows if "failed" not in row]
