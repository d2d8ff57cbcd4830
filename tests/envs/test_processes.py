"""Environments in processes of their own: what comes through, what ends them, and what they start themselves."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import host, make_env, source_of
from dreamer_agent.envs.gymnasium_adapter import make_vector
from dreamer_agent.envs.toy import Catch
from dreamer_agent.errors import ConfigError, MissingExtraError, SpaceError
from tests.envs.faulty import Faulty
from tests.envs.test_resilient import Drawn, Elsewhere, assert_same, faulty, play

SCRIPT = """
import sys, time
import numpy as np
from copy import deepcopy
from functools import partial
from itertools import pairwise
from dreamer_agent.envs.gymnasium_adapter import make_vector
from tests.envs.faulty import Faulty
env = make_vector([partial(Faulty, sys.argv[1], {"hang": [2]})] * 2, 1, None, 5, 2, 600.0)
env.reset(0)
print(*[slot.host.link.process.pid for slot in env.env.slots], flush=True)
for _ in range(3):
    env.step({"action": np.zeros(2, np.int32)})
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
def test_processes_end_with_a_parent_that_was_killed_and_ignore_ctrl_c(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "env")], stdout=subprocess.PIPE, text=True, cwd=Path.cwd(),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
    )  # fmt: skip
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.5)  # one of them hangs in its step, the other waits
    assert all(map(is_running, pids))
    parent.kill()
    parent.wait()
    end = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_running, pids))


def test_a_process_imports_neither_jax_nor_the_learner() -> None:
    class Spy(Elsewhere):
        def __init__(self) -> None:
            loaded = [
                name for name in ("jax", "flax", "matplotlib", "dreamer_agent.agent") if name in sys.modules
            ]
            super().__init__(spaces.Discrete(1 + len(loaded)), 0, 0)

    env = make_vector([Spy], 1, processes=1)
    assert env.obs_specs["obs"].classes == 1
    env.close()
    assert not any(slot.alive for slot in env.env.slots)  # type: ignore[attr-defined]


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next(tmp_path: Path) -> None:
    def made(processes: int) -> Any:
        (tmp_path / str(processes)).mkdir()
        env: Any = faulty(tmp_path / str(processes), {}, {}, processes=processes)
        env.reset(0)
        return env

    env, reference = made(2), made(0)
    for slot in env.env.slots:
        slot.begin("step", np.int64(0))  # as where Ctrl-C came before the answers
    reference.step({"action": np.zeros(2, np.int32)})
    action = {"action": np.ones(2, np.int32)}
    assert_same(env.step(action), reference.step(action))
    env.close()


def test_errors_come_through_processes_as_what_they_were() -> None:
    def lacking() -> gym.Env:
        raise MissingExtraError("install it")

    def uneven() -> gym.Env:
        return Elsewhere(spaces.Discrete(os.getpid()), 0, 0)

    with pytest.raises(MissingExtraError, match="install it"):
        make_vector([lacking], 1, processes=1)
    with pytest.raises(SpaceError, match="should have the same spaces"):
        make_vector([uneven] * 2, 1, processes=2)
    lock = threading.Lock()
    with pytest.raises(ConfigError, match=r"cannot be sent .*set env\.processes=0"):
        make_vector([lambda: lock], 1, processes=1)  # type: ignore[list-item, return-value]


def test_an_environment_that_was_registered_here_is_known_there() -> None:
    gym.register("test_suite/Local-v0", entry_point=lambda: Elsewhere(spaces.Discrete(2), 0, 1))
    try:
        env = make_env(EnvConfig(id="test_suite/Local-v0", num_envs=1, processes=1))
        assert play(env, 2)[-1].obs["obs"].tolist() == [1]
        env.close()
    finally:
        del gym.registry["test_suite/Local-v0"]


# Processes that are gone or silent


def one_step(env: Any) -> Any:
    (rows,) = env.step({"action": np.zeros(env.num_envs, np.int32)})
    return rows


def test_a_process_that_died_between_steps_is_mended_at_the_next(tmp_path: Path) -> None:
    env: Any = make_vector([partial(Drawn, str(tmp_path / f"env{i}")) for i in range(2)], 1, None, 1, 2)
    env.reset(0)
    one_step(env)
    before = env.env.render()
    os.kill(env.env.slots[1].host.link.process.pid, signal.SIGKILL)
    assert env.get_state() is None  # a checkpoint goes without, the run goes on
    assert env.why_no_state() == (
        "environment 1 (Drawn), which failed: The process of the environment Drawn ended by the signal SIGKILL "
        "during its get_state: set env.processes=0 to see it end this one"
    )
    assert np.array_equal(env.env.render()[1], before[1])
    rows = one_step(env)
    assert rows.is_last.tolist() == [False, True] and not rows.is_terminal.any()
    assert env.faults == 1 and "SIGKILL during its get_state" in env.last_fault
    assert one_step(env).is_first.tolist() == [False, True]
    assert env.why_no_state() is None and env.get_state() is not None
    os.kill(env.env.slots[0].host.link.process.pid, signal.SIGKILL)
    assert env.env.render()[0].max() == 1  # as the last time that it was drawn
    env.close()


class Pondering(Faulty):
    def get_state(self) -> dict[str, Any]:
        time.sleep(0 if self.steps > 2 else 3600)
        return super().get_state()


def test_a_state_that_takes_too_long_is_gone_without(tmp_path: Path) -> None:
    env: Any = make_vector([partial(Pondering, str(tmp_path / "env"))], 1, None, 1, 1, 2.0)
    env.reset(0)
    one_step(env)
    assert env.get_state() is None
    assert "did not answer its get_state within 2 s" in env.why_no_state()
    assert one_step(env).is_last[0] and env.faults == 1
    for _ in range(4):
        one_step(env)
    assert env.get_state() is not None
    env.close()


def test_closing_does_not_wait_for_what_was_asked_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env: Any = faulty(tmp_path, {"hang": [1]}, {}, processes=2, timeout=600.0)
    env.reset(0)
    monkeypatch.setattr(host, "CLOSING", 0.5)
    for slot in env.env.slots:
        slot.begin("step", np.int64(0))  # as where Ctrl-C came before the answers
    before = time.monotonic()
    env.close()
    assert time.monotonic() - before < 10


class Starting(Elsewhere):
    """Observes how many of the processes that it started could be ended."""

    def __init__(self) -> None:
        super().__init__(spaces.Discrete(3), 0, 0)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        program = subprocess.Popen(["sleep", "60"])
        fork: Any = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        fork.start()
        time.sleep(0.2)
        for process in (program, fork):
            process.terminate()
        fork.join(5)
        return (program.wait(5) == -signal.SIGTERM) + (fork.exitcode == -signal.SIGTERM), {}


def test_what_an_environment_starts_can_be_ended() -> None:
    env = make_vector([Starting], 1, processes=1)
    (rows,) = env.reset(0)
    assert rows.obs["obs"].tolist() == [2]
    env.close()


# What is asked for


class Elusive(Elsewhere):
    """Cannot be made in the process of the test."""

    def __init__(self) -> None:
        assert os.getpid() != int(os.environ["TEST_PID"])
        super().__init__(spaces.Discrete(2), 0, 1)


def test_a_class_is_made_in_its_own_process_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PID", str(os.getpid()))
    for given in (Elusive, f"{__name__}:Elusive"):
        source = source_of(given)
        env = source.make(EnvConfig(id=source.id, processes=2), 1)
        assert play(env, 1)[-1].obs["obs"].tolist() == [1]
        env.close()


@pytest.mark.parametrize(
    "given",
    [
        Catch, Catch(), "toy:catch", Elsewhere(spaces.Discrete(2), 0, 0),
        gym.vector.SyncVectorEnv([partial(Elsewhere, spaces.Discrete(2), 0, 0)]),
        lambda: gym.vector.SyncVectorEnv([partial(Elsewhere, spaces.Discrete(2), 0, 0)]),
    ],
)  # fmt: skip
def test_what_runs_here_only_says_so(given: Any) -> None:
    source = source_of(given)
    with pytest.raises(ConfigError, match=r"env\.processes=2 cannot be done for .*: set env\.processes=0\."):
        source.make(EnvConfig(id=source.id, processes=2), 1)
    source.make(EnvConfig(id=source.id), 1)
