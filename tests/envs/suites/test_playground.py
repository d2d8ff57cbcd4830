"""MuJoCo Playground, where it is installed: the time limit, one compilation, training."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import make_env
from dreamer_agent.envs.jax_adapter import JaxVectorEnv
from dreamer_agent.errors import ConfigError, MissingExtraError
from dreamer_agent.specs import ArraySpec
from tests.envs.suites.training import assert_trains

ID, LIMIT = "playground:CartpoleBalance", 3


@pytest.fixture(autouse=True)
def library() -> None:
    pytest.importorskip("mujoco_playground")


def test_a_limit_truncates_and_a_step_compiles_once() -> None:
    env = make_env(EnvConfig(id=ID, num_envs=2, kwargs={"episode_length": LIMIT}))
    assert isinstance(env, JaxVectorEnv) and env.env.time_limit == LIMIT
    assert env.obs_specs == {"obs": ArraySpec("continuous", (5,))}
    assert env.act_specs == {"action": ArraySpec("continuous", (1,))}
    rows = env.reset(0)
    for _ in range(LIMIT + 1):
        rows += env.step({"action": np.zeros((2, 1), np.float32)})
    assert [row.is_last.tolist() for row in rows] == [[t == LIMIT] * 2 for t in range(LIMIT + 2)]
    assert not any(row.is_terminal.any() for row in rows) and rows[LIMIT + 1].is_first.all()
    assert all((row.reward[0] > 0.5) for row in rows[1 : LIMIT + 1])  # it starts upright
    assert not np.array_equal(rows[0].obs["obs"], rows[1].obs["obs"])
    assert env._start._cache_size() == env._advance._cache_size() == 1


def test_what_cannot_be_made_is_told() -> None:
    with pytest.raises(ConfigError, match=r"no environment 'CartpoleBalence' \('CartpoleBalance' is the nearest"):
        make_env(EnvConfig(id="playground:CartpoleBalence"))
    with pytest.raises(
        ConfigError, match=r"does not take env\.kwargs {'gravitas': 1}: its settings are action_r"
    ):
        make_env(EnvConfig(id=ID, kwargs={"gravitas": 1}))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco_playground", None)
    with pytest.raises(MissingExtraError, match=r"'playground' is not installed.*dreamer-agent\[playground\]"):
        make_env(EnvConfig(id=ID))


def test_it_trains(tmp_path: Path) -> None:
    assert_trains(ID, "classic", tmp_path)
