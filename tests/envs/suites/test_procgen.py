"""Procgen, where envpool and Qt are installed: the picture, levels, ends apart from the limit, training."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dreamer_agent.config import EnvConfig, load_config
from dreamer_agent.envs import make_env
from dreamer_agent.envs.suites import procgen as suite
from dreamer_agent.errors import ConfigError, MissingExtraError
from dreamer_agent.specs import ArraySpec
from tests.envs.suites.training import assert_trains, played


@pytest.fixture
def envpool() -> None:
    pytest.importorskip("envpool")
    try:
        suite._envpool()
    except MissingExtraError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("game", suite.GAMES)
def test_every_game_is_an_image_and_moves(game: str, envpool: None) -> None:
    env, rows = played(f"procgen:{game}", 30)
    assert env.obs_specs == {"obs": ArraySpec("image", (64, 64, 3))}
    assert env.act_specs == {"action": ArraySpec("discrete", (), 15)}
    assert np.std(rows[0].obs["obs"]) > 5 and not np.array_equal(rows[0].obs["obs"], rows[30].obs["obs"])


def test_the_same_seed_is_the_same_levels(envpool: None) -> None:
    env, rows = played("procgen:starpilot", 130, seed=1)
    assert any(row.is_first[0] for row in rows[1:])
    same, other = (played("procgen:starpilot", 130, seed=1)[1], env.reset(2))
    assert all(np.array_equal(a.obs["obs"], b.obs["obs"]) for a, b in zip(rows, same, strict=True))
    assert not np.array_equal(rows[0].obs["obs"], other[0].obs["obs"])


def test_one_level_is_always_the_same(envpool: None) -> None:
    env, rows = played("procgen:starpilot", 0, kwargs={"levels": 1, "start_level": 7})
    assert np.array_equal(rows[0].obs["obs"], env.reset(5)[0].obs["obs"])


def test_an_accident_is_terminal_and_its_picture_is_of_its_own_level(envpool: None) -> None:
    rows = played("procgen:leaper", 300)[1]
    (end, *_) = [t for t, row in enumerate(rows) if row.is_last[0]]
    assert rows[end].is_terminal[0] and rows[end + 1].is_first[0]
    before, last, fresh = (rows[t].obs["obs"].astype(int) for t in (end - 1, end, end + 1))
    assert np.abs(last - before).mean() < np.abs(fresh - last).mean() / 4


def test_the_limit_cuts(envpool: None) -> None:
    env, _ = played("procgen:leaper", 0)
    still = {"action": np.array([4], np.int32)}  # no button
    rows = [env.step(still)[0] for _ in range(501)]
    assert [t + 1 for t, row in enumerate(rows) if row.is_last[0]] == [500]
    assert not rows[499].is_terminal[0] and rows[500].is_first[0]


@pytest.mark.parametrize(("complete", "ends"), [(1, [True, False]), (0, [False, True])])
def test_a_level_completed_in_the_last_step_has_ended(complete: int, ends: list[bool], envpool: None) -> None:
    class Pool:
        def step(self, action: Any) -> tuple:
            info = {"prev_level_complete": np.array([complete])}
            return np.zeros((1, 64, 64, 3), np.uint8), np.array([10.0]), np.array([False]), np.array([True]), info

    env = suite.ProcgenEnv("coinrun")
    env.pool = Pool()
    assert list(env.step(0)[2:4]) == ends


def test_what_cannot_be_made_is_told(envpool: None) -> None:
    with pytest.raises(ConfigError, match=r"procgen has no environment 'coinrum' \('coinrun' is the nearest"):
        make_env(EnvConfig(id="procgen:coinrum"))
    with pytest.raises(ConfigError, match=r"mode is 'extreme': coinrun has easy, hard, exploration"):
        make_env(EnvConfig(id="procgen:coinrun", kwargs={"mode": "extreme"}))
    with pytest.raises(ConfigError, match=r"does not take env\.kwargs {'gravitas': 1}"):
        make_env(EnvConfig(id="procgen:coinrun", kwargs={"gravitas": 1}))


def test_what_is_missing_is_named(envpool: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool.procgen", None)
    with pytest.raises(MissingExtraError, match="apt install libqt5gui5"):
        make_env(EnvConfig(id="procgen:coinrun"))
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(MissingExtraError, match=r"'envpool' is not installed.*dreamer-agent\[procgen\]"):
        make_env(EnvConfig(id="procgen:coinrun"))


def test_a_qt_that_is_missed_only_when_a_game_is_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Games(ModuleType):
        def __getattr__(self, name: str) -> None:
            raise ImportError("libQt5Gui.so.5")

    monkeypatch.setitem(sys.modules, "envpool", ModuleType("envpool"))
    monkeypatch.setitem(sys.modules, "envpool.procgen", Games("envpool.procgen"))
    with pytest.raises(MissingExtraError, match=r"libQt5Gui\.so\.5.*apt install libqt5gui5"):
        make_env(EnvConfig(id="procgen:coinrun"))


def test_it_trains(envpool: None, tmp_path: Path) -> None:
    assert_trains("procgen:coinrun", "procgen", tmp_path)


def test_the_preset_says_the_protocol() -> None:
    preset = load_config(["procgen"])
    assert [preset.env.num_envs, preset.replay.ratio, preset.train.steps] == [16, 64, 50_000_000]
