"""One process at a time in a run directory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import IO

from dreamer_agent.errors import RunDirectoryError

FILE = ".lock"


def locked(run: Path) -> IO[bytes]:
    """A file in `run` that no other process can lock until it is closed, or this process is gone.

    Raises `RunDirectoryError` where another one has it.
    """
    file = (run / FILE).open("ab")
    try:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.close()
        raise RunDirectoryError(
            f"{run} is being trained by another process: wait for it, end it, or give another run directory."
        ) from error
    except (ImportError, OSError):  # a system or a file system without locks
        pass
    return file


def check_free(run: Path, wait: float = 0.0) -> None:
    """Raise `RunDirectoryError` where another process still trains in `run` after `wait` seconds.

    Nothing is written.
    """
    end = time.monotonic() + wait
    while (run / FILE).exists():
        try:
            locked(run).close()
            return
        except RunDirectoryError:
            if time.monotonic() >= end:
                raise
        time.sleep(min(1.0, wait))
