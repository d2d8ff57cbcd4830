"""Episodes that were watched, and the windows of them that a report imagines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dreamer_agent.errors import ConfigError

Episode = dict[str, Any]  # consecutive steps of one episode, nested arrays [T, ...], as they are stored
OBSERVED = 5  # steps that are seen before the first imagined one, where nothing else is asked for


class Windows(NamedTuple):
    """W stretches of episodes: `rows` `[W, 1 + H, ...]`, the last step that was observed and the H that follow.

    Beyond the end of its episode a window repeats the last row: `valid` `[W, H]` is false there. `episode` `[W]`
    tells which windows are of one episode.
    """

    rows: dict[str, Any]
    valid: np.ndarray
    episode: np.ndarray


def split_episodes(steps: Sequence[dict[str, Any]], masks: Sequence[np.ndarray | None]) -> list[Episode]:
    """The episodes in consecutive steps `[E, ...]`, of which `masks` `[E]` (None: all) are there.

    They may begin late or end early: where the steps do.
    """
    stacked = jax.tree.map(lambda *x: np.stack(x), *steps)
    count = len(stacked["is_first"][0])
    there = np.stack([np.ones(count, bool) if mask is None else mask for mask in masks])
    episodes = []
    for env in range(count):
        own = jax.tree.map(lambda x, e=env: x[there[:, e], e], stacked)
        starts = own["is_first"].astype(bool)
        starts[1:] |= own["is_last"][:-1].astype(bool)
        edges = [*np.flatnonzero(starts), len(starts)]
        pieces = zip([0, *edges], edges, strict=False)
        episodes += [
            jax.tree.map(lambda x, a=a, b=b: x[a:b], own) for a, b in pieces if b > a
        ]  # fmt: skip
    return episodes


def length_of(episode: Episode) -> int:
    """How many steps it has, the reset among them."""
    return len(episode["is_first"])


def fitting(episodes: Sequence[Episode], observed: int | None) -> int:
    """How many steps are observed: `observed`, or if it is None five, or half of shorter episodes.

    Raises `ConfigError` where that leaves nothing to imagine.
    """
    longest = max(map(length_of, episodes), default=0)
    if observed is not None and observed < 1:
        raise ConfigError(f"{observed} observed steps were asked for: observe at least one.")
    if longest < 2 or longest <= (observed or 1):
        raise ConfigError(
            f"The longest episode has {longest} steps with its reset, which leaves nothing to imagine after "
            f"{observed or 1} observed: observe fewer, or take an environment with longer episodes."
        )
    return min(OBSERVED, longest // 2) if observed is None else observed


def choose_windows(
    episodes: Sequence[Episode], count: int, observed: int, horizons: Sequence[int], seed: int
) -> tuple[Windows, tuple[int, ...]]:
    """`count` windows or fewer, after at least `observed` steps of an episode; the `horizons` that some reach.

    They are divided among all episodes that are long enough; where in them they lie is drawn by `seed`. All have
    the shortest horizon that fits.
    """
    rng = np.random.default_rng(seed)
    longest = max(map(length_of, episodes)) - observed
    shortest = min([h for h in horizons if h <= longest], default=None)
    if shortest is None:
        raise ConfigError(
            f"No horizon of {', '.join(map(str, horizons))} fits: after {observed} observed steps episodes have "
            f"{longest} at most. Ask for shorter horizons."
        )
    starts = [rng.permutation(np.arange(observed - 1, length_of(e) - shortest)) for e in episodes]
    order = rng.permutation(len(episodes))
    turns = range(max(map(len, starts)))
    chosen = [(e, int(starts[e][turn])) for turn in turns for e in order if turn < len(starts[e])][:count]
    ahead = np.array([length_of(episodes[e]) - 1 - start for e, start in chosen])
    kept = tuple(sorted({h for h in horizons if h <= ahead.max()}))
    places = np.arange(1 + kept[-1])
    cut = [_rows(episodes[e], start + places) for e, start in chosen]
    rows = jax.tree.map(lambda *x: np.stack(x), *cut)
    return Windows(rows, places[None, 1:] <= ahead[:, None], np.array([e for e, _ in chosen])), kept


def _rows(episode: Episode, places: np.ndarray) -> dict[str, Any]:
    """Those at `places` of an episode; beyond its end the last one."""
    inside = np.minimum(places, length_of(episode) - 1)
    return jax.tree.map(lambda x: x[inside], episode)
