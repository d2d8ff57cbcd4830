"""Environments that share processes: the same rows as in this one, and what they have to do with each other."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from dreamer_agent.envs import child
from dreamer_agent.envs.gymnasium_adapter import make_vector
from dreamer_agent.envs.processes import spread
from dreamer_agent.errors import ConfigError, EnvironmentFault
from tests.envs.faulty import LENGTH, Faulty
from tests.envs.test_processes import is_running, one_step
from tests.envs.test_resilient import Elsewhere, assert_same, faulty, pauses, play, random_actions  # noqa: F401


class Dawdling(Faulty):
    """Takes a time of its own for each step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        time.sleep(random.random() / 200)
        return super().step(action)


def three(folder: Path, processes: int, kind: type[gym.Env] = Faulty) -> Any:
    return make_vector([partial(kind, str(folder / f"env{i}")) for i in range(3)], 1, None, 0, processes)


def clean(folder: Path, count: int, calls: int) -> list[Any]:
    (folder / "clean").mkdir()
    return play(faulty(folder / "clean", *[{}] * count), calls)


# Without faults


@pytest.mark.parametrize("processes", [1, 2, 99])
def test_rows_are_the_same_over_any_number_of_processes(processes: int, tmp_path: Path) -> None:
    here, env = three(tmp_path, 0), three(tmp_path, processes, Dawdling)
    assert len({slot.host for slot in env.env.slots}) == min(processes, 3)
    for seed in (0, 1, 2):
        rows = play(env, 3 * LENGTH, seed)
        assert_same(rows, play(here, 3 * LENGTH, seed))
        ends = np.array([[row.is_last, row.is_terminal] for row in rows])
        assert (ends[:, 0] & ends[:, 1]).any() and (ends[:, 0] & ~ends[:, 1]).any()
    env.close()


def test_neighbours_share_and_no_process_has_two_more_than_another() -> None:
    slots = spread([partial(Faulty, "")] * 10, 4, 1.0)  # type: ignore[list-item]
    hosts = [slot.hosts.index(slot.host) for slot in slots]
    assert hosts == sorted(hosts) and sorted(np.bincount(hosts)) == [2, 2, 3, 3]
    assert [slot.place for slot in slots][:3] == [0, 1, 2]


@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 2), (2, 3)])
def test_a_state_goes_on_over_another_number_of_processes(before: int, after: int, tmp_path: Path) -> None:
    first, rng = three(tmp_path, before), np.random.default_rng(0)
    play(first, LENGTH + 3)
    state, second = first.get_state(), three(tmp_path, after)
    second.set_state(state)
    for _ in range(2 * LENGTH):
        actions = random_actions(first, rng)
        assert_same(first.step(actions), second.step(actions))
    first.close()
    second.close()


# With faults


@pytest.mark.parametrize("kind", ["raise", "sys.exit"])
def test_what_raises_leaves_those_that_share_its_process_alone(kind: str, tmp_path: Path) -> None:
    class Exiting(Faulty):
        def wrong(self, how: str, obs: Any, reward: float) -> tuple[Any, float]:
            if kind == "sys.exit" and how == "raise":
                raise SystemExit(3)
            return super().wrong(how, obs, reward)

    plans: list[dict] = [{}, {"raise": [4, 12], "close": [1]}, {}]
    makers = [partial(Exiting, str(tmp_path / f"env{i}"), plan) for i, plan in enumerate(plans)]
    env: Any = make_vector(makers, 1, None, 1, 1)
    pid = None
    for row, other in zip(play(env, 20), clean(tmp_path, 3, 20), strict=True):
        assert_same([row], [other], [0, 2])
        pid = pid or env.env.slots[0].host.link.process.pid
    assert env.faults == 2 and pid == env.env.slots[0].host.link.process.pid
    told = {
        "raise": "it raised ValueError",
        "sys.exit": "The environment Exiting called sys.exit(3) during its step",
    }
    assert told[kind].removeprefix("it raised ") in env.last_fault and "environment 1" in env.last_fault
    env.close()


@pytest.mark.parametrize(("kind", "told"), [("kill", "by the signal SIGKILL"), ("hang", "its step within 2 s")])
def test_what_ends_its_process_cuts_those_that_share_it(kind: str, told: str, tmp_path: Path) -> None:
    plans: list[dict] = [{}, {kind: [4]}, {}, {}]
    env: Any = faulty(tmp_path, *plans, max_faults=1, processes=2, timeout=2.0)
    rows, expected = play(env, 20), clean(tmp_path, 4, 20)
    assert_same(rows, expected, [2, 3])  # the other process
    assert_same(rows[:4], expected[:4])
    assert rows[4].is_last.tolist() == [True, True, False, False] and not rows[4].is_terminal.any()
    assert rows[4].reward[:2].tolist() == [0, 0]
    assert np.array_equal(rows[4].obs["numbers"][:2], rows[3].obs["numbers"][:2])
    assert rows[5].is_first.tolist() == [True, True, False, False]
    assert env.faults == 1 and "environment 1 (Faulty)" in env.last_fault and told in env.last_fault
    assert env.env._in_a_row[0] == 0
    assert len({tuple(row.obs["numbers"][0]) for row in rows if row.is_first[0]}) > 1  # a seed of its own
    env.close()


def test_who_keeps_ending_a_process_is_named(tmp_path: Path) -> None:
    env = faulty(tmp_path, {}, {"kill": range(5, 99)}, {}, max_faults=2, processes=1)
    with pytest.raises(EnvironmentFault, match=r"Environment 1 \(Faulty\) failed 3 times in a row"):
        play(env, 40)
    env.close()


def test_what_breaks_when_it_is_made_is_named_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen] = []

    class Popen(subprocess.Popen):
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(child.subprocess, "Popen", Popen)
    with pytest.raises(EnvironmentFault, match="the simulator did not start"):
        faulty(tmp_path, {}, {}, {"make": [1]}, processes=2)
    env = three(tmp_path, 2)
    env.close()
    assert len(started) == 4 and not any(is_running(one.pid) for one in started)


def test_a_process_that_died_between_steps_is_of_all_that_share_it(tmp_path: Path) -> None:
    env: Any = faulty(tmp_path, {}, {}, {}, max_faults=1, processes=2)
    env.reset(0)
    one_step(env)
    os.kill(env.env.slots[0].host.link.process.pid, signal.SIGKILL)
    assert env.get_state() is None and "SIGKILL during its get_state" in env.why_no_state()
    assert one_step(env).is_last.tolist() == [True, True, False]
    assert one_step(env).is_first.tolist() == [True, True, False]
    assert env.faults == 1 and env.get_state() is not None
    env.close()


class Pausing(Faulty):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        time.sleep(0.9)
        return super().step(action)


def test_each_has_the_timeout_for_itself(tmp_path: Path) -> None:
    makers = [partial(Pausing, str(tmp_path / f"env{i}")) for i in range(3)]
    env: Any = make_vector(makers, 1, None, 0, 1, 2.0)
    env.reset(0)
    start = time.monotonic()
    assert not one_step(env).is_last.any()
    assert time.monotonic() - start > 2.0  # longer than one may take
    assert env.faults == 0
    env.close()


ONE = Elsewhere(spaces.Discrete(2), 0, 1)


def same_again() -> gym.Env:
    return ONE


def test_the_same_one_twice_in_a_process_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gave the same one twice.*make a new environment at every call"):
        make_vector([same_again] * 2, 1, processes=1)
