"""A connection to Ray: one of its own on this machine, or a cluster that is there already."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from typing import Any

from dreamer_agent.errors import ConfigError, missing_extra

OBJECTS = 80_000_000  # bytes of shared memory for objects, near the least that Ray takes: ours are small
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0"}  # nothing is reported to anybody


def import_ray() -> Any:
    """The module; `MissingExtraError` where it is not installed."""
    os.environ |= SETTINGS
    try:
        import ray
    except ImportError as error:
        raise missing_extra("ray[tune]", "ray") from error
    return ray


def connect(address: str) -> bool:
    """Find Ray at `address` ("auto", HOST:PORT), or start one here ("local"); whether there was none found yet.

    It has neither dashboard nor statistics, and the handler of SIGTERM stays what it was. `ConfigError` where it
    cannot be had, `MissingExtraError` where it is not installed.
    """
    ray = import_ray()
    if ray.is_initialized():
        return False
    before = signal.getsignal(signal.SIGTERM)
    own: dict[str, Any] = {}
    if address == "local":
        own = {"include_dashboard": False, "object_store_memory": OBJECTS}
    try:
        with warnings.catch_warnings():  # JAX warns of forks; what Ray forks becomes another program at once
            warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise ConfigError(f"Ray cannot be used at '{address}': {' '.join(str(error).split())}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    return True
