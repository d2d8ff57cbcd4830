"""Where the arrays of one run lie, when it has several devices.

One mesh with two axes, and nothing but `jax.sharding` on it:

- `data`: every device has its rows of each batch and all parameters; XLA sums the gradients.
- `fsdp`: rows as well, and of every large parameter, its average and its moments only a part (ZeRO, Rajbhandari
  et al., arXiv 1910.02054). An update gathers them once: a recurrent model uses each in every step of a sequence.

The update is the same program of the whole batch as on one device: random numbers, percentiles of returns and the
means of losses are those of all rows, so that equal batches give equal parameters but for the order of sums.

The devices may be those of several processes (`jax.distributed`); each gives and gets the rows of its own.
"""

from __future__ import annotations

import contextlib
import os
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

    @property
    def shared(self) -> bool:
        """Whether some of the devices are those of other processes."""
        return self.mesh is not None and self.mesh.is_multi_process

    def state(self, state: AgentState) -> AgentState:
        """`state`, the same in all processes, where it belongs; as it is without a mesh."""
        if self.mesh is None:
            return state
        if self.shared:
            return jax.tree.map(_from_whole, state, self._shardings(state))
        return jax.device_put(state, self._shardings(state))

    def batches(self, batches: Tree) -> Tree:
        """Batches `[K, B, ...]` on the devices, their rows divided among them; of several processes, each gives
        its own rows.
        """
        rows = self._rows()
        if self.shared:
            return jax.tree.map(lambda x: jax.make_array_from_process_local_data(rows, x), batches)
        return jax.device_put(batches, rows)

    def own_rows(self, tree: Tree) -> Tree:
        """Arrays `[K, B, ...]` divided as `batches` are, in main memory; of several processes, the own rows."""
        return jax.tree.map(_rows_here, tree) if self.shared else jax.device_get(tree)

    def whole(self, params: Tree) -> Tree:
        """`params` on the first device of this process, for programs of one device.

        What several processes hold in parts, all of them have to ask for.
        """
        if self.mesh is None:
            return params
        if self.shared:
            return jax.tree.map(lambda x: x.addressable_data(0), jax.device_put(params, self._named()))
        first = self.mesh.devices.flat[0]

        def there(x: Any) -> Any:
            return x.addressable_data(0) if x.sharding.is_fully_replicated else jax.device_put(x, first)

        return jax.tree.map(there, params)

    def copied(self, tree: Tree) -> Tree:
        """Whole arrays as copies in main memory, which later updates leave as they are; as `whole` says."""
        if self.shared:  # one at a time: no device has to hold all
            return jax.tree.map(lambda x: np.array(self.whole(x)), tree)
        return jax.tree.map(np.array, jax.device_get(tree))

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


def _from_whole(value: Any, sharding: NamedSharding) -> Any:
    """`value`, which is whole in every process, divided as `sharding` says; as it is where it already is."""
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return jax.device_put(value, sharding)
    host = np.asarray(value)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _rows_here(value: Any) -> np.ndarray:
    """The rows (second axis) of this process's devices, in order."""
    if isinstance(value, np.ndarray):  # of a checkpoint: its own rows already
        return value
    parts = sorted(value.addressable_shards, key=lambda part: part.index[1].start or 0)
    return np.concatenate([np.asarray(part.data) for part in parts], 1)


def over_seeds(count: int, there: Sequence[Any] | None = None) -> NamedSharding | None:
    """Leading axes of `count` seeds on as many devices (of `there`, by default all) as divide them evenly, each
    seed whole; None for one device.
    """
    there = jax.devices() if there is None else there
    used = _dividing(count, len(there))
    if used == 1:
        return None
    return NamedSharding(
        Mesh(np.array(there[:used]), ("seed",), axis_types=(AxisType.Auto,)), PartitionSpec("seed")
    )


def divide_cpu(runs: int = 1, devices: int = 1) -> None:
    """Have the CPU be several devices, at most one for each core of this process: `devices` of one run, or as
    many as divide several `runs` of one program evenly, which it computes faster so than on one device.

    Has to come before JAX is used for anything else, and does nothing later, or where devices were asked for
    already (`jax_num_cpu_devices`, XLA_FLAGS). With other backends it does not matter.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(devices, cores) if runs < 2 else _dividing(runs, cores)
    flagged = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if count > 1 and not flagged and jax.config.jax_num_cpu_devices < 0:  # type: ignore[attr-defined]
        with contextlib.suppress(RuntimeError):  # it has begun
            jax.config.update("jax_num_cpu_devices", count)


def _dividing(count: int, most: int) -> int:
    """The largest number up to `most` that divides `count`."""
    return max(n for n in range(1, min(count, most) + 1) if count % n == 0)


def sizes_of(config: Config) -> tuple[int, int]:
    """How many devices share the rows, and how many the parameters; `ConfigError` where there are not so many.

    Several processes use all of their devices.
    """
    mesh, there, processes = config.mesh, len(jax.devices()), jax.process_count()
    if mesh.fsdp < 1 or mesh.data < 0:
        raise ConfigError(
            f"mesh.data={mesh.data} and mesh.fsdp={mesh.fsdp} were given: give numbers of devices of at least 1 "
            "(mesh.data=0: all there are)."
        )
    everything = mesh.data == 0 or (processes > 1 and mesh.data == 1)
    data = max(there // mesh.fsdp, 1) if everything else mesh.data
    count = data * mesh.fsdp
    if count > there:
        raise ConfigError(
            f"mesh.data={data} times mesh.fsdp={mesh.fsdp} makes {count} devices, but there "
            f"{'is 1' if there == 1 else f'are {there}'} ({jax.devices()[0].device_kind}): ask for fewer."
        )
    if processes > 1 and count != there:
        raise ConfigError(
            f"mesh.data={data} times mesh.fsdp={mesh.fsdp} makes {count} devices, but {processes} processes have "
            f"{there}, all of which take part: leave mesh.data out, and have mesh.fsdp divide {there}."
        )
    if config.replay.batch_size % count:
        raise ConfigError(
            f"A batch of {config.replay.batch_size} sequences cannot be divided among {count} devices: make "
            "replay.batch_size a multiple of that."
        )
    return data, mesh.fsdp
