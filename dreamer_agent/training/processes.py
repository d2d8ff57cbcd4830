"""What the processes of one run tell each other, by JAX's own collectives.

Who tells or asks here meets all other processes, which have to come, and in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dreamer_agent.errors import ProcessLostError

SIZES = 1024  # bytes; texts are padded to powers of two of it, so that few programs are compiled
OF_THE_OTHERS = ("gloo", "nccl", "coordination service")  # in what JAX raises; environments have connections, too


class Meeting:
    """Sums of whole numbers over all processes, told at one step and heard at the next.

    So nobody waits: the sum is on its way while the updates of a step run. `heard` is the last one.
    """

    def __init__(self, mesh: Mesh, count: int):
        rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self.rows, self.here = rows, len(rows.addressable_devices)
        everywhere = NamedSharding(mesh, PartitionSpec())
        self.sum = jax.jit(lambda numbers: jnp.sum(numbers, 0), out_shardings=everywhere)
        self.heard = np.zeros(count, np.int32)
        self.told: Any = None

    def tell(self, *numbers: int) -> None:
        """Send these numbers; `hear` before the next."""
        own = np.zeros((self.here, len(numbers)), np.int32)
        own[0] = numbers
        self.told = self.sum(jax.make_array_from_process_local_data(self.rows, own))

    def hear(self) -> np.ndarray:
        """The sums of what was told last."""
        if self.told is not None:
            self.heard, self.told = np.asarray(self.told), None
        return self.heard


def gather(plain: Any) -> list[Any]:
    """What each process gives, in their order; plain data that JSON can hold. Waits for all."""
    text = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    sizes = np.atleast_1d(multihost_utils.process_allgather(np.int32(len(text))))
    padded = np.zeros(SIZES * 2 ** int(np.ceil(np.log2(max(1, sizes.max() / SIZES)))), np.uint8)
    padded[: len(text)] = text
    texts = np.atleast_2d(multihost_utils.process_allgather(padded))
    return [json.loads(bytes(row[:size])) for row, size in zip(texts, sizes, strict=True)]


def from_first(tree: Any) -> Any:
    """The arrays of the first process in all of them, as NumPy; the others give arrays of the same shapes."""
    return multihost_utils.broadcast_one_to_all(tree)


@contextmanager
def others() -> Iterator[None]:
    """What is raised inside since another process is gone is raised as `ProcessLostError`."""
    try:
        yield
    except Exception as error:
        gone = lost(error)
        if gone is None:
            raise
        raise gone from error


def lost(error: BaseException) -> ProcessLostError | None:
    """What to say where `error` comes from another process that is gone; None for any other error."""
    text = str(error)
    if isinstance(error, ProcessLostError) or not any(word in text.lower() for word in OF_THE_OTHERS):
        return None
    return ProcessLostError(
        f"Another process of this run has ended or cannot be reached ({text.strip().splitlines()[0][:160]}): all "
        "of them end. Start all again with the same commands; they go on from their last common checkpoint."
    )
