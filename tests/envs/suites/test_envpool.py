"""envpool, where it is installed: seeds, the ends of episodes, what is refused, training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import make_env
from dreamer_agent.errors import ConfigError, MissingExtraError
from dreamer_agent.specs import ArraySpec
from tests.envs.suites.training import assert_trains, random_actions
from tests.envs.test_resilient import assert_same


@pytest.fixture
def envpool() -> None:
    pytest.importorskip("envpool")


def made(task: str, **given: Any) -> Any:
    return make_env(EnvConfig(id=f"envpool:{task}", num_envs=4, **given))


def play(env: Any, seed: int, calls: int) -> list[Any]:
    rng, rows = np.random.default_rng(0), env.reset(seed)
    for _ in range(calls):
        rows += env.step(random_actions(env, rng))
    return rows


def test_the_same_seed_gives_the_same_rows_whatever_the_threads(envpool: None) -> None:
    env, other = made("CartPole-v1", kwargs={"num_threads": 2}), made("CartPole-v1", kwargs={"num_threads": 4})
    assert_same(play(env, 3, 200), play(other, 3, 200))
    assert_same(play(env, 3, 50), play(other, 3, 50))
    a, b = env.reset(4)[0].obs["obs"], other.reset(5)[0].obs["obs"]
    assert not np.array_equal(a, b) and len(np.unique(a[:, 0])) == 4
    assert env.why_no_state() == "the vector environment EnvPool" and env.get_state() is None


@pytest.mark.parametrize("limit", [7, 500])
def test_an_accident_is_terminal_and_the_limit_is_not(limit: int, envpool: None) -> None:
    rows = play(made("CartPole-v1", kwargs={"max_episode_steps": limit}), 0, 60)
    last, first = (np.array([getattr(row, name) for row in rows]) for name in ("is_last", "is_first"))
    assert np.array_equal(first[1:], last[:-1]) and last.any()
    assert (np.array([row.is_terminal for row in rows]) == last).all() == (limit == 500)
    assert all((row.reward[row.is_first] == 0).all() for row in rows)
    ends = [(row.obs["obs"][i], i) for row in rows if row.is_last.any() for i in np.flatnonzero(row.is_last)]
    if limit == 500:  # the last observation is of the episode that ended, not of the next
        assert all(max(abs(obs[0]) / 2.4, abs(obs[2]) / 0.2094) > 1 for obs, _ in ends)


def test_actions_are_stretched_over_their_bounds(envpool: None) -> None:
    env = made("Pendulum-v1")
    assert env.act_specs == {"action": ArraySpec("continuous", (1,))}
    (row,) = env.reset(0)
    angle, speed = np.arctan2(row.obs["obs"][:, 1], row.obs["obs"][:, 0]), row.obs["obs"][:, 2]
    (row,) = env.step({"action": np.ones((4, 1), np.float32)})
    np.testing.assert_allclose(row.obs["obs"][:, 2], speed + (15 * np.sin(angle) + 3 * 2.0) * 0.05, atol=1e-4)


def test_what_cannot_be_made_is_told(envpool: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"no environment 'CartPole-v9' \('CartPole-v\d' is the nearest\): choose"
    ):
        made("CartPole-v9")
    with pytest.raises(ConfigError, match=r"env\.processes=2 cannot be done for envpool"):
        made("CartPole-v1", processes=2)
    with pytest.raises(ConfigError, match=r"env\.action_repeat=2 cannot be done"):
        made("CartPole-v1", action_repeat=2)
    with pytest.raises(ConfigError, match=r"does not take env\.kwargs {'gravitas': 1}"):
        made("CartPole-v1", kwargs={"gravitas": 1})
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(MissingExtraError, match=r"'envpool' is not installed.*dreamer-agent\[envpool\]"):
        made("CartPole-v1")


def test_it_trains(envpool: None, tmp_path: Path) -> None:
    assert_trains("envpool:CartPole-v1", "classic", tmp_path)
