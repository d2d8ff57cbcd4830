"""Replay in the memory of the device: pure functions over one state, to be jitted, scanned and vmapped.

The contract of `HostReplay`, with the same index arithmetic and the same saved form, so that a checkpoint of one
can be restored in the other. Only the random numbers differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.replay import windows
from dreamer_agent.replay.host import STAMP, HostReplay, Layout, map_layout, ring_length
from dreamer_agent.replay.saved import Mark, Saved, difference
from dreamer_agent.replay.trees import Tree, pairs

Array = jax.Array
NEVER = np.iinfo(np.int32).max
PIECE = 4096  # rows that are fetched at once


class ReplayState(NamedTuple):
    """Rings `[E, length, ...]`, steps added and fresh windows served to each stream `[E]`, and samples drawn.

    `stamps` `[E, length]` hold the number of the last of `writes` into each step since it was added.
    """

    data: Tree
    added: Array
    served: Array
    samples: Array
    stamps: Array
    writes: Array


@dataclass(frozen=True, eq=False)  # compared by identity, so that jit can hold it as a static argument
class DeviceReplay:
    """The sizes of a replay, and its functions; see `HostReplay` for what the sizes mean.

    Counters are int32: good for 2 billion steps of each stream.
    """

    layout: Layout
    num_envs: int
    capacity: int
    batch_size: int
    batch_length: int
    context: int = 1
    online: bool = True

    def __post_init__(self) -> None:
        ring_length(self.capacity, self.num_envs, self.size)  # it says where that is too short

    @property
    def length(self) -> int:
        """Steps that each stream holds."""
        return ring_length(self.capacity, self.num_envs, self.size)

    @property
    def size(self) -> int:
        """Steps of a window."""
        return self.context + self.batch_length

    def init(self) -> ReplayState:
        """An empty replay."""
        data = map_layout(
            lambda shape, dtype: jnp.zeros((self.num_envs, self.length, *shape), dtype), self.layout
        )
        zeros, zero = jnp.zeros(self.num_envs, jnp.int32), jnp.zeros((), jnp.int32)
        stamps = jnp.zeros((self.num_envs, self.length), STAMP)
        return ReplayState(data, zeros, jnp.zeros_like(zeros), zero, stamps, jnp.zeros_like(zero))

    def add(self, state: ReplayState, step: Tree, mask: Array | None = None) -> ReplayState:
        """Append one step `[E, ...]` to every stream, or to those where `mask` `[E]` is true."""
        slots = state.added % self.length
        if mask is not None:
            slots = jnp.where(mask, slots, self.length)  # beyond the ring: dropped
        data = _written(state.data, step, jnp.arange(self.num_envs), slots)
        return state._replace(data=data, added=state.added + (1 if mask is None else mask.astype(jnp.int32)))

    def ready(self, state: ReplayState) -> Array:
        """Whether at least one window can be sampled."""
        return windows.window_counts(state.added, self.length, self.size).sum() > 0

    def sample(self, state: ReplayState, key: Array) -> tuple[ReplayState, Tree, Array]:
        """The state, a batch `[B, C + T, ...]` and its ids `[B, 2]`, as of `HostReplay.sample`.

        What is sampled depends on `key` and on how often was sampled. The replay must be `ready`.
        """
        served, ids = self._choose(state, jax.random.fold_in(key, state.samples))
        streams, steps = ids[:, :1], ids[:, 1:] + jnp.arange(self.size)
        batch = jax.tree.map(lambda store: store[streams, steps % self.length], state.data)
        known = steps + 1 < state.added[streams]
        follower = state.data["is_first"][streams, (steps + 1) % self.length]
        batch["is_last"] = batch["is_last"] | (follower & known)
        return state._replace(served=served, samples=state.samples + 1), batch, ids

    def update_latents(
        self, state: ReplayState, ids: Array, latents: Tree, wanted: Array | bool = True
    ) -> ReplayState:
        """Write posterior latents `[B, T, ...]` back to the trained steps of the windows `ids`, if still held.

        Where windows overlap, any one of their latents stays. Nothing is written where `wanted` is false.
        """
        streams = ids[:, :1]
        steps = ids[:, 1:] + self.context + jnp.arange(self.batch_length)
        held = (steps >= windows.oldest(state.added, self.length)[streams]) & wanted
        slots = jnp.where(held, steps % self.length, self.length)
        stored = _written(state.data["latent"], latents, streams, slots)
        return _stamped(state, {"latent": stored}, streams, slots)

    def dropped(self, state: ReplayState) -> bool:
        """Whether old steps were overwritten."""
        return bool(np.max(state.added) > self.length)

    def cut(self, state: ReplayState) -> ReplayState:
        """Close every stream: its last step is served as is_last. For environments that start anew."""
        slots = jnp.where(state.added > 0, (state.added - 1) % self.length, self.length)
        streams = jnp.arange(self.num_envs)
        is_last = state.data["is_last"].at[streams, slots].set(True, mode="drop")
        return _stamped(state, {"is_last": is_last}, streams, slots)

    def mark(self, state: ReplayState) -> Mark:
        """As of `HostReplay`."""
        return Mark(np.array(state.added, np.int64), int(state.writes))

    def save(self, state: ReplayState, since: Mark | None = None) -> Saved:
        """As `HostReplay.save`."""
        return self.save_later(state, since)()

    def save_later(self, state: ReplayState, since: Mark | None = None) -> Callable[[], Saved]:
        """As `HostReplay.save_later`; until it is called, the rows take memory of the device a second time."""
        added, served = np.array(state.added, np.int64), np.array(state.served, np.int64)

        def take(names: tuple[str, ...], streams: np.ndarray, slots: np.ndarray) -> Callable[[], Tree]:
            return _taken({name: state.data[name] for name in names or state.data}, streams, slots)

        counters = self.length, added, served, int(state.samples)
        return difference(since, *counters, np.asarray(state.stamps), take)

    def restore(self, saved: Iterable[Saved]) -> ReplayState:
        """The state that `save` of this or of the host's replay gave; see `HostReplay.restore`."""
        host = self._host()
        host.restore(saved)
        added, served, samples, writes = (
            jnp.asarray(x, jnp.int32) for x in (host.added, host.served, host.samples, host.writes)
        )
        data, stamps = jax.tree.map(jnp.array, (host.data, host.stamps))
        return ReplayState(data, added, served, samples, stamps, writes)

    def _host(self) -> HostReplay:
        return HostReplay(
            self.layout, self.num_envs, self.capacity, self.batch_size, self.batch_length, self.context,
            self.online,
        )  # fmt: skip

    def _choose(self, state: ReplayState, key: Array) -> tuple[Array, Array]:
        """The fresh windows served so far, and the `[B, 2]` streams and first steps of a batch."""
        total = windows.window_counts(state.added, self.length, self.size).sum()
        index = jax.random.randint(key, (self.batch_size,), 0, total)
        drawn = jnp.stack(windows.nth_window(index, state.added, self.length, self.size), 1)
        if not self.online:
            return state.served, drawn
        served, fresh, valid = self._fresh(state)
        return served, jnp.where(valid[:, None], fresh, drawn)

    def _fresh(self, state: ReplayState) -> tuple[Array, Array, Array]:
        """What was served with these, up to a batch of windows of the online queue `[B, 2]`, and which exist.

        Candidates are the next B windows of each stream; the oldest come first, among equals the first stream.
        """
        served = windows.next_fresh(state.served, state.added, self.length, self.batch_length)
        numbers = served[:, None] + jnp.arange(self.batch_size)
        waiting = numbers < windows.fresh_counts(state.added, self.batch_length, self.size)[:, None]
        rank = (numbers - served.min()) * self.num_envs + jnp.arange(self.num_envs)[:, None]
        first = -jax.lax.top_k(-jnp.where(waiting, rank, NEVER).ravel(), self.batch_size)[0]
        valid = first != NEVER
        streams, chosen = first % self.num_envs, first // self.num_envs + served.min()
        served = served.at[streams].add(valid.astype(jnp.int32))
        return served, jnp.stack([streams, chosen * self.batch_length], 1), valid


def _stamped(state: ReplayState, changed: Tree, streams: Array, slots: Array) -> ReplayState:
    """`state` with `changed` data, which was written at `[streams, slots]`."""
    writes = state.writes + 1
    stamps = state.stamps.at[streams, slots].set(writes, mode="drop")
    return state._replace(data=state.data | changed, stamps=stamps, writes=writes)


def _taken(data: Tree, streams: np.ndarray, slots: np.ndarray) -> Callable[[], Tree]:
    """Copies of rows of `data` for the host to fetch; in pieces of one size, so that one program makes all."""
    count = len(streams)
    pieces = []
    for start in range(0, max(count, 1), PIECE):
        index = np.zeros((2, PIECE), np.int32)
        part = np.stack([streams[start : start + PIECE], slots[start : start + PIECE]])
        index[:, : part.shape[1]] = part
        pieces.append(_piece(data, index))

    def fetch() -> Tree:
        return jax.tree.map(lambda *x: np.concatenate(x)[:count], *jax.device_get(pieces))

    return fetch


@jax.jit
def _piece(data: Tree, index: Array) -> Tree:
    return jax.tree.map(lambda store: store[index[0], index[1]], data)


def _written(stores: Tree, values: Tree, streams: Array, slots: Array) -> Tree:
    """`stores` with `values` at `[streams, slots]`; slots beyond the ring are dropped."""
    pairs(stores, values)  # it says where their names differ

    def write(store: Array, value: Any) -> Array:
        return store.at[streams, slots].set(jnp.asarray(value).astype(store.dtype), mode="drop")

    return jax.tree.map(write, stores, values)
