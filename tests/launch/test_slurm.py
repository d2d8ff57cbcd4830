"""Jobs of Slurm, by submitit's executor for this machine: what it does not have is Slurm's own queue."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from dreamer_agent.errors import ConfigError, MissingExtraError
from dreamer_agent.launch import slurm as module
from dreamer_agent.launch.local import Run
from dreamer_agent.launch.slurm import JOBS, SlurmLauncher, Task, executor_of, launch_on_slurm, reaped
from dreamer_agent.launch.work import log_of

pytest.importorskip("submitit")

# Counts to a number, one each 50 ms, from where an earlier process stopped; saves when it is asked to end.
COUNTER = """
import json, signal, sys, time
from pathlib import Path
folder, until = Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
if until < 0:
    sys.exit("error: it cannot be made")
state = folder / "state"
count = int(state.read_text()) if state.exists() else 0
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
print("from", count, flush=True)
while count < until and not ended:
    time.sleep(0.05)
    count += 1
state.write_text(str(count))
if count < until:
    sys.exit(75)
(folder / "evaluation.json").write_text("{}")
"""


@dataclass(frozen=True)
class Count:
    """A run that counts."""

    folder: Path
    steps: int

    @property
    def shown(self) -> dict[str, str]:
        return {"run": self.folder.name}

    def check(self) -> None:
        pass

    def finished(self) -> bool:
        return (self.folder / "evaluation.json").is_file()

    def command(self) -> list[str]:
        return [sys.executable, "-c", COUNTER, str(self.folder), str(self.steps)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 0.1)


def local(tmp_path: Path, works: list[Count], retries: int = 2, **parameters: int) -> tuple[list, str]:
    console = Console(file=io.StringIO(), width=200)
    given = {"cluster": "local", "timeout_min": 1, **parameters}
    runs = launch_on_slurm(works, tmp_path / "slurm", given, console, retries)
    return runs, console.file.getvalue()  # type: ignore[attr-defined]


def test_runs_are_submitted_and_watched(tmp_path: Path) -> None:
    works = [Count(tmp_path / name, steps) for name, steps in (("a", 3), ("b", 5), ("c", -1))]
    runs, said = local(tmp_path, works)
    assert [run.state for run in runs] == ["done", "done", "failed"]
    assert "error: it cannot be made" in runs[2].why and runs[2].retried == 0
    assert "submitted 3 jobs" in said and "a: done" in said and "c: failed" in said
    assert set(json.loads((tmp_path / "slurm" / JOBS).read_text())) == {"../a", "../b", "../c"}
    before = log_of(works[0]).read_text()
    runs, said = local(tmp_path, works[:2])
    assert [run.state for run in runs] == ["done", "done"] and "submitted" not in said
    assert log_of(works[0]).read_text() == before


def test_a_job_is_found_again_however_its_folder_is_written(tmp_path: Path, monkeypatch) -> None:
    import submitit

    class Job:
        def __init__(self, folder: Path, job_id: str):
            self.job_id = job_id

        def done(self, force_check: bool = False) -> bool:
            return False

    def launcher(root: Path) -> SlurmLauncher:
        runs = [Run(Count(root / "a", 3))]
        return SlurmLauncher(runs, 1, Console(file=io.StringIO()), folder=(root / "slurm").absolute())

    monkeypatch.setattr(submitit, "SlurmJob", Job)
    (tmp_path / "out" / "slurm").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(module, "executor_of", lambda folder, _: Executor(Job(folder, "17")))
    monkeypatch.chdir(tmp_path)
    first = launcher(Path("out"))
    first._submit(first.runs)
    for here, root in ((tmp_path, tmp_path / "out"), (tmp_path / "elsewhere", Path("../out"))):
        monkeypatch.chdir(here)
        again = launcher(root)
        again._settle(again.runs[0])
        assert again.runs[0].state == "running" and again.jobs[again.runs[0].work.folder].job_id == "17"


class Executor:
    """Submits nothing."""

    def __init__(self, job: object):
        self.job = job

    def batch(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def submit(self, task: Task) -> object:
        return self.job


def signals_to(work: Count, times: int, number: int, word: str) -> threading.Thread:
    """Sends a signal to the processes with `word` in their command, once each life of the run has begun."""

    def send() -> None:
        for count in range(times):
            while not log_of(work).is_file() or log_of(work).read_text().count("from") <= count:
                time.sleep(0.05)
            for process in psutil.Process().children(recursive=True):
                if any(word in part for part in process.cmdline()):
                    process.send_signal(number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_a_job_that_is_preempted_saves_and_goes_on(tmp_path: Path) -> None:
    work = Count(tmp_path / "long", 60)
    thread = signals_to(work, 2, signal.SIGUSR2, "submitit.core._submit")
    (run,), _ = local(tmp_path, [work], retries=0)
    thread.join()
    assert run.state == "done" and run.retried == 0  # the same job went on
    starts = [int(line.split()[1]) for line in log_of(work).read_text().splitlines()]
    assert len(starts) == 3 and starts[0] == 0 and starts == sorted(starts) and starts[-1] < 60


@pytest.mark.parametrize("retries", [0, 1])
def test_a_job_that_dies_is_submitted_again(tmp_path: Path, retries: int) -> None:
    work = Count(tmp_path / "long", 40)
    thread = signals_to(work, 1, signal.SIGKILL, "folder, until =")
    (run,), said = local(tmp_path, [work], retries=retries)
    thread.join()
    assert run.retried == retries and run.state == ("done" if retries else "failed")
    assert ("its job ended at 0 env steps; it goes on" in said) == bool(retries)


def test_a_checkpoint_ends_the_process_and_goes_on_with_the_same_command(tmp_path: Path) -> None:
    import subprocess

    work = Count(tmp_path / "run", 10_000)
    task = Task(work.command(), tmp_path / "run.log")
    process = subprocess.Popen(work.command(), stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline().startswith(b"from")
    task.pid = process.pid
    delayed = task.checkpoint()
    assert (work.folder / "state").is_file() and not work.finished()
    assert delayed.function.command == task.command and delayed.function.log == task.log
    assert reaped(process.pid) == 0  # it is gone already


def test_parameters_that_it_does_not_know_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Slurm cannot be used as asked"):
        executor_of(tmp_path, {"cluster": "local", "no_such": 3})
    with pytest.raises(ConfigError, match="Slurm cannot be used as asked"):
        executor_of(tmp_path, {"cluster": "slurm"})


def test_without_submitit_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingExtraError, match="slurm"):
        executor_of(tmp_path, {})
