"""Atari by ale_py, where it is installed: the two protocols, exact states, training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from dreamer_agent.config import EnvConfig, load_config
from dreamer_agent.envs import make_env
from dreamer_agent.errors import ConfigError, MissingExtraError
from dreamer_agent.specs import ArraySpec
from tests.envs.suites.training import assert_trains, played
from tests.envs.test_state import assert_goes_on

atari: Any = pytest.importorskip("dreamer_agent.envs.suites.atari")


def installed() -> None:
    gym.register_envs(pytest.importorskip("ale_py"))
    pytest.importorskip("cv2")


def test_the_lists_are_those_of_the_benchmarks() -> None:
    assert (len(atari.ATARI_100K), len(atari.ATARI_57)) == (26, 57)
    assert set(atari.ATARI_100K) < set(atari.ATARI_57) and len(set(atari.ATARI_57)) == 57


def test_every_game_is_known_to_the_emulator() -> None:
    installed()
    ids = {f"ALE/{''.join(word.capitalize() for word in name.split('_'))}-v5" for name in atari.ATARI_57}
    assert ids <= gym.registry.keys()


@pytest.mark.parametrize(
    ("preset", "shape", "actions"), [("atari100k", (64, 64, 3), 6), ("atari", (96, 96, 1), 18)]
)
def test_presets_are_the_protocols(preset: str, shape: tuple[int, ...], actions: int) -> None:
    installed()
    config = load_config([preset])
    env, rows = played("atari:pong", 5, kwargs=config.env.kwargs)
    assert env.obs_specs == {"obs": ArraySpec("image", shape)}
    assert env.act_specs["action"].classes == actions
    assert np.std(rows[0].obs["obs"]) > 5
    game: Any = env.env.envs[0].unwrapped
    sticky = game.ale.getFloat("repeat_action_probability")
    assert sticky == pytest.approx({"atari100k": 0.0, "atari": 0.25}[preset])
    before = game.ale.getFrameNumber()
    env.step({"action": np.zeros(1, np.int32)})
    assert game.ale.getFrameNumber() == before + 4


def test_the_limit_cuts_and_does_not_end() -> None:
    installed()
    _, rows = played("atari:pong", 40, kwargs={"max_frames": 100, "noops": 1})
    last = [row for row in rows if row.is_last[0]]
    assert last and not any(row.is_terminal[0] for row in last)


def test_episodes_begin_with_none_to_the_most_idle_frames() -> None:
    installed()
    made = make_env(EnvConfig(id="atari:pong", num_envs=1, kwargs={"noops": 2, "size": 16}))
    game: Any = made.env.envs[0].unwrapped  # type: ignore[attr-defined]

    def frames() -> list[int]:
        made.reset(0)
        starts = [made.env.envs[0].reset() and game.ale.getEpisodeFrameNumber() for _ in range(40)]  # type: ignore[attr-defined]
        return starts

    starts = frames()
    first = min(starts)
    counts = [starts.count(first + idle) for idle in range(3)]
    assert sum(counts) == 40 and min(counts) >= 5  # 13 of each are expected
    assert frames() == starts
    made.close()
    none = make_env(EnvConfig(id="atari:pong", num_envs=1, kwargs={"noops": 0, "size": 16}))
    other: Any = none.env.envs[0].unwrapped  # type: ignore[attr-defined]
    assert {none.reset(seed) and other.ale.getEpisodeFrameNumber() for seed in range(2)} == {first}
    none.close()


def test_a_lost_life_ends_an_episode_only_if_asked() -> None:
    installed()
    whole = played("atari:breakout", 150)[1]
    lives = played("atari:breakout", 150, kwargs={"life_ends": True})[1]
    assert not any(row.is_last[0] for row in whole[:30])
    assert sum(row.is_terminal[0] for row in lives) > sum(row.is_terminal[0] for row in whole)


@pytest.mark.parametrize("preset", ["atari100k", "atari"])
def test_games_go_on_bit_by_bit(preset: str) -> None:
    installed()
    kwargs = {**load_config([preset]).env.kwargs, "max_frames": 400}
    assert_goes_on(lambda: make_env(EnvConfig(id="atari:ms_pacman", num_envs=1, kwargs=kwargs)), after=150)


def test_what_cannot_be_made_is_told() -> None:
    installed()
    with pytest.raises(ConfigError, match=r"no environment 'pongg' \('pong' is the nearest"):
        make_env(EnvConfig(id="atari:pongg"))
    with pytest.raises(ConfigError, match=r"'atari:pong' does not take env\.kwargs {'gravitas': 1}"):
        make_env(EnvConfig(id="atari:pong", kwargs={"gravitas": 1}))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(MissingExtraError, match=r"'ale-py' is not installed.*dreamer-agent\[atari\]"):
        make_env(EnvConfig(id="atari:pong"))


def test_it_trains(tmp_path: Path) -> None:
    installed()
    assert_trains("atari:pong", "atari100k", tmp_path, "env.kwargs.size=16", "env.kwargs.max_frames=400")
