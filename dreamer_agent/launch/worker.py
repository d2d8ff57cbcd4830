"""The process of one run: which cores it uses, how it ends, what its exit code says."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

from dreamer_agent.errors import DreamerError
from dreamer_agent.interrupt import REQUEUE, asked, requeued
from dreamer_agent.launch.work import PARENT

FAILED = 2  # exit code of a run that cannot be made as it is: trying again would not help


def main(work: Callable[[], object], cores: str = "") -> int:
    """Do `work` on `cores` ("0,1"; empty: all); gives the exit code.

    0; 2 for a `DreamerError`, whose sentence is the last line printed; 75 where it was asked to end and has
    saved. It asks itself to end once the process that started it is gone.
    """
    if hasattr(signal, "SIGUSR2"):  # Slurm's warning reaches it, too; the process that started it acts on it
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    end_with_parent()
    pin([int(core) for core in cores.split(",") if core])
    try:
        with requeued():
            work()
    except KeyboardInterrupt:
        return REQUEUE
    except DreamerError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return FAILED
    return 0


def pin(cores: Sequence[int]) -> None:
    """Have this process, and what it starts, use only `cores` where the system can."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def end_with_parent(seconds: float = 1.0) -> None:
    """Ask this process to save and end once the one that started it is gone.

    Unless it was asked before: a second signal would end it at once, without what it is about to save. Raises
    `SystemExit` (75) where that one is gone already, killed while this one was still importing.
    """
    parent = int(os.environ.pop(PARENT, os.getppid()))
    if os.getppid() != parent:
        raise SystemExit(REQUEUE)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(seconds)
        if not asked():
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
