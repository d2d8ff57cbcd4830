"""Runs in processes of their own: several at a time, resumed, failed, stopped."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from dreamer_agent.bench.benchmark import Benchmark, Task
from dreamer_agent.bench.jobs import Job, jobs_of
from dreamer_agent.errors import RunDirectoryError
from dreamer_agent.interrupt import REQUEUE
from dreamer_agent.launch import local as module
from dreamer_agent.launch.devices import shares
from dreamer_agent.launch.local import Run, launch
from dreamer_agent.launch.work import evaluation_in, log_of
from tests.bench.runs import finish

TASKS = tuple(Task(f"CartPole-v{number}", 1000, ("classic",)) for number in range(3))

# A process that writes what a run does; one that is asked to end exits as ours do.
WORKER = """
import json, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
folder, task, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
print("at work", flush=True)
if task.endswith("v1"):
    sys.exit("it broke")
folder.mkdir(parents=True, exist_ok=True)
(folder / "metrics.jsonl").write_text('{"step": 500, "episode/return": 9.0, "episode/count": 1}\\n')
began = time.time()
time.sleep(seconds)
score = dict(policy="sample", episodes=1, return_mean=9.0, return_std=0.0)
(folder / "span.json").write_text(json.dumps([began, time.time()]))
(folder / "provenance.json").write_text("{}")
(folder / "evaluation.json").write_text(json.dumps({"env_steps": 1000, "updates": 1, "scores": [score, score]}))
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Fake processes that take so many seconds, and a launcher that looks often."""
    seconds = [0.5]

    def command(job: Job) -> list[str]:
        return [sys.executable, "-c", WORKER, str(job.folder), job.task.env, str(seconds[0])]

    monkeypatch.setattr(Job, "command", command)
    monkeypatch.setattr(module, "POLL", 0.05)
    return seconds


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_a_failure_stops_no_other_run(tmp_path: Path, quick: list[float]) -> None:
    console = quiet()
    runs = launch(jobs_of(Benchmark("b", TASKS, seeds=1), tmp_path), 2, console)
    assert [run.state for run in runs] == ["done", "failed", "done"]
    assert runs[0].score == 9.0 and runs[0].step == 500
    assert "it broke (exit code 1" in runs[1].why
    assert log_of(runs[1].work).read_text() == "at work\nit broke\n"
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "CartPole-v0 dreamer seed 0: running" in said and "CartPole-v1 dreamer seed 0: failed" in said


def test_finished_runs_are_left_as_they_are(tmp_path: Path, quick: list[float]) -> None:
    jobs = jobs_of(Benchmark("b", TASKS[:1], seeds=2), tmp_path)
    finish(jobs[0], [3.0], 5.0)
    before = (jobs[0].folder / "evaluation.json").stat().st_mtime_ns
    runs = launch(jobs, 1, quiet())
    assert [run.state for run in runs] == ["done", "done"]
    assert runs[0].process is None and runs[1].process is not None and runs[0].score == 3.0
    assert (jobs[0].folder / "evaluation.json").stat().st_mtime_ns == before


def test_the_machine_is_divided_among_the_runs_that_are_left(tmp_path: Path, quick, monkeypatch) -> None:
    jobs = jobs_of(Benchmark("b", TASKS[:1], seeds=3), tmp_path)
    finish(jobs[0], [3.0], 5.0)
    parts: list[int] = []
    monkeypatch.setattr(module, "shares", lambda count: parts.append(count) or shares(count))
    launch(jobs, 4, quiet())
    launch(jobs, 4, quiet())
    assert parts == [2, 1]


def test_what_a_process_said_last_is_shown_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = jobs_of(Benchmark("b", TASKS[:1], seeds=1), tmp_path)
    last = "[/tmp/x.so] is no library, got [a, b]"
    monkeypatch.setattr(Job, "command", lambda _: [sys.executable, "-c", f"raise SystemExit({last!r})"])
    console = quiet()
    (run,) = launch([job], 1, console)
    assert run.state == "failed" and last in console.file.getvalue()  # type: ignore[attr-defined]


def spans(jobs: list[Job]) -> list[list[float]]:
    import json

    return sorted(json.loads((job.folder / "span.json").read_text()) for job in jobs)


@pytest.mark.parametrize("at_once", [1, 2])
def test_so_many_at_a_time(tmp_path: Path, quick: list[float], at_once: int) -> None:
    jobs = jobs_of(Benchmark("b", (TASKS[0], TASKS[2]), seeds=1), tmp_path)
    quick[0] = 4.0 if at_once == 2 else 0.3
    launch(jobs, at_once, quiet())
    (_, first_end), (second_begin, _) = spans(jobs)
    assert (second_begin < first_end) == (at_once == 2)


def test_a_signal_saves_all_and_the_same_call_goes_on(tmp_path: Path, quick: list[float]) -> None:
    jobs = jobs_of(Benchmark("b", (TASKS[0], TASKS[2]), seeds=1), tmp_path)
    quick[0] = 60.0

    def interrupt() -> None:
        while not (jobs[0].folder / "metrics.jsonl").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    began = time.monotonic()
    runs = launch(jobs, 1, quiet())
    thread.join()
    assert time.monotonic() - began < 50
    assert [run.state for run in runs] == ["stopped", "stopped"]
    assert runs[0].process is not None and runs[0].process.returncode == REQUEUE and runs[1].process is None
    quick[0] = 0.1
    assert [run.state for run in launch(jobs, 1, quiet())] == ["done", "done"]


def test_a_signal_while_a_run_is_started_reaches_it(tmp_path: Path, quick, monkeypatch) -> None:
    (job,) = jobs_of(Benchmark("b", TASKS[:1], seeds=1), tmp_path)
    start = Job.command

    def interrupted(job: Job) -> list[str]:
        os.kill(os.getpid(), signal.SIGTERM)
        return start(job)

    quick[0] = 60.0
    monkeypatch.setattr(Job, "command", interrupted)
    began = time.monotonic()
    (run,) = launch([job], 1, quiet())
    assert run.state == "stopped" and time.monotonic() - began < 50


# One that takes a while to save; a second signal ends it before it has.
SLOW_TO_SAVE = """
import signal, sys, time
from pathlib import Path
def first(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Path(sys.argv[1]).with_suffix(".asked").touch()
    time.sleep(1.5)
    Path(sys.argv[1]).with_suffix(".saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, first)
Path(sys.argv[1]).with_suffix(".up").touch()
time.sleep(60)
"""


def test_a_second_ctrl_c_leaves_runs_to_their_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = jobs_of(Benchmark("b", TASKS[:1], seeds=1), tmp_path)
    monkeypatch.setattr(Job, "command", lambda job: [sys.executable, "-c", SLOW_TO_SAVE, str(job.folder)])
    monkeypatch.setattr(module, "POLL", 0.05)

    def interrupt() -> None:
        for there in (".up", ".asked"):
            while not job.folder.with_suffix(there).exists():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

    thread, before = threading.Thread(target=interrupt), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            launch([job], 1, quiet())
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    end = time.monotonic() + 30
    while not job.folder.with_suffix(".saved").exists():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_damaged_metrics_do_not_end_the_launcher(tmp_path: Path) -> None:
    (job,) = jobs_of(Benchmark("b", TASKS[:1], seeds=1), tmp_path)
    finish(job, [3.0, 4.0], 5.0)
    path = job.folder / "metrics.jsonl"
    path.write_text("{damaged\n" + path.read_text())
    run = Run(job)
    run.look()
    assert (run.step, run.score) == (1000, 4.0)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{damaged", "it is no JSON object"),
        ("null", "it is no JSON object"),
        ("{}", "env_steps is no number"),
        ('{"env_steps": "1000"}', "env_steps is no number"),
        ('{"env_steps": 1000}', "scores is no list"),
        ('{"env_steps": 1000, "scores": []}', "scores is no list"),
        ('{"env_steps": 1000, "scores": [{"return_mean": 1}]}', "scores is no list"),
        (
            '{"env_steps": 1000, "scores": [{"return_mean": 1}, {"return_mean": true}]}',
            "a score has no return_mean",
        ),
        ('{"env_steps": 1000, "scores": [1, 2]}', "a score has no return_mean"),
    ],
)
def test_damaged_scores_are_told(tmp_path: Path, text: str, wrong: str) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(RunDirectoryError) as told:
        evaluation_in(tmp_path, 1000)
    assert str(told.value).startswith(f"{tmp_path} has a damaged evaluation.json ({wrong}")
    assert "): delete that file, and the same command scores the run anew" in str(told.value)


def test_scores_of_fewer_steps_are_not_read(tmp_path: Path) -> None:
    assert evaluation_in(tmp_path, 1000) is None
    (tmp_path / "evaluation.json").write_text('{"env_steps": 999}')
    assert evaluation_in(tmp_path, 1000) is None


def test_damaged_scores_do_not_end_the_launcher(tmp_path: Path, quick: list[float], monkeypatch) -> None:
    """Those that lie there already, and those that a process has left."""
    jobs = jobs_of(Benchmark("b", (TASKS[0], TASKS[2]), seeds=2), tmp_path)
    finish(jobs[0], [3.0], 5.0)
    (jobs[0].folder / "evaluation.json").write_text("{}")
    quick[0], begin = 0.0, Job.command

    def command(job: Job) -> list[str]:
        executed = begin(job)
        if job is jobs[1]:
            executed[2] = WORKER.replace('json.dumps({"env_steps"', '"[]" or json.dumps({"env_steps"')
        return executed

    monkeypatch.setattr(Job, "command", command)
    runs = launch(jobs, 2, quiet(), retries=2)
    assert [run.state for run in runs] == ["failed", "failed", "done", "done"]
    assert all(f"{run.work.folder} has a damaged evaluation.json" in run.why for run in runs[:2])
    assert runs[0].process is None and runs[1].process is not None
    (jobs[0].folder / "evaluation.json").unlink()
    assert launch(jobs[:1], 1, quiet())[0].state == "done"


def test_a_screen_shows_what_is_at_work_and_counts_the_rest() -> None:
    runs = [Run(Job(TASKS[0], "dreamer", seed, "x", 1), state="waiting") for seed in range(40)]
    runs[3].state, runs[7].state = "running", "failed"
    launcher = module.Launcher(runs, 1, quiet())
    table = launcher.table()
    assert table.row_count == 2 and table.caption == "38 waiting, 1 running, 1 failed"
    assert module.Launcher(runs[:5], 1, quiet()).table().row_count == 5


def killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, how: str = "os.kill(os.getpid(), 9)"
) -> Job:
    """A run whose first `times` processes are killed."""
    (job,) = jobs_of(Benchmark("b", TASKS[:1], seeds=1), tmp_path)
    killer = f"""
import os, sys
from pathlib import Path
lives = Path(sys.argv[1]).with_suffix(".lives")
count = len(lives.read_text()) if lives.exists() else 0
lives.parent.mkdir(parents=True, exist_ok=True)
lives.write_text("x" * (count + 1))
if count < {times}:
    {how}
"""
    command = [sys.executable, "-c", killer + WORKER, str(job.folder), job.task.env, "0"]
    monkeypatch.setattr(Job, "command", lambda _: command)
    monkeypatch.setattr(module, "POLL", 0.05)
    return job


@pytest.mark.parametrize("how", ["os.kill(os.getpid(), 9)", "sys.exit(75)"])
def test_a_run_that_was_killed_is_started_again(tmp_path: Path, monkeypatch, how: str) -> None:
    console = quiet()
    (run,) = launch([killed(tmp_path, monkeypatch, 2, how)], 1, console, retries=2)
    assert (run.state, run.retried) == ("done", 2)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.count("it goes on") == 2 and ("killed by SIGKILL" in said or "exit code 75" in said)


def test_it_is_given_up_after_so_many_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = launch([killed(tmp_path, monkeypatch, 5)], 1, quiet(), retries=1)
    assert (run.state, run.retried) == ("failed", 1) and "killed by SIGKILL" in run.why


def test_a_failure_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = launch([killed(tmp_path, monkeypatch, 5, "sys.exit('it broke')")], 1, quiet(), retries=3)
    assert (run.state, run.retried) == ("failed", 0) and "it broke (exit code 1" in run.why


def test_what_is_left_of_all_runs() -> None:
    runs = [Run(Job(TASKS[0], "dreamer", seed, "x", 1)) for seed in range(4)]
    launcher = module.Launcher(runs, 2, quiet())
    assert launcher.left() is None
    now = time.monotonic()
    for run in runs[:2]:
        run.state, run.began, run.step = "running", (now - 100, 0.0), 500.0
    runs[3].state, runs[3].score = "done", 7.0
    assert launcher.left() == pytest.approx((500 + 500 + 1000) * 0.2 / 2, rel=0.01)
    assert "about 0:03:" in str(launcher.table().caption) and "best so far 7" in str(launcher.table().caption)
