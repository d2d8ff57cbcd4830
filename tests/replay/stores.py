"""The replay on the device in the clothes of the host's, so that the same tests see both."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from dreamer_agent.replay import DeviceReplay, HostReplay, step_layout
from tests.compiling import quick_jit

LAYOUT = step_layout(
    {"image": ((2, 3, 1), np.dtype(np.uint8)), "group/vector": ((3,), np.dtype(np.float32))},
    {"move": ((2,), np.dtype(np.float32)), "button": ((), np.dtype(np.int32))},
    {"deter": ((5,), np.dtype(ml_dtypes.bfloat16)), "stoch": ((4,), np.dtype(np.uint8))},
)


@lru_cache
def programs(*sizes: Any) -> tuple[DeviceReplay, dict[str, Any]]:
    """The functions of a replay, compiled once for all tests."""
    replay = DeviceReplay(LAYOUT, *sizes)
    names = ("init", "add", "ready", "sample", "update_latents", "cut")
    return replay, {name: quick_jit(getattr(replay, name)) for name in names}


class OnDevice:
    """`DeviceReplay` with its state, under the methods of `HostReplay`."""

    def __init__(
        self, layout: Any, num_envs: int, capacity: int, batch_size: int, batch_length: int,
        context: int = 1, online: bool = True, seed: int = 0,
    ):  # fmt: skip
        assert layout is LAYOUT
        sizes = (num_envs, capacity, batch_size, batch_length, context, online)
        self.replay, self.call = programs(*sizes)
        self.state, self.key = self.call["init"](), jax.random.PRNGKey(seed)

    def add(self, step: Any, mask: np.ndarray | None = None) -> None:
        self.state = self.call["add"](self.state, step, mask)

    def ready(self) -> bool:
        return bool(self.call["ready"](self.state))

    def sample(self) -> tuple[Any, np.ndarray]:
        self.state, batch, ids = self.call["sample"](self.state, self.key)
        return jax.tree.map(np.asarray, batch), np.asarray(ids)

    def update_latents(self, ids: np.ndarray, latents: Any) -> None:
        self.state = self.call["update_latents"](self.state, jnp.asarray(ids), latents)

    def cut(self) -> None:
        self.state = self.call["cut"](self.state)

    def mark(self) -> Any:
        return self.replay.mark(self.state)

    def save(self, since: Any = None) -> Any:
        return self.replay.save(self.state, since)

    def save_later(self, since: Any = None) -> Any:
        return self.replay.save_later(self.state, since)

    def restore(self, saved: Any) -> None:
        self.state = self.replay.restore(saved)

    @property
    def dropped(self) -> bool:
        return self.replay.dropped(self.state)

    @property
    def length(self) -> int:
        return self.replay.length

    @property
    def data(self) -> Any:
        return jax.tree.map(np.asarray, self.state.data)

    @property
    def added(self) -> np.ndarray:
        return np.asarray(self.state.added)


Store = type[HostReplay] | type[OnDevice]
both = pytest.mark.parametrize("store", [HostReplay, OnDevice])


def make_step(num_envs: int, number: int, first: float = 0.2, last: float = 0.2) -> dict[str, Any]:
    """Random content for every stream; a function of `number` alone."""
    rng = np.random.default_rng(number)

    def fill(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if dtype.kind in "iu":
            return rng.integers(0, 100, (num_envs, *shape)).astype(dtype)
        return rng.normal(size=(num_envs, *shape)).astype(dtype)

    groups = {
        group: {key: fill(*entry) for key, entry in LAYOUT[group].items()}
        for group in ("obs", "action", "latent")
    }
    flags = {
        "is_first": rng.random(num_envs) < first,
        "is_last": rng.random(num_envs) < last,
        "is_terminal": rng.random(num_envs) < 0.5,
    }
    return groups | flags | {"reward": rng.normal(size=num_envs).astype(np.float32)}


def filled(
    store: Store, steps: int, num_envs: int = 2, seed: int = 0, online: bool = True, length: int = 20
) -> Any:
    replay = store(LAYOUT, num_envs, num_envs * length, 3, 4, 1, online, seed)
    for number in range(steps):
        replay.add(make_step(num_envs, number))
    return replay


def assert_same(actual: Any, expected: Any) -> None:
    """The same names, shapes, types and numbers."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(*(map(np.asarray, jax.tree.leaves(x)) for x in (actual, expected)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
