"""Environments in actors of Ray on this machine: the same as here, and mended where the actor is lost."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from dreamer_agent.config import EnvConfig, load_config
from dreamer_agent.envs import make_env
from dreamer_agent.envs.gymnasium_adapter import make_vector
from dreamer_agent.errors import ConfigError, MissingExtraError
from tests.envs.faulty import Faulty
from tests.envs.test_resilient import Drawn, assert_same, play


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Ray as the first environment starts it; nothing of it is left in the end."""
    found = pytest.importorskip("ray")
    before = set(psutil.Process().children(recursive=True))
    yield found
    found.shutdown()
    left = set(psutil.Process().children(recursive=True)) - before
    _, alive = psutil.wait_procs(left, timeout=20)
    assert not alive


def made(
    folder: Path, plan: dict[str, Any], ray: str = "local", timeout: float = 30.0, processes: int = 2
) -> Any:
    """Three environments, two of them in one process; `plan` is for the second."""
    folder.mkdir()
    plans = [{}, plan, {}]
    factories = [partial(Drawn, str(folder / f"env{i}"), one) for i, one in enumerate(plans)]
    return make_vector(factories, 1, None, 2, processes, timeout, ray if processes else "")  # type: ignore[arg-type]


def test_rows_and_states_are_those_of_this_process(ray: Any, tmp_path: Path) -> None:
    env, reference = made(tmp_path / "there", {}), made(tmp_path / "here", {}, processes=0)
    assert_same(play(env, 12), play(reference, 12))
    states = env.get_state()
    assert states is not None
    ahead = play_on(env, 5)
    again = made(tmp_path / "again", {}, processes=0)
    again.reset(9)
    again.set_state(states)
    assert_same(play_on(again, 5), ahead)
    assert env.faults == 0
    for one in (env, reference, again):
        one.close()


def play_on(env: Any, calls: int) -> list[Any]:
    """Rows of further steps."""
    return [rows for _ in range(calls) for rows in env.step({"action": np.ones(env.num_envs, np.int32)})]


@pytest.mark.parametrize("kind", ["kill", "hang", "raise"])
def test_a_lost_actor_is_mended_and_the_right_one_is_blamed(kind: str, ray: Any, tmp_path: Path) -> None:
    env = made(tmp_path / "env", {kind: [3]}, timeout=2.0)
    reference = made(tmp_path / "reference", {}, processes=0)
    rows, expected = play(env, 6), play(reference, 6)
    assert env.env.faults == 1
    message = {
        "kill": r"environment 1 \(Drawn\).* ended in Ray \(.*\) during its step",
        "hang": r"environment 1 \(Drawn\).*did not answer its step within 2 s",
        "raise": r"environment 1 \(Drawn\).*the arm fell off",
    }[kind]
    assert re.search(message, env.env.last_fault)
    assert_same(rows, expected, 2)  # the other actor
    if kind == "raise":
        assert_same(rows, expected, 0)
    env.close()
    reference.close()


def test_ctrl_c_is_not_for_the_actors(ray: Any, tmp_path: Path) -> None:
    env = made(tmp_path / "env", {})
    env.reset(0)
    group = [one for one in psutil.Process().children(recursive=True) if os.getpgid(one.pid) == os.getpgid(0)]
    for process in group:  # what a terminal does
        process.send_signal(signal.SIGINT)
    play_on(env, 2)
    assert env.env.faults == 0
    env.close()


def test_what_cannot_be_had_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"env\.ray=auto spreads processes .* env\.processes is 0"):
        load_config([], ["env.ray=auto"])
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"dreamer-agent\[ray\]"):
        make_env(EnvConfig(num_envs=1, processes=1, ray="auto"))


def test_a_cluster_that_is_not_there_says_so(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(ConfigError, match="Ray cannot be used at 'auto'"):
        make_vector([partial(Faulty, str(tmp_path / "env"))], 1, processes=1, ray="auto")
