"""One process at a time in a run directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dreamer_agent.errors import RunDirectoryError
from dreamer_agent.training import lock as module
from dreamer_agent.training.lock import check_free, locked

HOLD = """
import sys, time, pathlib
from dreamer_agent.training.lock import locked
file = locked(pathlib.Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""


def holding(run: Path, seconds: float) -> subprocess.Popen:
    """Another process that has the lock for so long."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run), str(seconds)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"locked\n"
    return process


def test_another_process_is_waited_for(tmp_path: Path) -> None:
    process = holding(tmp_path, 1.5)
    check_free(tmp_path, wait=60)
    assert process.wait(10) == 0
    locked(tmp_path).close()


def test_who_does_not_wait_long_enough_is_told(tmp_path: Path) -> None:
    process = holding(tmp_path, 60)
    try:
        for wait in (0, 0.2):
            with pytest.raises(RunDirectoryError, match="is being trained by another process: wait for it"):
                check_free(tmp_path, wait)
    finally:
        process.kill()
        process.wait()
    check_free(tmp_path)


def test_a_free_folder_costs_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda _: pytest.fail("it waited"))
    check_free(tmp_path, wait=60)
    assert not list(tmp_path.iterdir())
    locked(tmp_path).close()
    check_free(tmp_path, wait=60)
