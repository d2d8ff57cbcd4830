"""The parent's end of the pipe: contenders as processes, and how they take turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
MODULES = {"dreamer_agent": "benchmarks.speed.ours", "dreamerv3": "benchmarks.speed.official"}


class WorkerError(Exception):
    """The contender `worker` could not do what it was asked for."""

    def __init__(self, message: str, worker: str = ""):
        super().__init__(message)
        self.worker = worker


@dataclass(frozen=True)
class Contender:
    """Who is measured: a kind of worker, the checkout that it runs, and the interpreter that it runs in."""

    name: str
    command: tuple[str, ...]

    @property
    def is_ours(self) -> bool:
        """Whether it is a version of this library."""
        return MODULES["dreamer_agent"] in self.command

    @classmethod
    def ours(cls) -> Contender:
        """The library of this checkout."""
        return cls("dreamer_agent", (sys.executable, "-m", MODULES["dreamer_agent"], str(ROOT)))

    @classmethod
    def parse(cls, text: str, python: str = sys.executable) -> Contender:
        """`KIND=CHECKOUT`, run by the interpreter `python`."""
        kind, equals, checkout = text.partition("=")
        if kind not in MODULES or not equals:
            raise WorkerError(
                f"A peer is written KIND=CHECKOUT, with a KIND of {', '.join(MODULES)}; got '{text}'."
            )
        if not Path(checkout).is_dir():
            raise WorkerError(f"The peer {kind} should lie in the folder {checkout}, which is not there.")
        name = f"{kind} ({Path(checkout).name})" if kind == "dreamer_agent" else kind
        return cls(name, (python, "-m", MODULES[kind], str(Path(checkout).resolve())))


class Worker:
    """A running contender. `ask` blocks until it has answered; it idles in between."""

    def __init__(self, contender: Contender, env: Mapping[str, str] | None = None):
        self.name = contender.name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `close`)
        # Compile times are told, so no program may come from a cache.
        inherited = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
        self.process = subprocess.Popen(
            contender.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            cwd=ROOT, env={**inherited, **(env or {})},
        )  # fmt: skip

    def ask(self, do: str, limit: float | None = None, **request: Any) -> dict[str, Any]:
        """The reply to a request; `WorkerError` where it failed, died, or took more than `limit` seconds."""
        assert self.process.stdin and self.process.stdout
        timer = threading.Timer(limit or 1e6, self.process.kill)
        timer.daemon = True
        timer.start()
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            raise WorkerError(f"{self.name} ended during '{do}': {self._tail()}", self.name)
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(f"{self.name} failed at '{do}': {reply['error']}", self.name)
        return reply

    def close(self) -> None:
        """Let it end."""
        if self.process.stdin:
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tail(self) -> str:
        self.log.seek(0)
        lines = [line.strip() for line in self.log.read().splitlines() if line.strip()]
        return " | ".join(lines[-3:]) or f"it wrote nothing (exit code {self.process.poll()})"


Rounds = list[list[float]]  # milliseconds of each call, by round


def interleave(workers: Sequence[Worker], rounds: int, do: str, **request: Any) -> dict[str, Rounds]:
    """`rounds` turns of every worker, A B A B ..., after one turn each to warm up."""
    times: dict[str, Rounds] = {worker.name: [] for worker in workers}
    for worker in workers:
        worker.ask(do, **request)
    for _ in range(rounds):
        for worker in workers:
            times[worker.name].append(worker.ask(do, **request)["ms"])
    return times


def summary(rounds: Rounds) -> dict[str, float]:
    """Median and minimum of all calls, and how many there were."""
    calls = [value for turn in rounds for value in turn]
    return {"median": statistics.median(calls), "min": min(calls), "n": len(calls)}


def ratio(rounds: Rounds, base: Rounds) -> dict[str, float]:
    """How many times slower `rounds` are than `base`: the median, and the extremes, of the rounds' ratios."""
    ratios = [statistics.median(one) / statistics.median(other) for one, other in zip(rounds, base, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios), "rounds": len(ratios)}
