"""Trials of Ray Tune on this machine: what it does not have is a cluster."""

from __future__ import annotations

import contextlib
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
from dreamer_agent.launch.local import Run
from dreamer_agent.launch.ray import launch_on_ray
from dreamer_agent.launch.ray_cluster import SETTINGS, options_of
from dreamer_agent.launch.work import log_of, mark_of
from dreamer_agent.ray_connection import OBJECTS

# Counts to a number, one each 50 ms, from where an earlier process stopped; saves when it is asked to end. Each
# ten it logs a return, `pace` for each number.
COUNTER = """
import json, os, signal, sys, time
from pathlib import Path
from dreamer_agent.launch.worker import end_with_parent
folder, until, pace, cores = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
folder.mkdir(parents=True, exist_ok=True)
if until < 0:
    print("error: it cannot be made", flush=True)
    sys.exit(2)
state = folder / "state"
count = int(state.read_text()) if state.exists() else 0
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
end_with_parent(0.1)
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
    """One Ray for most tests, which find it and leave it; it believes in two cores and a GPU."""
    found = pytest.importorskip("ray")
    pytest.importorskip("ray.tune")
    before = set(psutil.Process().children(recursive=True))
    with pytest.MonkeyPatch.context() as patch:
        for key, value in SETTINGS.items():
            patch.setenv(key, value)
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        found.init(
            address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False,
            object_store_memory=OBJECTS,
        )  # fmt: skip
        yield found
        found.shutdown()
    left = set(psutil.Process().children(recursive=True)) - before
    _, alive = psutil.wait_procs(left, timeout=20)
    assert not alive


def launched(
    tmp_path: Path,
    works: list[Count],
    retries: int = 2,
    more: Callable[[Sequence[Run]], Sequence[Count]] | None = None,
    **options: object,
) -> tuple[list[Run], str]:
    console = Console(file=io.StringIO(), width=200)
    given = options_of({"cpus": 1, "gpus": 0, **options})
    runs = launch_on_ray(works, tmp_path / "ray", given, console, retries, more)
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


def children(word: str) -> list[psutil.Process]:
    """The processes below this one with `word` in their command."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(word in part for part in process.cmdline()):
                found.append(process)
    return found


def at_life(work: Count, count: int, act: Callable[[], object]) -> threading.Thread:
    """Does `act` a little after the process of a run has begun for the `count`-th time."""

    def wait() -> None:
        while not log_of(work).is_file() or log_of(work).read_text().count("from") < count:
            time.sleep(0.05)
        time.sleep(0.8)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def starts(work: Count) -> list[int]:
    return [int(line.split()[1]) for line in log_of(work).read_text().splitlines()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_ended_by_somebody_else_goes_on(tmp_path: Path, ray, number: int) -> None:
    work = Count(tmp_path / "long", 60)
    thread = at_life(work, 1, lambda: [one.send_signal(number) for one in children(str(work.folder))])
    (run,), said = launched(tmp_path, [work])
    thread.join()
    assert (run.state, run.retried) == ("done", 1) and "it goes on" in said
    assert len(starts(work)) == 2 and 10 <= starts(work)[1] < 60


def test_a_worker_that_is_killed_is_replaced_and_its_process_saves_first(tmp_path: Path, ray) -> None:
    work = Count(tmp_path / "forgetful", 60)  # it saves only when it is asked to end
    thread = at_life(work, 1, lambda: [one.parent().kill() for one in children(str(work.folder))])
    (run,), said = launched(tmp_path, [work])
    thread.join()
    assert (run.state, run.retried) == ("done", 1) and "it goes on" in said
    assert len(starts(work)) == 2 and starts(work)[1] > 0


def test_one_that_is_killed_too_often_is_given_up(tmp_path: Path, ray) -> None:
    work = Count(tmp_path / "long", 1000)
    thread = at_life(work, 1, lambda: [one.kill() for one in children(str(work.folder))])
    (run,), _ = launched(tmp_path, [work], retries=0)
    thread.join()
    assert (run.state, run.retried) == ("failed", 0) and "from 0 (killed 1 times, see" in run.why


def test_a_signal_saves_all_and_the_same_call_goes_on(tmp_path: Path, ray) -> None:
    works = [Count(tmp_path / "forgetful", 60), Count(tmp_path / "next", 20)]
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    thread = at_life(works[0], 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    runs, said = launched(tmp_path, works, cpus=2)
    thread.join()
    assert [run.state for run in runs] == ["stopped", "stopped"] and "all runs save first" in said
    assert not children(str(works[0].folder)) and not works[1].folder.exists()
    saved = int((works[0].folder / "state").read_text())
    runs, _ = launched(tmp_path, works)
    assert [run.state for run in runs] == ["done", "done"] and starts(works[0]) == [0, saved]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_asha_stops_early_and_says_so(tmp_path: Path, ray) -> None:
    works = [Count(tmp_path / name, 60, pace) for name, pace in (("good", 4.0), ("bad", 1.0), ("worse", 0.5))]
    given = {"cpus": 2, "asha": {"grace_period": 20, "reduction_factor": 2}}  # one after the other
    runs, said = launched(tmp_path, works[:2], **given)
    assert [run.state for run in runs] == ["done", "stopped early"]
    assert runs[1].why == "by ASHA, for a return of 20 at 20 env steps" and "bad: stopped early at" in said
    assert json.loads(mark_of(works[1]).read_text()) == {"by": "ASHA", "env_steps": 20, "return": 20.0}
    assert 20 <= int((works[1].folder / "state").read_text()) < 60  # it has saved
    runs, _ = launched(tmp_path, works, **given)  # the third is compared with those of before
    assert [run.state for run in runs] == ["done", "stopped early", "stopped early"]
    assert len(starts(works[0])) == len(starts(works[1])) == len(starts(works[2])) == 1
    runs, _ = launched(tmp_path, works[:2])
    assert [run.state for run in runs] == ["done", "stopped early"]


def test_runs_that_follow_are_asked_for_when_the_others_have_begun(tmp_path: Path, ray) -> None:
    works, asked = [Count(tmp_path / name, 10) for name in "abc"], []

    def more(runs: Sequence[Run]) -> list[Count]:
        asked.append([run.state for run in runs])
        return works[len(runs) : len(runs) + 1]

    runs, _ = launched(tmp_path, works[:1], more=more)
    assert [run.state for run in runs] == ["done"] * 3 and runs[2].work is works[2]
    assert [len(states) for states in asked][:3] == [1, 2, 3] and "waiting" not in asked[0]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"cpu": 1}, "unknown 'cpu': known are cpus, gpus, address, asha, optuna"),
        ({"cpus": 0}, "cpus=0 and gpus=None: give whole numbers"),
        ({"gpus": "all"}, "gpus='all': give whole numbers"),
        ({"gpus": 1.5}, "gpus=1.5: give whole numbers"),
        ({"gpus": -0.5}, "gpus=-0.5: give whole numbers"),
        ({"asha": 3}, "asha: 3: write its parameters"),
        ({"address": "ray://head:10001"}, "start the sweep on a machine of the cluster"),
    ],
)  # fmt: skip
def test_options_that_it_does_not_have_are_told(given: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        options_of(given)


def test_asha_is_asked_for_in_several_ways() -> None:
    assert options_of({"asha": True}).asha == {} and options_of({"asha": False}).asha is None
    assert options_of({}).asha is None and options_of({"asha": {"brackets": 2}}).asha == {"brackets": 2}


def test_what_ray_cannot_do_is_told_before_a_run_begins(tmp_path: Path, ray) -> None:
    work = Count(tmp_path / "a", 10)
    with pytest.raises(ConfigError, match=r"ASHA cannot be used as asked: .*no_such"):
        launched(tmp_path, [work], asha={"no_such": 1})
    with pytest.raises(ConfigError, match="A run is to have 500 CPUs, but Ray has"):
        launched(tmp_path, [work], cpus=500)
    assert not work.folder.exists()


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"install '\.\[ray\]'"):
        launched(tmp_path, [Count(tmp_path / "a", 10)])


@pytest.mark.parametrize(("gpus", "fraction"), [(0.25, "0.188"), (1.0, None), (0.0, None)])
def test_a_process_gets_its_part_of_a_gpu(monkeypatch, ray, gpus: float, fraction: str | None) -> None:
    from dreamer_agent.launch.ray_parts import environment_for

    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    found = environment_for(gpus)
    assert found.get("XLA_PYTHON_CLIENT_MEM_FRACTION") == fraction
    assert found["CUDA_VISIBLE_DEVICES"] == ("3" if gpus else "")


def test_two_runs_share_a_gpu(tmp_path: Path, ray) -> None:
    works = [Count(tmp_path / name, 150) for name in "ab"]
    runs, said = launched(tmp_path, works, gpus=0.5)
    assert [run.state for run in runs] == ["done", "done"]
    assert max(said.index("a: running"), said.index("b: running")) < min(said.index("a: d"), said.index("b: d"))
    for work in works:
        environment = json.loads((work.folder / "environment.json").read_text())
        assert environment["CUDA_VISIBLE_DEVICES"] == "0"
        assert environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.375"


def test_by_default_a_run_has_a_gpu_where_there_is_one(tmp_path: Path, ray) -> None:
    launched(tmp_path, [Count(tmp_path / "a", 1)], gpus=None)
    environment = json.loads((tmp_path / "a" / "environment.json").read_text())
    assert environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in environment


def test_every_logged_return_is_reported_once(tmp_path: Path, ray) -> None:
    from dreamer_agent.launch.ray_parts import Rows

    path = tmp_path / "metrics.jsonl"
    rows = Rows(path)
    assert rows.next() is None
    path.write_text('{"step": 5}\n{"step": 9, "episode/return": 1.5}\n{"step": 12, "episode/re')
    assert rows.next() == {"env_steps": 9, "return": 1.5} and rows.next() is None
    path.write_text('{"step": 9, "episode/return": 1.5}\n')  # it went back to its checkpoint
    assert rows.next() is None
    with path.open("a") as file:
        file.write('{"step": 12, "episode/return": 2.0}\n')
    assert rows.next() == {"env_steps": 12, "return": 2.0} and rows.next() is None


ALONE = """
import sys
from pathlib import Path
from dreamer_agent.launch.ray import launch_on_ray
from dreamer_agent.launch.ray_cluster import Options
from tests.launch.test_ray import Count
runs = launch_on_ray([Count(Path(sys.argv[1]) / "forgetful", 10_000)], Path(sys.argv[1]) / "ray", Options())
print(*[run.state for run in runs], flush=True)
"""


def marked(word: str) -> list[psutil.Process]:
    """The processes whose environment has `word`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TEST_MARK") == word:
                found.append(process)
    return found


@pytest.mark.parametrize("how", ["Ctrl-C", "killed"])
def test_nothing_outlives_a_command_with_a_ray_of_its_own(tmp_path: Path, how: str) -> None:
    pytest.importorskip("ray.tune")
    work = Count(tmp_path / "forgetful", 10_000)
    command = subprocess.Popen(
        [sys.executable, "-c", ALONE, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "TEST_MARK": str(tmp_path)},
    )  # fmt: skip
    act = {"Ctrl-C": lambda: os.killpg(command.pid, signal.SIGINT), "killed": command.kill}[how]
    at_life(work, 1, act).join()
    said, _ = command.communicate(timeout=120)
    assert ("stopped" in said.split()) == (how == "Ctrl-C")
    _, alive = psutil.wait_procs(marked(str(tmp_path)), timeout=60)
    assert not alive and int((work.folder / "state").read_text()) > 0  # its process has saved
