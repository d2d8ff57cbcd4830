"""What `dreamer-agent dream RUN --report` does."""

from __future__ import annotations

import json
from pathlib import Path

from dreamer_agent.api import dream_report, output_folder, run_config
from dreamer_agent.dreams import DreamReport
from dreamer_agent.errors import ConfigError
from dreamer_agent.files import write_text
from dreamer_agent.plots.report import draw_report, report_table


def show_report(run: str | Path, windows: int, horizons: str, observed: int | None = None) -> None:
    """Measure the world model of `run` at `horizons` ("1,5,10"); show the numbers and write them down."""
    from rich.console import Console

    report = dream_report(run, windows, parse_horizons(horizons), observed=observed)
    console = Console()
    console.print(report_table(report, f"{run}: the world model on fresh episodes, by horizon"))
    for line in (*(f"note: {note}" for note in report.notes), *map(str, write_report(report, run))):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def write_report(report: DreamReport, run: str | Path) -> list[Path]:
    """Write the report of `run` as numbers and as a picture to its folder `dream/`; gives both paths."""
    folder, env = output_folder(run) / "dream", run_config(run).env.id
    numbers, picture = folder / "report.json", folder / "report.png"
    draw_report(report, picture, env)
    write_text(numbers, json.dumps({"env": env, **report.as_dict()}, indent=1) + "\n")
    return [numbers, picture]


def parse_horizons(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--horizons takes whole numbers with commas between them, such as 1,5,10; got '{text}'."
        ) from None
