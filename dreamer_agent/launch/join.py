"""Joining the processes of one run, by `jax.distributed`."""

from __future__ import annotations

import os
import sys
from typing import Any

from dreamer_agent.errors import ConfigError
from dreamer_agent.interrupt import REQUEUE
from dreamer_agent.registry import in_one_line

AUTO = "auto"
PATIENCE = 3600  # seconds for which a process that is done waits for those that still draw or write


def join(address: str, processes: int | None = None, process: int | None = None) -> None:
    """Make this process number `process` of `processes`; the first one listens at `address` (HOST:PORT).

    With "auto", Slurm, Open MPI, Kubernetes or a TPU pod tell all three. Has to come before JAX is used for
    anything else, and waits until all are there. `ConfigError` where something is missing or they do not meet.
    """
    given: dict[str, Any] = {}
    if address != AUTO:
        if processes is None or process is None:
            raise ConfigError(
                f"--distributed {address} needs --processes (how many there are) and --process (which this is, "
                "from 0), or --distributed auto where Slurm, Open MPI, Kubernetes or a TPU pod tell them."
            )
        if not 0 <= process < processes:
            raise ConfigError(
                f"--process {process} of --processes {processes} was given: they are counted from 0 to "
                f"{processes - 1}."
            )
        given = {"coordinator_address": address, "num_processes": processes, "process_id": process}
    elif processes is not None or process is not None:
        raise ConfigError("--distributed auto finds --processes and --process itself: leave them out.")
    import jax
    from jax.experimental import multihost_utils

    try:
        jax.distributed.initialize(**given, shutdown_timeout_seconds=PATIENCE)
        # On CPUs they connect at their first collective and wait half a minute, less than compiling may take.
        multihost_utils.sync_global_devices("joined")
    except Exception as error:
        raise ConfigError(
            f"The processes of this run did not meet ({in_one_line(error)}): start all of them, with the "
            "same --distributed HOST:PORT that the first one listens at, or with 'auto' where a cluster tells it."
        ) from error


def first() -> bool:
    """Whether this is the first process, or the only one."""
    import jax

    return jax.process_index() == 0


def leave() -> None:
    """End this process at once: at an ordinary end JAX would wait for the ones that are gone, and abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(REQUEUE)
