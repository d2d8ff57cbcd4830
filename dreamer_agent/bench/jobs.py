"""One run of a benchmark: what it trains, where it lies, how far it is; and the process that does it.

python -m dreamer_agent.bench.jobs JOB      # a job as JSON; what `dreamer-agent bench` starts for each
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer_agent.bench.benchmark import OURS, Benchmark, Task
from dreamer_agent.bench.identity import difference, held_values, values_of
from dreamer_agent.config import read_config
from dreamer_agent.errors import RunDirectoryError
from dreamer_agent.launch import worker
from dreamer_agent.launch.work import evaluation_of

WAIT = 120.0  # seconds for a process that still saves what it has learned


@dataclass(frozen=True)
class Job:
    """One method on one task with one seed."""

    task: Task
    method: str
    seed: int
    root: str  # folder of all runs of the benchmark
    episodes: int

    @property
    def folder(self) -> Path:
        """Its run directory."""
        return Path(self.root) / self.task.folder / f"{self.method}-{self.seed}"

    @property
    def shown(self) -> dict[str, str]:
        """What names it in a table."""
        return {"task": self.task.env, "method": self.method, "seed": str(self.seed)}

    @property
    def steps(self) -> int:
        """Its budget in env steps."""
        return self.task.steps_of(self.method)

    def evaluation(self) -> dict[str, Any] | None:
        """The scores of the finished run; None until it has trained for all of its steps.

        Raises `RunDirectoryError` where they are damaged.
        """
        return evaluation_of(self)

    def finished(self) -> bool:
        """Whether it has trained for all of its steps and is scored."""
        return self.evaluation() is not None

    def check(self) -> None:
        """Raise a `DreamerError` where the run directory holds another run, finished or not."""
        check(self)

    def command(self) -> list[str]:
        """What its process executes."""
        return [sys.executable, "-m", "dreamer_agent.bench.jobs", self.text()]

    def text(self) -> str:
        """The job as JSON."""
        return json.dumps(dataclasses.asdict(self))


def jobs_of(benchmark: Benchmark, root: Path, seeds: Sequence[int] | None = None) -> list[Job]:
    """All runs of a benchmark: the first seed of every task and method first, then the second one, ...

    A method that is named twice is run once.
    """
    return [
        Job(task, method, seed, str(root), benchmark.episodes)
        for seed in (range(benchmark.seeds) if seeds is None else seeds)
        for task in benchmark.tasks
        for method in dict.fromkeys(benchmark.methods)
        if task.allows(method)
    ]


def job_from(text: str) -> Job:
    """The inverse of `Job.text`."""
    values = json.loads(text)
    task = {key: tuple(value) if isinstance(value, list) else value for key, value in values.pop("task").items()}
    return Job(Task(**task), **values)  # type: ignore[arg-type]


def work(job: Job) -> None:
    """Train and score; goes on where an earlier process stopped."""
    from dreamer_agent import api
    from dreamer_agent.training.lock import check_free

    check_free(job.folder, WAIT)
    if job.method == OURS:
        api.train(job.task.config(job.seed, job.episodes), job.folder)
        return
    from dreamer_agent.bench.baselines import train_baseline

    env = job.task.env_config(job.method)
    train_baseline(job.method, env, job.steps, job.seed, job.folder, job.episodes)


def check(job: Job) -> None:
    """Raise a `DreamerError` where the run directory holds another run than the job's, finished or not."""
    if job.method != OURS:
        from dreamer_agent.bench.baselines import is_finished

        is_finished(job.method, job.task.env_config(job.method), job.steps, job.seed, job.folder, job.episodes)
        return
    if not (job.folder / "config.yaml").is_file():
        return
    from dreamer_agent.training import run_directory

    held = read_config(job.folder / "config.yaml").train.steps
    if held > job.steps:
        raise RunDirectoryError(
            f"{job.folder} holds a run of {held:,} env steps, but {job.steps:,} are asked for: give another "
            "--out, or as many --steps."
        )
    try:
        run_directory.check(job.folder, job.task.config(job.seed, job.episodes), allow=["version"])
    except RunDirectoryError as error:
        raise RunDirectoryError(f"{str(error).partition(': give')[0]}: give another --out.") from error
    # What a run may change while it is going on is still what a finished one was trained with.
    differs = difference(held_values(job.folder), values_of(job.task)) if job.finished() else ""
    if differs:
        raise RunDirectoryError(f"{job.folder} holds a finished run with {differs}: give another --out.")


if __name__ == "__main__":
    sys.exit(worker.main(lambda: work(job_from(sys.argv[1])), *sys.argv[2:]))
