"""The report of a benchmark: one page as Markdown and HTML, its figures, and all of its numbers as JSON."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamer_agent.bench.benchmark import LABELS, Benchmark
from dreamer_agent.bench.finished import NOT_BEGUN, Finished, finished_of
from dreamer_agent.bench.jobs import Job
from dreamer_agent.bench.page import markdown
from dreamer_agent.bench.records import keep, recorded
from dreamer_agent.bench.results import collect, not_run, overlay
from dreamer_agent.bench.text import short
from dreamer_agent.errors import RunDirectoryError
from dreamer_agent.files import write_text

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; font-size: 13px; }
th, td { border: 1px solid #ccc; padding: .25rem .55rem; text-align: left; }
th { background: #f3f3f3; } img { max-width: 100%; } code { background: #f3f3f3; padding: 0 .2rem; }
"""


def write_report(benchmark: Benchmark, jobs: Sequence[Job], folder: Path, command: str) -> dict[str, Any]:
    """Write `report.md`, `report.html`, `report.json`, `curves.json` and figures; gives the JSON's content.

    The report is on the finished ones of `jobs`, whose records are kept beside it, and on every other run of
    `benchmark` that has a record there; runs that do not count are named in it. Raises `RunDirectoryError` where
    no run does.
    """
    here, unfinished = finished_of(jobs)
    keep(here, folder)
    finished, unfit = recorded(benchmark, folder)
    if not finished:
        raise RunDirectoryError("There is nothing to report: no run of the benchmark is finished there.")
    known = {one.key for one in finished}
    missing = [one for one in unfinished if (one["task"], one["method"], one["seed"]) not in known] + unfit
    if benchmark.defined:  # then these are in what was not run
        missing = [one for one in missing if one["why"] != NOT_BEGUN]
    content = {"command": command, **collect(benchmark, finished, missing)}
    content["not_run"] = not_run(benchmark, finished)
    write_text(folder / "report.json", json.dumps(content, indent=1) + "\n")
    write_text(folder / "curves.json", json.dumps(overlay(finished)) + "\n")
    figures = _draw(content, finished, folder)
    page = markdown(content, figures)
    write_text(folder / "report.md", page)
    write_text(folder / "report.html", as_html(page, content["title"], folder))
    return content


def as_html(page: str, title: str, folder: Path) -> str:
    """The page as one HTML file that holds its pictures."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(page)

    def embedded(match: re.Match[str]) -> str:
        data = base64.b64encode((folder / match.group(1)).read_bytes()).decode()
        return f'src="data:image/png;base64,{data}"'

    body = re.sub(r'src="([\w.-]+\.png)"', embedded, body)
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}</body></html>\n'


def _kind(published: dict[str, Any]) -> str:
    """What a legend adds to a published curve that is not of training episodes, as the axis says."""
    return " (evaluation)" if published["metric"] == "eval_return" or not published["bins"] else ""


def _draw(content: dict[str, Any], finished: Sequence[Finished], folder: Path) -> list[str]:
    from dreamer_agent.plots.benchmarks import Panel, curve_of_tenths, draw_benchmark, draw_profiles

    panels, drawn = [], []
    for task in content["tasks"]:
        groups: dict[str, list] = {}
        for one in finished:
            if one.job.task.env == task["env"]:
                label = LABELS.get(one.job.method, one.job.method)
                groups.setdefault(label, []).append((one.frames(), one.episodes.returns))
        beside = task["beside"] or {"published": [], "drawn": []}
        published = {
            f"{one['method']}, {short(one['budget'])}{_kind(one)}": curve_of_tenths(one["curve"], one["bins"])
            for one in beside["published"]
            if one["curve"] and one["method"] in beside["drawn"]
        }
        budgets = [one["steps"] * one["frames_per_step"] for one in task["methods"].values()]
        lines = {"goal": task["goal"]} if task["goal"] is not None else {}
        unit = "frames" if task["frames_per_step"] > 1 else "env steps"
        panels.append(Panel(task["env"], groups, published, lines, unit, max(budgets) > 4 * min(budgets)))
    if panels:
        draw_benchmark(panels, folder / "curves.png")
        drawn.append("curves.png")
    if content["aggregate"]:
        profiles = {LABELS.get(name, name): one["profile"] for name, one in content["aggregate"].items()}
        draw_profiles(profiles, content["scale"], folder / "profile.png")
        drawn.append("profile.png")
    return drawn
