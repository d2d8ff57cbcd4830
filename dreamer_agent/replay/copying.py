"""Copies of a ring that are made later, and hold what was there when they were asked for."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from dreamer_agent.replay.trees import map_tree, pairs

Tree = dict[str, Any]
PIECE = 1024  # rows that are copied while whoever writes to the ring may have to wait
PAUSE = 1e-4  # seconds between two pieces, in which it gets its turn: locks are not fair
NONE = -1


class LaterCopy:
    """The rows `[streams, slots]` of the rings `data` `[E, length, ...]` as they are now, not copied yet.

    `result` copies, piece by piece, in another thread; whoever writes to the rings calls `keep` before. What is
    written meanwhile costs one small copy more, instead of a wait for all of them.
    """

    def __init__(self, data: Tree, shape: tuple[int, int], streams: np.ndarray, slots: np.ndarray):
        self.data, self.streams, self.slots = data, streams, slots
        self.row = np.full(shape, NONE, np.int32)  # of the copy; none where there is nothing to copy any more
        self.row[streams, slots] = np.arange(len(streams))
        self.out = map_tree(lambda store: np.empty((len(streams), *store.shape[2:]), store.dtype), data)
        self.lock = threading.Lock()
        self.done = False

    def keep(self, where: Any) -> None:
        """Copy now what is about to be overwritten in the slots `where` of the rings."""
        with self.lock:
            rows = self.row[where]
            rows = rows[rows != NONE]
            if len(rows):
                self._copy(rows)

    def result(self) -> Tree:
        """The rows `[N, ...]`."""
        for start in range(0, len(self.streams), PIECE):
            with self.lock:
                piece = slice(start, start + PIECE)
                rows = self.row[self.streams[piece], self.slots[piece]]
                self._copy(rows[rows != NONE])
            time.sleep(PAUSE)
        return self.out

    def end(self) -> None:
        """Copy nothing any more, and let go of what was."""
        with self.lock:
            self.row[:] = NONE
            self.done, self.out = True, {}

    def _copy(self, rows: np.ndarray) -> None:
        where = self.streams[rows], self.slots[rows]
        for copy, store in pairs(self.out, self.data):
            copy[rows] = store[where]
        self.row[where] = NONE
