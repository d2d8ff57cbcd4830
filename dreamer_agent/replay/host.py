"""Replay in main memory: NumPy rings, bounded, with its size known before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from dreamer_agent.replay import windows
from dreamer_agent.replay.copying import LaterCopy
from dreamer_agent.replay.saved import Mark, Reach, Saved, difference, put_back
from dreamer_agent.replay.trees import Tree, map_tree, pairs

Layout = Mapping[str, Any]  # nested: name -> (shape, dtype) of one step
FLAGS = ("is_first", "is_last", "is_terminal")
STAMP = np.dtype(np.int32)  # for each step held: the number of the last write into it
Allocate = Callable[[tuple[int, ...], np.dtype], np.ndarray]  # zeros


class HostReplay:
    """Sequences of experience from `num_envs` streams.

    `layout` gives `(shape, dtype)` of every array of one step: `obs`, `action`, `reward`, the three flags
    and the packed `latent`. Batches are nested dicts `[B, context + length, ...]`. What is sampled depends
    on the seed and on how often was sampled, on nothing else.
    """

    def __init__(
        self, layout: Layout, num_envs: int, capacity: int, batch_size: int, batch_length: int,
        context: int = 1, online: bool = True, seed: int = 0, allocate: Allocate = np.zeros,
    ):  # fmt: skip
        self.batch_size, self.stride = batch_size, batch_length
        self.context, self.size = context, context + batch_length
        self.length = ring_length(capacity, num_envs, self.size)
        self.online, self.seed = online, seed
        self.data: Tree = map_layout(
            lambda shape, dtype: allocate((num_envs, self.length, *shape), dtype), layout
        )
        self.stamps, self.writes = np.zeros((num_envs, self.length), STAMP), 0
        self.added = np.zeros(num_envs, np.int64)
        self.served = np.zeros(num_envs, np.int64)
        self.samples = 0
        self.copies: list[LaterCopy] = []  # that may not be complete

    def add(self, step: Tree, mask: np.ndarray | None = None) -> None:
        """Append one step `[E, ...]` to every stream, or to those where `mask` `[E]` is true."""
        streams = np.arange(len(self.added)) if mask is None else np.flatnonzero(mask)
        slots = self.added[streams] % self.length
        self._before_writing((streams, slots))
        for store, value in pairs(self.data, step):
            store[streams, slots] = value if mask is None else np.asarray(value)[streams]
        self.added[streams] += 1

    def ready(self) -> bool:
        """Whether at least one window can be sampled."""
        return bool(windows.window_counts(self.added, self.length, self.size).sum())

    def sample(self) -> tuple[Tree, np.ndarray]:
        """A batch `[B, C + T, ...]` and its ids `[B, 2]` (stream and first step), for `update_latents`.

        Fresh windows of the online queue come first, the oldest ahead; the rest is uniform over all start
        steps. A row followed by an is_first is served as is_last, and so is one whose episode was cut.
        """
        streams, starts = self._choose()
        steps = starts[:, None] + np.arange(self.size)
        slots = steps % self.length
        batch = map_tree(lambda store: store[streams[:, None], slots], self.data)
        following = (steps + 1) % self.length
        known = steps + 1 < self.added[streams][:, None]
        batch["is_last"] = batch["is_last"] | (self.data["is_first"][streams[:, None], following] & known)
        return batch, np.stack([streams, starts], 1)

    def gather(self, ids: np.ndarray) -> Tree:
        """The rows of the windows `ids` as they are now, `[B, C + T, ...]`."""
        slots = (ids[:, 1:] + np.arange(self.size)) % self.length
        return map_tree(lambda store: store[ids[:, :1], slots], self.data)

    def update_latents(self, ids: np.ndarray, latents: Tree) -> None:
        """Write posterior latents `[B, T, ...]` back to the trained steps of the windows `ids`."""
        streams, starts = ids[:, :1], ids[:, 1:]
        steps = starts + self.context + np.arange(self.stride)
        held = steps >= windows.oldest(self.added, self.length)[streams]
        where = np.broadcast_to(streams, steps.shape)[held], (steps % self.length)[held]
        self._before_writing(where)
        for store, value in pairs(self.data["latent"], latents):
            store[where] = np.asarray(value)[held]
        self._stamp(where)

    @property
    def dropped(self) -> bool:
        """Whether old steps were overwritten."""
        return bool(self.added.max() > self.length)

    def cut(self) -> None:
        """Close every stream: its last step is served as is_last. For environments that start anew."""
        last = (self.added - 1) % self.length
        held = np.flatnonzero(self.added > 0)
        where = held, last[held]
        self._before_writing(where)
        self.data["is_last"][where] = True
        self._stamp(where)

    def mark(self) -> Mark:
        """Where the replay is now: what `save(since=mark)` gives later is what will have changed."""
        return Mark(self.added.copy(), self.writes)

    def save(self, since: Mark | None = None) -> Saved:
        """The steps held that are newer than `since`, what changed in older ones, and all counters; copies."""
        return self.save_later(since)()

    def save_later(self, since: Mark | None = None) -> Callable[[], Saved]:
        """What `save` gives now, copied when this is called: once, in a thread of its own if need be."""
        self.copies, before = [], [copy for copy in self.copies if not copy.done]
        counters = self.length, self.added, self.served, self.samples
        saved = difference(since, *counters, self.stamps, self._take)
        new, self.copies = self.copies, before + self.copies

        def call() -> Saved:
            try:
                return saved()
            finally:
                for copy in new:
                    copy.end()

        return call

    def restore(self, saved: Iterable[Saved]) -> None:
        """The inverse of a first `save` and those since, in order, into an empty replay of the same layout.

        Shorter streams keep the newest steps. Raises `ValueError` where steps are missing or do not fit.
        """
        reach = Reach()
        for each in saved:
            put_back(each, self.data, self.length)
            self.added, self.served, self.samples = each.added.copy(), each.served.copy(), int(each.samples)
            reach.extend(each)
        reach.check(self.length)

    def _take(self, names: tuple[str, ...], streams: np.ndarray, slots: np.ndarray) -> Callable[[], Tree]:
        data = {name: self.data[name] for name in names or self.data}
        self.copies.append(LaterCopy(data, self.stamps.shape, streams, slots))
        return self.copies[-1].result

    def _before_writing(self, where: Any) -> None:
        for copy in self.copies:
            copy.keep(where)

    def _stamp(self, where: Any) -> None:
        self.writes += 1
        self.stamps[where] = self.writes

    def _choose(self) -> tuple[np.ndarray, np.ndarray]:
        fresh = self._fresh() if self.online else np.zeros((0, 2), np.int64)
        rng = np.random.Generator(np.random.Philox(key=[self.seed, self.samples]))
        self.samples += 1
        total = windows.window_counts(self.added, self.length, self.size).sum()
        index = rng.integers(0, total, self.batch_size - len(fresh))
        streams, starts = windows.nth_window(index, self.added, self.length, self.size)
        return np.concatenate([fresh[:, 0], streams]), np.concatenate([fresh[:, 1], starts])

    def _fresh(self) -> np.ndarray:
        """Up to a batch of windows from the online queue, as `[n, 2]` streams and first steps."""
        self.served = windows.next_fresh(self.served, self.added, self.length, self.stride)
        waiting = (windows.fresh_counts(self.added, self.stride, self.size) - self.served).clip(0)
        streams = np.repeat(np.arange(len(waiting)), waiting)
        first = np.cumsum(waiting) - waiting
        numbers = self.served[streams] + np.arange(len(streams)) - first[streams]
        chosen = np.lexsort((streams, numbers))[: self.batch_size]
        np.add.at(self.served, streams[chosen], 1)
        return np.stack([streams[chosen], numbers[chosen] * self.stride], 1)


def step_layout(obs: Layout, action: Layout, latent: Layout) -> Layout:
    """The layout of one step from those of its observation, action and packed latent."""
    flags = {name: ((), np.dtype(bool)) for name in FLAGS}
    reward = ((), np.dtype(np.float32))
    return {"obs": obs, "action": action, "reward": reward, **flags, "latent": latent}


def ring_length(capacity: int, num_envs: int, size: int) -> int:
    """Steps that each of `num_envs` streams holds; `ValueError` where no window of `size` steps fits."""
    length = capacity // num_envs
    if length < size + 1:
        raise ValueError(f"A stream of {length} steps holds no window of {size}.")
    return length


def replay_bytes(layout: Layout, capacity: int) -> int:
    """Memory of a replay of `capacity` steps."""
    per_step = 0
    for value in layout.values():
        if isinstance(value, Mapping):
            per_step += replay_bytes(value, 1)
        else:
            shape, dtype = value
            per_step += int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return per_step * capacity


def bookkeeping_bytes(capacity: int) -> int:
    """What a replay of `capacity` steps takes beside them."""
    return capacity * STAMP.itemsize


def map_layout(function: Any, layout: Layout) -> Tree:
    """`function(shape, dtype)` for every array of `layout`, in nested dicts of the same names."""
    return {
        key: map_layout(function, value) if isinstance(value, Mapping) else function(*value)
        for key, value in layout.items()
    }
