"""Trials of Ray Tune on this machine: what it does not have is a cluster."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from dreamer_agent.errors import ConfigError, MissingExtraError
from dreamer_agent.launch import ray as module
from dreamer_agent.launch.local import Run
from dreamer_agent.launch.ray import launch_on_ray
from dreamer_agent.launch.ray_cluster import Options, cluster, options_of
from dreamer_agent.launch.work import log_of, mark_of

# Counts to a number, one each 50 ms, from where an earlier process stopped; saves when it is asked to end. Each ten
# it logs a return, `pace` for each number.
COUNTER = """
import json, os, signal, sys, time
from pathlib import Path
folder, until, pace, cores = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
folder.mkdir(parents=True, exist_ok=True)
if until < 0:
    print("error: it cannot be made", flush=True)
    sys.exit(2)
state = folder / "state"
count = int(state.read_text()) if state.exists() else 0
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
print("from", count, flush=True)
while count < until and not ended:
    time.sleep(0.05)
    count += 1
    if count % 10 == 0:
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": count, "episode/return": pace * count}) + "\\n")
        if not folder.name.startswith("forgetful"):
            state.write_text(str(count))
time.sleep(0.5 if ended else 0)
state.write_text(str(count))
if count < until:
    sys.exit(75)
(folder / "environment.json").write_text(json.dumps(dict(os.environ)))
(folder / "evaluation.json").write_text("{}")
"""


@dataclass(frozen=True)
class Count:
    """A run that counts."""

    folder: Path
    steps: int
    pace: float = 1.0

    @property
    def shown(self) -> dict[str, str]:
        return {"run": self.folder.name}

    def check(self) -> None:
        pass

    def finished(self) -> bool:
        return (self.folder / "evaluation.json").is_file()

    def command(self) -> list[str]:
        return [sys.executable, "-c", COUNTER, str(self.folder), str(self.steps), str(self.pace)]


@pytest.fixture(scope="module")
def ray() -> Iterator[object]:
    """One Ray for most tests, which find it and leave it."""
    found = pytest.importorskip("ray")
    pytest.importorskip("ray.tune")
    before = set(psutil.Process().children(recursive=True))
    with cluster(Options(cpus=1)):
        yield found
    left = set(psutil.Process().children(recursive=True)) - before
    gone, alive = psutil.wait_procs(left, timeout=20)
    assert not alive


def launched(
    tmp_path: Path, works: list[Count], retries: int = 2, more: Callable[[Sequence[Run]], Sequence[Count]] | None = None,
    **options: object,
) -> tuple[list[Run], str]:
    console = Console(file=io.StringIO(), width=200)
    given = options_of({"cpus": 1, **options})
    runs = launch_on_ray(works, tmp_path / "ray", given, console, retries, *([more] if more else []))
    return runs, console.file.getvalue()  # type: ignore[attr-defined]


def test_runs_are_trials_and_a_failure_stops_no_other(tmp_path: Path, ray) -> None:
    works = [Count(tmp_path / name, steps) for name, steps in (("a", 20), ("b", -1), ("c", 10))]
    runs, said = launched(tmp_path, works)
    assert [run.state for run in runs] == ["done", "failed", "done"]
    assert "error: it cannot be made (exit code 2, see" in runs[1].why and runs[1].retried == 0
    assert runs[0].step == 20 and runs[0].score == 20
    assert "a: running" in said and "a: done at 20/20 env steps, return 20" in said and "b: failed" in said
    before = log_of(works[0]).read_text()
    runs, _ = launched(tmp_path, [works[0], works[2]])
    assert [run.state for run in runs] == ["done", "done"] and log_of(works[0]).read_text() == before
    environment = json.loads((works[0].folder / "environment.json").read_text())
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0" and environment["CUDA_VISIBLE_DEVICES"] == ""
