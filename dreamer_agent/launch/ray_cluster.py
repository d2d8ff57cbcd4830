"""Ray while a sweep needs it: one of its own on this machine, or a cluster that is there already."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dreamer_agent.errors import ConfigError, missing_extra
from dreamer_agent.ray_connection import connect, import_ray

SETTINGS = {
    "RAY_kill_child_processes_on_worker_exit": "false",  # they see that their worker is gone, and save
    "RAY_AIR_NEW_OUTPUT": "0",  # the older output can be silenced
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a run has no return before its first episode ends
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


@dataclass(frozen=True)
class Options:
    """What a run takes of the cluster, and who may stop it."""

    cpus: float = 1.0  # that Ray counts for a run; it does not bind them
    gpus: float | None = None  # by default one where there are any; 0.25: four runs share one
    address: str = ""  # of a cluster, or "auto"; empty: RAY_ADDRESS, else one of its own on this machine
    asha: Mapping[str, Any] | None = None  # parameters of Tune's ASHAScheduler; None: nobody is stopped

    def __post_init__(self) -> None:
        if not _quantity(self.cpus) or self.cpus == 0 or not (self.gpus is None or _quantity(self.gpus)):
            raise ConfigError(
                f"Ray cannot give a run cpus={self.cpus!r} and gpus={self.gpus!r}: give whole numbers, or a part "
                "of one, such as 0.5."
            )
        if not isinstance(self.address, str) or self.address.startswith("ray://"):
            raise ConfigError(
                f"Ray cannot be used at the address {self.address!r}: start the sweep on a machine of the "
                "cluster and give 'auto', or HOST:PORT of its head."
            )


def _quantity(value: Any) -> bool:
    """Whether Ray counts so much of something: a part of one, or whole ones."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and value >= 0 and (value <= 1 or value == int(value))


def options_of(given: Mapping[str, Any]) -> Options:
    """The options in the `ray` of a sweep; `ConfigError` for what they do not have."""
    known = [entry.name for entry in dataclasses.fields(Options)]
    for key in given:
        if key not in known:
            raise ConfigError(f"The sweep's ray has the unknown '{key}': known are {', '.join(known)}, optuna.")
    asha = given.get("asha")
    asha = {} if asha is True else None if asha is False else asha
    if asha is not None and not isinstance(asha, Mapping):
        raise ConfigError(f"The sweep's ray has asha: {asha!r}: write its parameters, {{reduction_factor: 4}}.")
    return Options(**{**given, "asha": asha})


@contextmanager
def cluster(options: Options) -> Iterator[float]:
    """Ray while it is needed, without dashboard and statistics; gives the GPUs of a run.

    `MissingExtraError` without Ray, `ConfigError` where it cannot be had as asked.
    """
    os.environ |= SETTINGS
    ray = import_ray()
    try:
        from ray import tune  # noqa: F401
    except ImportError as error:
        raise missing_extra("ray[tune]", "ray") from error
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what goes wrong with a run is told by its log
    address = options.address or os.environ.get("RAY_ADDRESS") or "local"
    ours = connect(address)
    try:
        there = ray.cluster_resources()
        have = there.get("CPU", 0)
        if address == "local" and options.cpus > have:
            raise ConfigError(f"A run is to have {options.cpus:g} CPUs, but Ray has {have:g}: give fewer `cpus`.")
        yield options.gpus if options.gpus is not None else float(there.get("GPU", 0) > 0)
    finally:
        if ours:
            ray.shutdown()
