"""The replay on the device in the clothes of the host's, so that the same tests see both."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from dreamer_agent.replay import DeviceReplay, step_layout
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
