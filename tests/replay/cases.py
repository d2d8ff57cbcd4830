"""Random histories of a replay, and the naive model: for each stream, the plain list of all its steps, ever."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from hypothesis import strategies as st

from tests.replay.stores import LAYOUT, OnDevice, Store, make_step

# On the device every geometry is a program of its own: streams, length, batch size, stride, context.
GEOMETRIES = [(3, 9, 4, 3, 1), (1, 7, 1, 5, 0), (2, 12, 3, 1, 2)]


def row(step: dict[str, Any], index: Any) -> dict[str, Any]:
    return jax.tree.map(lambda x: np.array(x[index]), step)


class Naive:
    """Every step of every stream, for ever."""

    def __init__(self, num_envs: int):
        self.streams: list[list[dict[str, Any]]] = [[] for _ in range(num_envs)]

    def add(self, step: dict[str, Any], mask: np.ndarray | None) -> None:
        for index, stream in enumerate(self.streams):
            if mask is None or mask[index]:
                stream.append(row(step, index))

    def starts(self, length: int, size: int) -> list[tuple[int, int]]:
        """All windows that lie in the last `length` steps of a stream."""
        return [
            (index, start)
            for index, stream in enumerate(self.streams)
            for start in range(max(0, len(stream) - length), len(stream) - size + 1)
        ]

    def window(self, stream: int, start: int, size: int) -> dict[str, Any]:
        """The steps as they should be served."""
        steps = self.streams[stream]
        served = jax.tree.map(lambda *x: np.stack(x), *steps[start : start + size])
        for offset in range(size):
            if start + offset + 1 < len(steps) and steps[start + offset + 1]["is_first"]:
                served["is_last"][offset] = True
        return served


class Case(NamedTuple):
    num_envs: int
    length: int
    batch_size: int
    stride: int
    context: int
    online: bool
    masks: list[list[bool] | None]
    seed: int

    @property
    def size(self) -> int:
        return self.context + self.stride

    def replay(self, store: Store) -> Any:
        return store(
            LAYOUT, self.num_envs, self.num_envs * self.length, self.batch_size, self.stride, self.context,
            self.online, self.seed,
        )  # fmt: skip


@st.composite
def cases(draw: Any, store: Store, online: bool | None = None) -> Case:
    if store is OnDevice:
        num_envs, length, batch_size, stride, context = draw(st.sampled_from(GEOMETRIES))
    else:
        num_envs, stride, context = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(0, 2))
        length, batch_size = context + stride + 1 + draw(st.integers(0, 9)), draw(st.integers(1, 4))
    mask = st.lists(st.booleans(), min_size=num_envs, max_size=num_envs)
    masks = draw(st.lists(st.none() | mask, min_size=1, max_size=60))
    online = draw(st.booleans()) if online is None else online
    return Case(num_envs, length, batch_size, stride, context, online, masks, draw(st.integers(0, 99)))


def adds(case: Case) -> list[tuple[dict[str, Any], np.ndarray | None]]:
    return [
        (make_step(case.num_envs, number), None if mask is None else np.array(mask))
        for number, mask in enumerate(case.masks)
    ]


def make_batch_latents(batch: dict[str, Any]) -> dict[str, np.ndarray]:
    return {"deter": -batch["latent"]["deter"], "stoch": batch["latent"]["stoch"] + np.uint8(1)}
