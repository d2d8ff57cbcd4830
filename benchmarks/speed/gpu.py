"""The set of programs for one accelerator, within a given time; needs only jax, flax, optax, chex and orbax.

Each choice of XLA flags runs in a process of its own, since XLA reads them once. What does not fit into the time
is left out, the least important first; every result is written as soon as it is there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.speed.cases import IMAGE, PROPRIO, SIX, Case
from benchmarks.speed.measure import ENVS, Bench
from benchmarks.speed.report import Row
from benchmarks.speed.worker import Contender, Worker, WorkerError

# Command buffers are CUDA graphs; those of whole loops are not made by default.
FLAGS = {"default": "", "while": "--xla_gpu_enable_command_buffer=+WHILE --xla_gpu_graph_min_graph_size=1"}
LEAST = 20.0  # seconds that must be left for another program


@dataclass(frozen=True)
class Process:
    """One case under one choice of flags, and its programs as `(seeds, updates in one call)`."""

    case: Case
    flags: str
    programs: tuple[tuple[int, int], ...]

    def row(self, program: tuple[int, int]) -> Row:
        """What tells the result of a program from the others."""
        return {
            "case": self.case.name,
            "flags": self.flags,
            "seeds": program[0],
            "updates_per_call": program[1],
        }

    def name(self, program: tuple[int, int]) -> str:
        """The same in words."""
        return f"{self.case.name} ({self.flags}), {program[0]} seeds, {program[1]} updates per call"


SMALL = Case("1m-proprio", ("size/1m",), PROPRIO, SIX)
MIDDLE = Case("12m-image", ("size/12m",), IMAGE, SIX)
LARGE = Case("200m-image", ("size/200m",), IMAGE, SIX)
SET = (
    Process(SMALL, "default", ((1, 1), (16, 1))),
    Process(LARGE, "default", ((1, 1),)),
    Process(SMALL, "while", ((1, 1),)),
    Process(MIDDLE, "default", ((1, 1),)),
    Process(LARGE, "while", ((1, 1),)),
    Process(MIDDLE, "while", ((1, 1),)),
    Process(SMALL, "default", ((1, 8), (4, 1))),
    Process(MIDDLE, "default", ((4, 1), (16, 1), (1, 8))),
    Process(SMALL, "while", ((16, 1),)),
    Process(LARGE, "default", ((1, 4),)),
)


class Deadline:
    """A moment, and the seconds until then."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self.end - time.monotonic()


@dataclass(frozen=True)
class Gpu:
    """The measurement: where results go, the XLA flags by name, and the deadline."""

    bench: Bench
    flags: Mapping[str, str]
    deadline: Deadline

    def run(self, processes: Sequence[Process]) -> list[str]:
        """Measure what fits; gives the names of what did not."""
        skipped = []
        for process in processes:
            if self.deadline.left < LEAST:
                skipped += [process.name(program) for program in process.programs]
                continue
            with Worker(Contender.ours(), {"XLA_FLAGS": self._flags(process)}) as worker:
                try:
                    skipped += self._process(worker, process)
                except WorkerError as error:
                    row = process.row(process.programs[0]) | {"failed": str(error)}
                    self.bench.results.add("gpu", row, {})
        return skipped

    def _process(self, worker: Worker, process: Process) -> list[str]:
        """All programs of one process; one that fails does not keep the next from running."""
        built = worker.ask("build", limit=self.deadline.left, case=process.case.plain())
        provenance = worker.ask("provenance") | {"xla_flags": self._flags(process)}
        known = {"parameters": built["parameters"], "dtype": built["settings"]["dtype"]}
        for index, program in enumerate(process.programs):
            if self.deadline.left < LEAST or worker.process.poll() is not None:
                return [process.name(later) for later in process.programs[index:]]
            row = process.row(program) | known
            try:
                row |= self._program(worker, program)
            except WorkerError as error:
                row["failed"] = str(error)
            self.bench.results.add("gpu", row, provenance)
        return []

    def _flags(self, process: Process) -> str:
        return f"{os.environ.get('XLA_FLAGS', '')} {self.flags[process.flags]}".strip()

    def _program(self, worker: Worker, program: tuple[int, int]) -> Row:
        """One program, and the policy step where it is that of a single agent."""
        seeds, updates = program
        row = worker.ask("compile", limit=self.deadline.left, seeds=seeds, updates=updates)
        row |= self.bench.updates(worker, row, self.deadline.left)
        row["ms_per_seed"] = row["update_ms"]["median"] / seeds
        if program == (1, 1):
            for envs in ENVS:
                times = self.bench.turns("ms", [worker], "policy", envs=envs, limit=self.deadline.left)[
                    worker.name
                ]["ms"]
                row[f"policy_ms_{envs}"] = times
        return row


def chosen(only: str | None, flags: Mapping[str, str]) -> list[Process]:
    """The processes of `SET` whose case holds `only`, for the known flags and for those that were added."""
    added = [Process(case, name, ((1, 1),)) for name in flags if name not in FLAGS for case in (SMALL, MIDDLE)]
    return [process for process in (*SET, *added) if only is None or only in process.case.name]
