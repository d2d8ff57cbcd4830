"""Published scores and learning curves of other work, with the source and licence of each row.

`scores.csv` ships with the package. Its columns: `suite`, `task`, `method`; `metric` (what is averaged),
`budget_env_steps` (frames for DeepMind Control and Atari; 0 where there is none), `n_seeds`; `mean`,
`std_over_seeds`, `min_seed`, `max_seed` of the final value, over `final_window`; `c10` to `c100`, the curve by
tenths of the budget, to be read with `curve_kind`; `license` and `source`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).parent / "scores.csv"
TENTHS = tuple(f"c{number}" for number in range(10, 101, 10))
# Metrics that are no returns, and what reports call them.
NUMBERS = {"crafter_score_%": "Crafter score over training, %"}
RETURNS = ("train_episode_return", "return", "eval_return")  # metrics that a mean return compares with


@dataclass(frozen=True)
class Published:
    """One published result: its final value, and where there is one its curve.

    `bins`: the curve is the mean over each tenth of the budget; else it is the value at the end of each.
    """

    suite: str
    task: str
    method: str
    metric: str
    budget: int  # frames
    seeds: str
    mean: float
    std: float | None
    curve: tuple[float | None, ...]  # ten values, None where one is missing
    bins: bool
    final_window: str
    license: str
    source: str

    def tenths(self) -> list[tuple[float, float, float]]:
        """First and last frame of each tenth that has a value, and the value."""
        width = self.budget / 10
        pairs = enumerate(self.curve)
        return [(number * width, (number + 1) * width, value) for number, value in pairs if value is not None]


def published(suites: Iterable[str], task: str) -> list[Published]:
    """All results for `task` in any of `suites` whose metric is an episode's return."""
    return _chosen(suites, task, RETURNS)


def published_numbers(suites: Iterable[str], task: str) -> list[Published]:
    """All results for it whose metric is another one that our reports have, too (`NUMBERS`)."""
    return _chosen(suites, task, NUMBERS)


def _chosen(suites: Iterable[str], task: str, metrics: Iterable[str]) -> list[Published]:
    wanted, kept = list(suites), list(metrics)
    return [one for one in _all() if one.suite in wanted and one.task == task and one.metric in kept]


@cache
def _all() -> tuple[Published, ...]:
    with FILE.open(newline="") as file:
        return tuple(_row(row) for row in csv.DictReader(file) if row["mean"])


def _row(row: dict[str, str]) -> Published:
    return Published(
        row["suite"], row["task"], row["method"], row["metric"], int(float(row["budget_env_steps"] or 0)),
        row["n_seeds"], float(row["mean"]), _number(row["std_over_seeds"]),
        tuple(_number(row[name]) for name in TENTHS), "bin" in row["curve_kind"], row["final_window"],
        row["license"], row["source"],
    )  # fmt: skip


def _number(text: str) -> float | None:
    return float(text) if text else None
