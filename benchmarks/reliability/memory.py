"""The memory of a process that trains for a long time, beside what it said that it would take."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

SAID = re.compile(r"main memory: ([\d.]+) GB now, ([\d.]+) GB when the replay is full")
EVERY = 5.0  # seconds between two looks


def watched(env: str, preset: str, minutes: float, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Train for `minutes` after the first update; the resident memory over time, in GB, and its slope."""
    command = [
        sys.executable, "-m", "dreamer_agent", "train", env, "--preset", preset, "--run", str(folder), *overrides,
    ]  # fmt: skip
    log = folder.with_suffix(".log")
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=dict(os.environ, COLUMNS="200")
        )
    seen, said = psutil.Process(process.pid), None
    times: list[float] = []
    sizes: list[float] = []
    start = time.monotonic()
    while process.poll() is None and (not times or times[-1] < 60 * minutes):
        time.sleep(EVERY)
        if said is None:
            said = SAID.search(log.read_text())
            start = time.monotonic()
        else:
            times.append(time.monotonic() - start)
            sizes.append(seen.memory_info().rss / 1e9)
    process.send_signal(signal.SIGTERM)
    code = process.wait(120)
    if said is None or code not in (0, 75):
        raise RuntimeError(log.read_text()[-2000:])
    return {"env": env, "preset": preset, "overrides": overrides, **summary(times, sizes, float(said[2]))}


def summary(times: list[float], sizes: list[float], said: float) -> dict[str, Any]:
    """Numbers of one series; the slope is that of the second half, when the replay has long been full."""
    half = len(times) // 2
    slope = np.polyfit(np.array(times[half:]) / 3600, sizes[half:], 1)[0]
    return {
        "minutes": round(times[-1] / 60, 1),
        "said_gb": said,
        "end_gb": round(float(np.mean(sizes[-12:])), 4),
        "said_over_end": round(said / float(np.mean(sizes[-12:])), 3),
        "largest_gb": round(max(sizes), 4),
        "gb_per_hour": round(float(slope), 4),
        "every_minute_gb": [round(size, 4) for size in sizes[:: int(60 / EVERY)]],
    }
