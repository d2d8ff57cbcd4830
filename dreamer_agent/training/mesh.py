"""Where the arrays of one run lie, when it has several devices.

One mesh with two axes, and nothing but `jax.sharding` on it:

- `data`: every device has its rows of each batch and all parameters; XLA sums the gradients.
- `fsdp`: rows as well, and of every large parameter, its average and its moments only a part (ZeRO, Rajbhandari
  et al., arXiv 1910.02054). An update gathers them once: a recurrent model uses each in every step of a sequence.

The update is the same program of the whole batch as on one device: random numbers, percentiles of returns and the
means of losses are those of all rows, so that equal batches give equal parameters but for the order of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dreamer_agent.agent import ALONE, Agent, AgentState, Division
from dreamer_agent.config import Config
from dreamer_agent.errors import ConfigError

AXES = ("data", "fsdp")
SPLIT = 4096  # numbers from which on a parameter is worth splitting

Tree = Any


@dataclass(frozen=True)
class Placement:
    """The devices of a run, and which part of what lies on each; without a mesh, one device holds everything."""

    mesh: Mesh | None = None
    split: int = SPLIT

    @classmethod
    def of(cls, config: Config) -> Placement:
        """That of `config.mesh`, on the first devices; raises `ConfigError` as `sizes_of` does."""
        data, fsdp = sizes_of(config)
        if data * fsdp == 1:
            return cls()
        devices = np.array(jax.devices()[: data * fsdp]).reshape(data, fsdp)
        return cls(Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES)))

    @property
    def devices(self) -> int:
        """How many there are."""
        return 1 if self.mesh is None else self.mesh.size

    def state(self, state: AgentState) -> AgentState:
        """`state` where it belongs; as it is without a mesh."""
        return state if self.mesh is None else jax.device_put(state, self._shardings(state))

    def batches(self, batches: Tree) -> Tree:
        """Batches `[K, B, ...]` on the devices, their rows divided among them."""
        return jax.device_put(batches, self._rows())

    def whole(self, params: Tree) -> Tree:
        """`params` on the first device, for programs of one device."""
        if self.mesh is None:
            return params
        first = self.mesh.devices.flat[0]

        def there(x: Any) -> Any:
            return x.addressable_data(0) if x.sharding.is_fully_replicated else jax.device_put(x, first)

        return jax.tree.map(there, params)

    @property
    def division(self) -> Division:
        """What `Agent.update` has to know of it."""
        if self.mesh is None:
            return ALONE
        if self.mesh.shape["fsdp"] == 1:
            return Division(self.devices)
        return Division(self.devices, lambda params: jax.lax.with_sharding_constraint(params, self._named()))

    def options(self, agent: Agent) -> dict[str, Any]:
        """What `jax.jit` of `update_many` needs to leave its results where they belong."""
        if self.mesh is None:
            return {}
        everywhere, shapes = self._named(), jax.eval_shape(agent.init, jax.random.PRNGKey(0))
        return {"out_shardings": (self._shardings(shapes), self._rows(), everywhere, everywhere, everywhere)}

    def _shardings(self, state: AgentState) -> Any:
        return jax.tree.map(self._of, state)

    def _of(self, leaf: Any) -> NamedSharding:
        """A large array is divided along its longest axis that can be; others lie on every device."""
        assert self.mesh is not None
        parts, shape = self.mesh.shape["fsdp"], np.shape(leaf)
        if parts > 1 and np.prod(shape) >= self.split:
            for axis in sorted(range(len(shape)), key=lambda axis: -shape[axis]):
                if shape[axis] % parts == 0:
                    return self._named(*[None] * axis, "fsdp")
        return self._named()

    def _rows(self) -> NamedSharding | None:
        return None if self.mesh is None else self._named(None, AXES)

    def _named(self, *axes: Any) -> NamedSharding:
        assert self.mesh is not None
        return NamedSharding(self.mesh, PartitionSpec(*axes))


def over_seeds(count: int, there: Sequence[Any] | None = None) -> NamedSharding | None:
    """Leading axes of `count` seeds on as many devices (of `there`, by default all) as divide them evenly, each
    seed whole; None for one device.
    """
    there = jax.devices() if there is None else there
    used = max(n for n in range(1, min(count, len(there)) + 1) if count % n == 0)
    if used == 1:
        return None
    return NamedSharding(
        Mesh(np.array(there[:used]), ("seed",), axis_types=(AxisType.Auto,)), PartitionSpec("seed")
    )


def sizes_of(config: Config) -> tuple[int, int]:
    """How many devices share the rows, and how many the parameters; `ConfigError` where there are not so many."""
    mesh, there = config.mesh, len(jax.devices())
    if mesh.fsdp < 1 or mesh.data < 0:
        raise ConfigError(
            f"mesh.data={mesh.data} and mesh.fsdp={mesh.fsdp} were given: give numbers of devices of at least 1 "
            "(mesh.data=0: all there are)."
        )
    data = mesh.data or max(there // mesh.fsdp, 1)
    count = data * mesh.fsdp
    if count > there:
        raise ConfigError(
            f"mesh.data={data} times mesh.fsdp={mesh.fsdp} makes {count} devices, but there "
            f"{'is 1' if there == 1 else f'are {there}'} ({jax.devices()[0].device_kind}): ask for fewer."
        )
    if config.replay.batch_size % count:
        raise ConfigError(
            f"A batch of {config.replay.batch_size} sequences cannot be divided among {count} devices: make "
            "replay.batch_size a multiple of that."
        )
    return data, mesh.fsdp
