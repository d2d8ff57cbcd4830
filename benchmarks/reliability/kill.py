"""Runs that are killed at random and started again, beside one that is left alone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.kinds import config_of
from dreamer_agent.replay import ReplayStore
from dreamer_agent.replay.saved import put_back
from dreamer_agent.replay.trees import map_tree
from dreamer_agent.training.checkpoint import Checkpoint, complete
from dreamer_agent.training.metrics import read_metrics

LONGEST = 600  # seconds of one life, before it counts as hung
STARTED = "run directory"  # in the line that a run says when it begins


@dataclass(frozen=True)
class Kill:
    """How a life ended: `where` it was, seconds after it began to train, the newest checkpoint then."""

    where: str
    seconds: float
    checkpoint: int


class Life:
    """A process that trains, in a group of its own, and what it says."""

    def __init__(self, kind: str, folder: Path, overrides: tuple[str, ...], cold: bool = False):
        self.cache = tempfile.TemporaryDirectory() if cold else None
        environment = dict(os.environ, JAX_PLATFORMS="cpu")
        if self.cache:
            environment["JAX_COMPILATION_CACHE_DIR"] = self.cache.name
        command = [sys.executable, "-m", "benchmarks.reliability.run", kind, str(folder), *overrides]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.said: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Whether `condition` came true before the process ended."""
        start = time.monotonic()
        while not condition():
            if self.process.poll() is not None:
                return condition()
            if time.monotonic() - start > LONGEST:
                self.kill()
                raise TimeoutError(f"A life took more than {LONGEST} s; it said: {''.join(self.said[-20:])}")
            time.sleep(0.001)
        return True

    def wait_until_training(self) -> bool:
        return self.wait_until(lambda: any(STARTED in line for line in self.said))

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal to the whole group, and give the exit code."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        return self.end()

    def end(self) -> int:
        code = self.process.wait(LONGEST)
        self.reader.join(10)
        if self.cache:
            self.cache.cleanup()
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)


def undisturbed(kind: str, folder: Path, overrides: tuple[str, ...] = ()) -> float:
    """Train a run to its end; the seconds from when it began to train."""
    life = Life(kind, folder, overrides)
    life.wait_until_training()
    start = time.monotonic()
    if life.end() != 0:
        raise RuntimeError("".join(life.said[-20:]))
    return time.monotonic() - start


def killed(
    kind: str, folder: Path, kills: int, seconds: float, rng: random.Random, overrides: tuple[str, ...] = (),
    tell: Callable[[str], None] = print,
) -> list[Kill]:  # fmt: skip
    """Train a run, which takes `seconds`, to its end and SIGKILL it `kills` times, about evenly over its steps.

    Every third time inside of a checkpoint that is being written, every fifth life without compiled programs.
    """
    steps = config_of(kind, *overrides).train.steps
    done: list[Kill] = []
    for number in range(kills):
        life = Life(kind, folder, overrides, cold=number % 5 == 4)
        if not life.wait_until_training():
            raise RuntimeError("".join(life.said[-20:]))
        start = time.monotonic()
        life.wait_until(lambda least=steps * number // kills: newest(folder) >= least)
        where = _wait_for_moment(life, folder, number, seconds / kills, rng)
        spent = time.monotonic() - start
        if life.process.poll() is not None:
            life.end()
            tell(f"{kind}: ended by itself before kill {number + 1}")
            break
        life.kill()
        done.append(Kill(where, round(spent, 2), newest(folder)))
        tell(f"{kind}: kill {number + 1} of {kills} {where} after {spent:.1f} s, at {done[-1].checkpoint} steps")
    life = Life(kind, folder, overrides)
    if life.end() != 0:
        raise RuntimeError("".join(life.said[-20:]))
    return done


def _wait_for_moment(life: Life, folder: Path, number: int, share: float, rng: random.Random) -> str:
    """Wait for the moment of a kill; gives a name for it."""
    if number % 3 == 1:
        seen = newest(folder)

        def writing() -> bool:
            names = [path.name[1:] for path in (folder / "checkpoints").glob(".*")]
            return any(name.isdigit() and int(name) > seen for name in names)

        if life.wait_until(writing):
            time.sleep(rng.uniform(0, 0.15))
            return "while a checkpoint was written" if writing() else "just after a checkpoint was written"
    at = time.monotonic() + rng.uniform(0, share)
    life.wait_until(lambda: time.monotonic() >= at)
    return "at a random moment"


def newest(folder: Path) -> int:
    """The env step of the newest complete checkpoint of a run, 0 without one."""
    return max(complete(folder / "checkpoints"), default=0)


def differences(one: Path, other: Path) -> list[str]:
    """In what two finished runs differ, bit by bit: their last checkpoints (parameters, optimiser, random keys,
    environments, what is in flight, counters), replays, metrics but for times, final scores."""
    steps, others = complete(one / "checkpoints"), complete(other / "checkpoints")
    out = [f"checkpoints {steps} and {others}"] if steps[-1:] != others[-1:] else []
    for step in sorted(set(steps) & set(others)):
        a, b = (Checkpoint(run / "checkpoints" / str(step)) for run in (one, other))
        for checkpoint, run in ((a, one), (b, other)):
            checkpoint.check(ReplayStore(run / "replay"))
        out += [f"{key} at {step}" for key in ("agent", "updates", "score") if a.commit[key] != b.commit[key]]
        loops = [checkpoint.loop() for checkpoint in (a, b)]
        for loop in loops:
            loop.pop("positions")  # bytes of metrics.jsonl, in which times are written
        out += [f"loop at {step}: {path}" for path in _unequal(*loops)]
        out += [f"replay at {step}: {path}" for path in _unequal(contents(one, a), contents(other, b))]
    rows, other_rows = ([_timeless(row) for row in read_metrics(run)] for run in (one, other))
    if rows != other_rows:
        first = next((a["step"] for a, b in zip(rows, other_rows, strict=False) if a != b), "the end")
        out.append(f"metrics ({len(rows)} and {len(other_rows)} rows, from step {first} on)")
    if (one / "evaluation.json").read_text() != (other / "evaluation.json").read_text():
        out.append("final scores")
    return out


def asked_to_stop(
    kind: str, folder: Path, number: int, seconds: float, rng: random.Random, overrides: tuple[str, ...] = ()
) -> tuple[float, int, str]:
    """Send a signal some time after a life's first checkpoint; seconds until it ended, exit code, last line."""
    life, before = Life(kind, folder, overrides), newest(folder)
    life.wait_until(lambda: newest(folder) > before)
    time.sleep(rng.uniform(0, seconds))
    start = time.monotonic()
    code = life.kill(number)
    return round(time.monotonic() - start, 2), code, life.said[-1].strip()


def fork(folder: Path, *copies: Path) -> None:
    """Copy a run that does not run."""
    for copy in copies:
        shutil.copytree(folder, copy)


def killed_half_way(kind: str, folder: Path, overrides: tuple[str, ...] = ()) -> None:
    """Begin a run, and kill it when it has written some checkpoints."""
    life = Life(kind, folder, overrides)
    if not life.wait_until(lambda: len(complete(folder / "checkpoints")) > 1):
        raise RuntimeError("".join(life.said[-20:]))
    life.kill()


def contents(run: Path, checkpoint: Checkpoint) -> Any:
    """All that the replay of a checkpoint holds."""
    data: Any = None
    index = checkpoint.index
    for saved in ReplayStore(run / "replay").load(index):
        if data is None:
            shape = len(index.added), index.length
            data = map_tree(lambda x: np.zeros((*shape, *x.shape[1:]), x.dtype), saved.steps)  # noqa: B023
        put_back(saved, data, index.length)
    return {"data": data, "added": index.added, "served": index.served, "samples": index.samples}


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith(("time/", "system/"))}


def _unequal(a: Any, b: Any, path: str = "") -> list[str]:
    """Paths of the leaves that are not bitwise equal."""
    if isinstance(a, dict) and isinstance(b, dict) and set(a) == set(b):
        return [found for key in a for found in _unequal(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            found for i, pair in enumerate(zip(a, b, strict=True)) for found in _unequal(*pair, f"{path}/{i}")
        ]
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    else:
        same = repr(a) == repr(b)
    return [] if same else [path]
