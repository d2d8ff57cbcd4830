"""Index arithmetic of a ring of experience, shared by every replay.

A replay holds one stream of steps for each environment. `added` `[E]` counts the steps that ever entered
each stream; step number n lies in slot n % length of its ring. A window is `size` consecutive steps, named
by its stream and the number of its first step. All functions are pure and take NumPy or JAX arrays.
"""

from __future__ import annotations

from typing import Any

Array = Any


def oldest(added: Array, length: int) -> Array:
    """Number of the oldest step that is still held, for each stream."""
    return (added - length).clip(0)


def window_counts(added: Array, length: int, size: int) -> Array:
    """How many whole windows each stream holds."""
    return (added - oldest(added, length) - size + 1).clip(0)


def nth_window(index: Array, added: Array, length: int, size: int) -> tuple[Array, Array]:
    """Stream and first step of the windows with the given flat `index` (below the sum of the counts)."""
    ends = window_counts(added, length, size).cumsum()
    stream = (index[:, None] >= ends[None, :]).sum(-1)
    before = (ends - window_counts(added, length, size))[stream]
    return stream, oldest(added, length)[stream] + index - before


def fresh_counts(added: Array, stride: int, size: int) -> Array:
    """How many windows of the online queue each stream has completed: they start every `stride` steps."""
    return ((added - size) // stride + 1).clip(0)


def next_fresh(served: Array, added: Array, length: int, stride: int) -> Array:
    """Number of the next window of the online queue; those that were overwritten are skipped."""
    first_held = -(-oldest(added, length) // stride)
    return served * (served >= first_held) + first_held * (served < first_held)
