"""What is written down of a replay: the steps that came and the rows that changed since something earlier was."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dreamer_agent.replay.trees import Tree, pairs

MUTABLE = ("latent", "is_last")  # what may change in a step after it was added
Take = Callable[[tuple[str, ...], np.ndarray, np.ndarray], Callable[[], Tree]]  # names, streams, slots -> rows


class Mark(NamedTuple):
    """A point in the history of a replay: steps added to each stream `[E]`, and writes into older steps."""

    added: np.ndarray
    writes: int

    def same_as(self, other: Mark | None) -> bool:
        """Whether nothing happened in between."""
        return other is not None and self.writes == other.writes and np.array_equal(self.added, other.added)


class Saved(NamedTuple):
    """The difference to an earlier `Mark`; from the very beginning, where there was none.

    `steps` are those numbered `first` to `added - 1` of each stream `[E]`, one stream after the other, as a tree
    `[N, ...]`. `changed` has rows `[M]` of older steps that were written to since: "stream", "step" and what may
    change. Either is empty where there is none. `length` is that of the rings. All arrays are copies.
    """

    length: int
    first: np.ndarray
    added: np.ndarray
    served: np.ndarray
    samples: int
    steps: Tree
    changed: Tree


def difference(
    since: Mark | None, length: int, added: np.ndarray, served: np.ndarray, samples: int, stamps: np.ndarray,
    take: Take,
) -> Callable[[], Saved]:  # fmt: skip
    """The `Saved` of a replay of these counters; `stamps` `[E, length]` tell which write each slot saw last.

    `take` is asked for the rows now, and they are fetched from what it gives when the `Saved` is.
    """
    oldest = (added - length).clip(0)
    before = np.zeros_like(added) if since is None else since.added
    first = np.maximum(before, oldest)
    streams, steps = _numbers(first, added)
    changed_streams, changed_steps = _numbers(oldest, first)
    written = stamps[changed_streams, changed_steps % length] > (0 if since is None else since.writes)
    changed_streams, changed_steps = changed_streams[written], changed_steps[written]
    rows, changed = take((), streams, steps % length), take(MUTABLE, changed_streams, changed_steps % length)
    names = {"stream": changed_streams.astype(np.int32), "step": changed_steps}
    counters = first, added.copy(), served.copy(), samples
    return lambda: Saved(length, *counters, rows(), names | changed())


def _numbers(begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Streams and numbers of the steps `begin[e]` to `end[e] - 1` of every stream."""
    counts = (end - begin).clip(0)
    streams = np.repeat(np.arange(len(counts)), counts)
    offsets = np.cumsum(counts) - counts
    return streams, begin[streams] + np.arange(len(streams)) - offsets[streams]


def put_back(saved: Saved, data: Tree, length: int) -> None:
    """Write `saved` into the rings `data` `[E, length, ...]`, whose steps from before it are there already."""
    if len(saved.added) != len(data["reward"]):
        raise ValueError(f"Saved were {len(saved.added)} streams, this replay has {len(data['reward'])}.")
    oldest = (saved.added - length).clip(0)
    if saved.steps:
        streams, steps = _numbers(saved.first, saved.added)
        _write(data, saved.steps, streams, steps, oldest, length)
    if saved.changed:
        streams, steps = saved.changed["stream"], saved.changed["step"]
        changed = {name: saved.changed[name] for name in MUTABLE}
        _write({name: data[name] for name in MUTABLE}, changed, streams, steps, oldest, length)


def _write(
    data: Tree, rows: Tree, streams: np.ndarray, steps: np.ndarray, oldest: np.ndarray, length: int
) -> None:
    held = steps >= oldest[streams]
    for store, value in pairs(data, rows):
        value = np.asarray(value)
        if value.shape[1:] != store.shape[2:]:
            raise ValueError(
                f"Saved steps have the shape {value.shape[1:]}, those of this replay {store.shape[2:]}."
            )
        if value.dtype != store.dtype:
            raise ValueError(f"Saved steps have the type {value.dtype}, those of this replay {store.dtype}.")
        if held.all():
            store[streams, steps % length] = value
        else:
            store[streams[held], (steps % length)[held]] = value[held]


class Reach:
    """How far back what was put into a replay goes without a gap, over several `Saved` in their order."""

    def __init__(self) -> None:
        self.since: np.ndarray | None = None
        self.until: np.ndarray | None = None

    def extend(self, saved: Saved) -> None:
        """Take in the next one."""
        if self.since is None or self.until is None:
            self.since = saved.first
        else:
            self.since = np.where(saved.first <= self.until, self.since, saved.first)
        self.until = saved.added

    def check(self, length: int) -> None:
        """Raise `ValueError` where streams of `length` steps would be expected to hold some that are missing."""
        assert self.since is not None and self.until is not None
        if (self.since > (self.until - length).clip(0)).any():
            raise ValueError(f"Streams whose saved steps begin at {self.since.tolist()} cannot grow to {length}.")
