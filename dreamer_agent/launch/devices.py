"""The parts of this machine that runs beside each other get: cores, GPUs and shares of their memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

MEMORY = 0.75  # share of a GPU's memory that one process takes, JAX's default


@dataclass(frozen=True)
class Share:
    """What one of several runs at a time may use."""

    cores: tuple[int, ...] = ()  # empty: all
    gpu: str = ""  # its number or name in CUDA_VISIBLE_DEVICES; empty: whatever there is
    memory: float = MEMORY  # of that GPU

    def environment(self) -> dict[str, str]:
        """The variables of a process that uses this share; what the user has set for its memory stays."""
        out = dict(os.environ)
        if self.memory < MEMORY and "XLA_CLIENT_MEM_FRACTION" not in out:  # JAX refuses to have both
            out.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{self.memory:.3f}")
        return out | ({"CUDA_VISIBLE_DEVICES": self.gpu} if self.gpu else {})


def shares(count: int) -> list[Share]:
    """This machine in `count` parts.

    Cores are divided evenly, and overlap where there are fewer of them; GPUs are dealt in turn, and their memory
    is divided among the runs that share one.
    """
    cores, gpus = _cores(count), visible_gpus()
    if not gpus:
        return [Share(part, memory=MEMORY / count) for part in cores]
    memory = MEMORY / -(-count // len(gpus))
    return [Share(part, gpus[index % len(gpus)], memory) for index, part in enumerate(cores)]


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, by what CUDA_VISIBLE_DEVICES calls them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [one.strip() for one in given.split(",") if one.strip() not in ("", "-1")]
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu") or shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = listed.stdout.splitlines() if listed.returncode == 0 else []
    return [str(index) for index, _ in enumerate(line for line in lines if line.startswith("GPU "))]


def _cores(count: int) -> list[tuple[int, ...]]:
    """The cores that this process may use in `count` equal parts; none where the system has no such thing."""
    if not hasattr(os, "sched_getaffinity"):
        return [()] * count
    cores = sorted(os.sched_getaffinity(0))
    width = max(len(cores) // count, 1)
    return [tuple(cores[(part * width + i) % len(cores)] for i in range(width)) for part in range(count)]
