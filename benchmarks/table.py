"""Prints the results in benchmarks/results/ as Markdown tables, for README.md and docs/benchmarks.md.

python -m benchmarks.table
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.speed.report import COLUMNS, markdown

RESULTS = Path(__file__).parent / "results"


def learning_rows() -> list[str]:
    rows = [
        "| environment | preset | env steps | seeds | sampled action | likeliest action | goal | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(RESULTS.glob("learning_*.json")):
        content = json.loads(path.read_text())
        seeds = content["seeds"]
        scores = [
            " / ".join(f"{entry['scores'][which]['return_mean']:.4g}" for entry in seeds) for which in (0, 1)
        ]
        minutes = " / ".join(f"{entry['minutes']:.1f}" for entry in seeds)
        steps = max(entry["env_steps"] for entry in seeds)
        settings = ", ".join(f"`{name}`" for name in (content["preset"], *content.get("overrides", [])))
        rows.append(
            f"| {content['env']} | {settings} | {steps:,} | {len(seeds)} | {scores[0]} | {scores[1]} "
            f"| ≥ {content['goal']:g} | {minutes} |"
        )
    return rows


def speed_rows() -> list[str]:
    lines = []
    for part, rows in json.loads((RESULTS / "speed.json").read_text()).items():
        if part in COLUMNS:
            lines += [f"### {part}", "", *markdown(part, rows), ""]
    return lines


def main() -> None:
    print("\n".join(learning_rows()))
    if (RESULTS / "speed.json").exists():
        print("\n" + "\n".join(speed_rows()))


if __name__ == "__main__":
    main()
