"""The main memory of this process: what it takes, what it will take, and handing back what it does not need."""

from __future__ import annotations

import contextlib
import ctypes
import gc

from dreamer_agent.agent import Agent
from dreamer_agent.config import Config
from dreamer_agent.replay import replay_bytes
from dreamer_agent.replay.host import bookkeeping_bytes
from dreamer_agent.training.budget import kept_steps, layout_of


def resident() -> int:
    """Bytes of main memory that this process takes now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def give_back() -> None:
    """Hand back to the system what compiling has left: glibc keeps up to a gigabyte of it for hours."""
    gc.collect()
    trim()


def trim() -> None:
    """Hand back to the system what was freed, but kept by glibc for itself."""
    with contextlib.suppress(AttributeError, OSError):  # other systems have no such function, nor need of it
        ctypes.CDLL(None).malloc_trim(0)


def outlook(config: Config, agent: Agent, added: int, env_steps: int) -> tuple[int, float]:
    """Bytes that this process takes now, and will take when the replay is as full as it gets.

    Memory is taken as it is filled: the replay holds `added` steps after `env_steps`, and the share of resets
    among them is taken to stay as it is.
    """
    now = resident()
    if config.replay.spill or config.train.loop == "device":  # on disk, or taken at once
        return now, float(now)
    expected = min(config.train.steps * added / max(env_steps, 1), kept_steps(config))
    per_step = replay_bytes(layout_of(agent), 1) + bookkeeping_bytes(1)
    return now, now + max(expected - added, 0.0) * per_step
