"""Crafter, where it is installed: the picture, ends apart from the limit, training."""

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
from tests.envs.suites.training import played, trains

LIMIT = 20


def test_the_limit_cuts_and_the_same_seed_begins_the_same() -> None:
    pytest.importorskip("crafter")
    env, rows = played("crafter:reward", LIMIT + 1, kwargs={"length": LIMIT})
    assert env.obs_specs == {"obs": ArraySpec("image", (64, 64, 3))}
    assert env.act_specs == {"action": ArraySpec("discrete", (), 17)}
    assert [t for t, row in enumerate(rows) if row.is_last[0]] == [LIMIT]
    assert not rows[LIMIT].is_terminal[0] and rows[LIMIT + 1].is_first[0]
    assert not np.array_equal(rows[0].obs["obs"], rows[LIMIT + 1].obs["obs"])
    assert np.array_equal(env.reset(0)[0].obs["obs"], rows[0].obs["obs"])


def test_a_death_is_terminal() -> None:
    pytest.importorskip("crafter")
    env, _ = played("crafter:reward", 0)
    player: Any = env.env.envs[0].unwrapped.game._player
    player.health = 0
    (row,) = env.step({"action": np.zeros(1, np.int32)})
    assert row.is_terminal[0] and row.is_last[0]


def test_an_unknown_task_is_told() -> None:
    pytest.importorskip("crafter")
    with pytest.raises(ConfigError, match="crafter has no environment 'rewards'"):
        make_env(EnvConfig(id="crafter:rewards"))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "crafter", None)
    with pytest.raises(MissingExtraError, match=r"'crafter' is not installed.*dreamer-agent\[crafter\]"):
        make_env(EnvConfig(id="crafter:reward"))


def test_it_trains(tmp_path: Path) -> None:
    pytest.importorskip("crafter")
    trains("crafter:reward", "crafter", tmp_path, "env.kwargs.size=36", "env.kwargs.length=10")
