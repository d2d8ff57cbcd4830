"""The benchmark of libraries in JAX: what a call counts, how lines are kept and shown."""

import numpy as np
import pytest

from benchmarks import libraries
from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import make_env

ID = "gymnax:CartPole-v1"


def test_both_ways_make_the_steps_that_they_count(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gymnax")
    monkeypatch.setattr(libraries, "STEPS", 5)
    env = make_env(EnvConfig(id=ID, num_envs=2))
    actions = libraries.random_actions(env, np.random.default_rng(0), 5)["action"]
    assert actions.shape == (5, 2) and actions.dtype == np.int32 and set(actions.ravel()) <= {0, 1}
    call = libraries.stepper(env)
    assert call() + call() == 4 and env._carry.time.tolist() == [2, 2]
    assert libraries.scanner(env)() == 10
    turns = libraries.measured(ID, 2, "scanned", rounds=2, seconds=0.01)
    assert len(turns.rates) == len(turns.walls) == 2 and min(turns.rates + turns.walls) > 0
    row = libraries.row_of(ID, 2, "scanned", turns)
    assert row["range"][0] <= row["steps_per_core_second"] <= row["range"][1] and row["version"]


def test_newer_lines_replace_older_ones_and_are_shown_in_order() -> None:
    def line(id: str, count: int, way: str, rate: float) -> dict:
        return {"environment": id, "count": count, "way": way, "steps_per_core_second": rate}

    old = [line("brax:ant", 64, "scanned", 10), line(ID, 1, "stepped", 20)]
    rows = libraries.joined(old, [line("brax:ant", 64, "scanned", 4000.4), line(ID, 1, "scanned", 5)])
    assert [row["steps_per_core_second"] for row in rows] == [20, 5, 4000.4]
    assert libraries.table(rows)[2:] == [f"| {ID} | 20 |  | 5 |  |", "| brax:ant |  |  |  | 4,000 |"]
