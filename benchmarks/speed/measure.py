"""The parts in which contenders take turns: update, policy, replay, the whole loop; how the update scales."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.speed.cases import Case
from benchmarks.speed.report import Results, Row
from benchmarks.speed.worker import Contender, Rounds, Worker, WorkerError, interleave, ratio, summary

ENVS = (1, 16)
LOOPS = {
    "CartPole-v1": (["classic"], ["env.id=CartPole-v1"]),
    "toy:catch": (["pixels"], ["env.id=toy:catch"]),
    "gymnax:CartPole-v1": (["classic"], ["env.id=gymnax:CartPole-v1"]),
}
NATIVE = "env.id=gymnax:CartPole-v1"
NATIVE_ENVS = (1, 16, 256)
# Without updates (the replay is never full enough), and with 32 replayed steps for each env step.
NATIVE_MODES = {"acting": "replay.prefill=10000000", "training": "replay.ratio=32"}
# The ways to run the loop. One that the measured version does not have is reported as failed, with its reason.
LOOP_KINDS = {"host": [], "host, waiting": ["train.overlap=false"], "device": ["train.loop=device"]}
NATIVE_KINDS = {"host": [], "device": ["train.loop=device"]}
AXES: dict[str, list[Any]] = {
    "batch": [4, 8, 16, 32, 64],
    "length": [16, 32, 64, 128],
    "size": ["nano", "tiny", "1m", "12m"],
    "seeds": [1, 2, 4, 8],
}


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where results go, and how long is measured: `rounds` turns of at least `seconds` each.

    Of the contenders the first is the one that the others are held against.
    """

    results: Results
    rounds: int
    seconds: float

    def learner(self, case: Case, contenders: Sequence[Contender], parts: Sequence[str]) -> None:
        """The parts `update`, `policy` and `replay` of one case, in one set of workers."""
        rows: dict[str, Row] = {}
        with contextlib.ExitStack() as stack:
            workers = []
            for contender in contenders:
                worker = stack.enter_context(Worker(contender))
                try:
                    case, rows[worker.name] = start(worker, case)
                    workers.append(worker)
                except WorkerError as error:
                    self._failed(parts, case.name, worker.name, error)
            for part in parts if workers else ():
                self._part(part, case.name, workers, rows)

    def loop(self, name: str, contenders: Sequence[Contender], steps: int) -> None:
        """Env steps per second of every kind of loop; of other contenders, that of the plain one."""
        kinds = [(contenders[0], kind) for kind in LOOP_KINDS] + [(other, "host") for other in contenders[1:]]
        presets, overrides = LOOPS[name]
        with contextlib.ExitStack() as stack:
            workers, opened = [], {}
            for index, (contender, kind) in enumerate(kinds):
                label = kind if index < len(LOOP_KINDS) else f"{kind}: {contender.name}"
                worker = stack.enter_context(Worker(dataclasses.replace(contender, name=label)))
                try:
                    opened[label] = worker.ask("open", presets=presets, overrides=overrides + LOOP_KINDS[kind])
                    workers.append(worker)
                except WorkerError as error:
                    self._failed(["loop"], name, label, error)
            if workers:
                self._loops(name, workers, opened, interleave(workers, self.rounds, "steps", count=steps))

    def native(self, steps: int, copies: Sequence[int] = NATIVE_ENVS) -> None:
        """Host and device loop on the same environment in JAX, acting alone and training, by its copies.

        A turn of acting takes `steps` steps of all copies, one of training `steps` env steps and at least four of
        all copies.
        """
        for mode, override in NATIVE_MODES.items():
            for envs in copies:
                name = f"{NATIVE.removeprefix('env.id=')}, {mode}, {envs} envs"
                overrides = [NATIVE, override, f"env.num_envs={envs}"]
                if mode == "training":  # all copies have to fill a window before the first update
                    overrides.append(f"replay.prefill={max(1024, 40 * envs)}")
                with contextlib.ExitStack() as stack:
                    workers, opened = [], {}
                    for kind, more in NATIVE_KINDS.items():
                        worker = stack.enter_context(Worker(dataclasses.replace(Contender.ours(), name=kind)))
                        opened[kind] = worker.ask("open", presets=["classic"], overrides=overrides + more)
                        workers.append(worker)
                    count = steps * envs if mode == "acting" else max(steps, 4 * envs)
                    self._loops(name, workers, opened, interleave(workers, self.rounds, "steps", count=count))

    def seeds(self, count: int, steps: int) -> None:
        """Env steps per second of `count` seeds in all: as one program, and as as many processes side by side."""
        request = {"presets": ["classic"], "overrides": [NATIVE, "train.loop=device"]}
        one, many = f"{count} seeds as one program", f"{count} processes"
        with contextlib.ExitStack() as stack:
            together = stack.enter_context(Worker(dataclasses.replace(Contender.ours(), name=one)))
            opened = together.ask("open_population", seeds=count, **request)
            apart = [
                stack.enter_context(Worker(dataclasses.replace(Contender.ours(), name=f"process {index}")))
                for index in range(count)
            ]
            pool = stack.enter_context(ThreadPoolExecutor(count))
            list(pool.map(lambda worker: worker.ask("open", **request), apart))
            times: dict[str, Rounds] = {one: [], many: []}
            for _ in range(self.rounds):
                times[one].append(together.ask("population_steps", count=steps)["ms"])
                own = pool.map(lambda worker: worker.ask("steps", count=steps)["ms"][0], apart)
                times[many].append([1 / sum(1 / ms for ms in own)])
            self._loops("gymnax:CartPole-v1", [together], dict.fromkeys(times, opened), times)

    def scaling(self, base: Case, axis: str) -> None:
        """The cost of an update along one axis, each point in a process of its own."""
        first = None
        for value in AXES[axis]:
            case, seeds = along(base, axis, value)
            with Worker(Contender.ours()) as worker:
                try:
                    case, row = start(worker, case, seeds=seeds)
                    row |= self.updates(worker, row)
                except WorkerError as error:
                    self._failed(["scaling"], case.name, worker.name, error)
                    continue
                replay = case.settings["replay"]
                steps = replay["batch_size"] * replay["batch_length"] * seeds
                first = first or row["update_ms"]["median"]
                row["times_base"] = row["update_ms"]["median"] / first
                row["us_per_step"] = 1e3 * row["update_ms"]["median"] / steps
                self.results.add("scaling", row, worker.ask("provenance"))

    def turns(
        self, name: str, workers: list[Worker], do: str, ratio_name: str = "ratio", **request: Any
    ) -> dict[str, Row]:
        """For each worker its times under `name`, and (but for the first) the ratio to the first."""
        times = interleave(workers, self.rounds, do, seconds=self.seconds, **request)
        base = times[workers[0].name]
        rows: dict[str, Row] = {worker: {name: summary(rounds)} for worker, rounds in times.items()}
        for worker in workers[1:]:
            rows[worker.name][ratio_name] = ratio(times[worker.name], base)
        return rows

    def updates(self, worker: Worker, row: Row, limit: float | None = None) -> Row:
        """Times, memory and achieved arithmetic of the program in `row`; each request takes at most `limit` s."""
        times = self.turns("update_ms", [worker], "update", limit=limit)[worker.name]["update_ms"]
        peak = worker.ask("peak")
        return {"update_ms": times} | peak | achieved(row["flops"], times, matmul_gflops(worker, self.seconds))

    def _part(self, part: str, case: str, workers: list[Worker], rows: dict[str, Row]) -> None:
        provenance = workers[0].ask("provenance")
        try:
            found = getattr(self, f"_{part}")(workers, rows)
        except WorkerError as error:
            self._failed([part], case, error.worker, error)
            return
        for name, row in found:
            self.results.add(part, {"case": case, "contender": name, **row}, provenance)

    def _update(self, workers: list[Worker], rows: dict[str, Row]) -> list[tuple[str, Row]]:
        times = self.turns("update_ms", workers, "update")
        peaks = {worker.name: worker.ask("peak") for worker in workers}  # before anything else adds to them
        matmul = matmul_gflops(workers[0], self.seconds)
        return [
            (name, rows[name] | row | peaks[name] | achieved(rows[name]["flops"], row["update_ms"], matmul))
            for name, row in times.items()
        ]

    def _policy(self, workers: list[Worker], rows: dict[str, Row]) -> list[tuple[str, Row]]:
        return [
            (name, {"envs": envs, **row})
            for envs in ENVS
            for name, row in self.turns("policy_ms", workers, "policy", envs=envs).items()
        ]

    def _replay(self, workers: list[Worker], rows: dict[str, Row]) -> list[tuple[str, Row]]:
        for worker in workers:
            worker.ask("fill")
        sample = self.turns("sample_ms", workers, "sample", ratio_name="sample_ratio")
        add = self.turns("add_ms", workers, "add", ratio_name="add_ratio")
        return [(name, sample[name] | add[name]) for name in sample]

    def _loops(self, name: str, workers: list[Worker], opened: dict[str, Row], times: dict[str, Rounds]) -> None:
        provenance = workers[0].ask("provenance")
        base = times[workers[0].name]
        for label, rounds in times.items():
            ms = summary(rounds) | {"max": max(turn[0] for turn in rounds)}
            rate = {"median": 1e3 / ms["median"], "min": 1e3 / ms["max"], "max": 1e3 / ms["min"]}
            row = {"case": name, "contender": label, "env_steps_per_s": rate, "rounds": len(rounds)}
            row["updates_per_s"] = rate["median"] * opened[label]["updates_per_env_step"]
            if label != workers[0].name:
                row["ratio"] = ratio(base, rounds)
            self.results.add("loop", row, provenance)

    def _failed(self, parts: Sequence[str], case: str, contender: str, error: WorkerError) -> None:
        for part in parts:
            self.results.add(part, {"case": case, "contender": contender, "failed": str(error)}, {})


def start(worker: Worker, case: Case, **program: Any) -> tuple[Case, Row]:
    """Let a worker build and compile a case; gives the case with its resolved sizes, and the row so far."""
    built = worker.ask("build", case=case.plain())
    case = dataclasses.replace(case, settings=built.pop("settings", case.settings))
    identity = {"case": case.name, "contender": worker.name, "dtype": case.settings["dtype"]}
    return case, identity | built | worker.ask("compile", **program)


def along(base: Case, axis: str, value: Any) -> tuple[Case, int]:
    """The case at one point of an axis, and how many seeds it is run with."""
    name = f"{base.name}, {axis} {value}"
    if axis == "seeds":
        return dataclasses.replace(base, name=name), value
    if axis == "size":
        return dataclasses.replace(base, name=name, presets=(*base.presets, f"size/{value}")), 1
    return base.with_overrides(name, f"replay.batch_{'size' if axis == 'batch' else axis}={value}"), 1


def matmul_gflops(worker: Worker, seconds: float) -> float:
    """The best that a large matrix product reaches in the worker's precision, in GFLOP/s."""
    reply = worker.ask("matmul", seconds=seconds)
    return reply["flops"] / min(reply["ms"]) / 1e6


def achieved(flops: int, times: Row, matmul: float) -> Row:
    """GFLOP/s of the median time, beside those of the matrix product."""
    return {"gflops": flops / times["median"] / 1e6, "matmul_gflops": matmul}
