"""Numbers over episodes, seeds and tasks.

As Agarwal et al. 2021 advise ("Deep Reinforcement Learning at the Edge of the Statistical Precipice"):
interquartile means, performance profiles, and intervals by a bootstrap that is stratified over tasks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

EPISODES = 10  # whose mean return must reach a threshold
RESAMPLES = 2000
CONFIDENCE = 0.95


class Episodes(NamedTuple):
    """Training episodes of a run, in groups that were logged together: arrays `[G]`."""

    steps: np.ndarray  # env steps at which a group was logged
    returns: np.ndarray  # mean return of its episodes
    counts: np.ndarray  # how many they are


class Estimate(NamedTuple):
    """A number and its 95% interval, which is None where there are too few runs for one."""

    value: float
    low: float | None
    high: float | None


def episodes_of(rows: Sequence[dict[str, Any]]) -> Episodes:
    """The training episodes in a run's rows of metrics ("episode/count" counts from the start of the run)."""
    groups, before = [], 0.0
    for row in rows:
        count = row.get("episode/count", before)
        if row.get("episode/return") is not None and count > before:
            groups.append((row["step"], row["episode/return"], count - before))
        before = max(count, before)
    steps, returns, counts = zip(*groups, strict=True) if groups else ((), (), ())
    return Episodes(np.array(steps, float), np.array(returns, float), np.array(counts, float))


def mean_between(episodes: Episodes, first: float, last: float) -> float | None:
    """Mean return of the episodes logged after env step `first` and up to `last`; None where there are none."""
    inside = (episodes.steps > first) & (episodes.steps <= last)
    if not inside.any():
        return None
    return float(np.average(episodes.returns[inside], weights=episodes.counts[inside]))


def steps_to(episodes: Episodes, threshold: float, window: int = EPISODES) -> float | None:
    """The first logged env step at which the mean return of the last `window` episodes is at least `threshold`.

    Groups are taken whole, so that a few more episodes may be in the window. None where it is never reached.
    """
    for end in range(len(episodes.steps)):
        start, seen = end, episodes.counts[end]
        while seen < window and start > 0:
            start -= 1
            seen += episodes.counts[start]
        if seen < window:
            continue
        part = slice(start, end + 1)
        if np.average(episodes.returns[part], weights=episodes.counts[part]) >= threshold:
            return float(episodes.steps[end])
    return None


def median_of_steps(steps: Sequence[float | None]) -> tuple[float | None, float | None, float | None]:
    """Median, least and most of steps to a threshold; None stands for never, which is more than any number.

    A median between a number and never is never.
    """
    if not steps:
        return None, None, None
    values = np.array([np.inf if one is None else one for one in steps])
    return tuple(None if np.isinf(x) else float(x) for x in (np.median(values), values.min(), values.max()))  # type: ignore[return-value]


def iqm(values: np.ndarray) -> float:
    """Interquartile mean: that of the middle half."""
    from scipy.stats import trim_mean

    return float(trim_mean(values, 0.25))


def aggregate(scores: Sequence[np.ndarray]) -> dict[str, Estimate]:
    """Mean, median and IQM of `scores`, one array over seeds for each task, with bootstrap intervals.

    The mean and the median are those over the tasks' means, the IQM that over all runs. Seeds are drawn anew
    within each task.
    """
    return {
        "IQM": _bootstrapped(scores, lambda *tasks: iqm(np.concatenate(tasks))),
        "median": _bootstrapped(scores, lambda *tasks: float(np.median([np.mean(task) for task in tasks]))),
        "mean": _bootstrapped(scores, lambda *tasks: float(np.mean([np.mean(task) for task in tasks]))),
    }


def clustered_ratio(numerators: np.ndarray, denominators: np.ndarray, clusters: np.ndarray) -> Estimate | None:
    """The sum of `numerators` `[N]` over that of `denominators` `[N]`, None where the latter is zero.

    With denominators of one it is a mean. Clusters (say, the episodes `[N]` that the numbers come from) are drawn
    anew as wholes, since numbers of one are alike: drawn one by one they would give too narrow an interval.
    """
    _, places = np.unique(clusters, return_inverse=True)
    above, below = (np.bincount(places, np.asarray(x, float)) for x in (numerators, denominators))
    if not below.sum():
        return None
    value = float(above.sum() / below.sum())
    if len(above) < 2:
        return Estimate(value, None, None)
    drawn = np.random.default_rng(0).integers(0, len(above), (RESAMPLES, len(above)))
    sums = below[drawn].sum(1)
    ratios = above[drawn].sum(1)[sums > 0] / sums[sums > 0]
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def profile(scores: Sequence[np.ndarray], points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Performance profile: the share of runs that score more than each of `points`, and its 95% band, `[P]` each.

    The band equals the profile where a task has fewer than two seeds.
    """

    def shares(tasks: Sequence[np.ndarray]) -> np.ndarray:
        return (np.concatenate(tasks)[:, None] > points).mean(0)

    value = shares(scores)
    if min(map(len, scores), default=0) < 2:
        return value, value, value
    rng = np.random.default_rng(0)
    drawn = [shares([rng.choice(task, len(task)) for task in scores]) for _ in range(RESAMPLES)]
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn, [tail, 100 - tail], axis=0)
    return value, low, high


def _bootstrapped(scores: Sequence[np.ndarray], statistic: Callable[..., float]) -> Estimate:
    from scipy.stats import bootstrap

    value = statistic(*scores)
    if min(map(len, scores), default=0) < 2:
        return Estimate(value, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of equal samples, whose interval is a point
        found = bootstrap(
            tuple(scores), statistic, n_resamples=RESAMPLES, vectorized=False, method="percentile",
            confidence_level=CONFIDENCE, rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    return Estimate(value, float(found.low), float(found.high))
