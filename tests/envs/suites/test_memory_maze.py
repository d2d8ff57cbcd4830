"""Memory Maze, where it is installed: the picture, seeds, the limit, training."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamer_agent.config import EnvConfig, load_config
from dreamer_agent.envs import Rows, make_env
from dreamer_agent.envs.catalogue import LIBRARIES
from dreamer_agent.errors import ConfigError, MissingExtraError
from dreamer_agent.specs import ArraySpec
from tests.envs.suites.training import assert_trains, played

ID = "memory_maze:9x9"


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo may leave a log
    if not LIBRARIES["memory_maze"].installed:
        pytest.skip("not installed")


@functools.cache
def maze() -> tuple[Any, list[Rows]]:
    """An environment and the first three rows of seed 1; drawing makes new ones slow."""
    try:
        return played(ID, 2, seed=1)
    except MissingExtraError:
        pytest.skip("there is no library for drawing")


def test_a_maze_is_an_image_with_the_colour_of_the_target_around_it() -> None:
    env, rows = maze()
    assert env.obs_specs == {"obs": ArraySpec("image", (64, 64, 3))}
    assert env.act_specs == {"action": ArraySpec("discrete", (), 6)}
    image = rows[0].obs["obs"][0]
    assert (image[:2] == image[0, 0]).all() and np.std(image[8:-8, 8:-8]) > 10
    assert not rows[2].is_last[0] and rows[2].reward[0] == 0


def test_the_same_seed_is_the_same_maze_and_the_limit_cuts() -> None:
    env, rows = maze()
    other, again = (env.reset(seed)[0].obs["obs"] for seed in (2, 1))
    assert np.array_equal(rows[0].obs["obs"], again) and not np.array_equal(again, other)
    inner = env.env.envs[0].unwrapped.dm
    while "env" in vars(inner):  # the package's wrappers
        inner = inner.env
    inner._time_limit = 0.4
    last = [env.step({"action": np.zeros(1, np.int32)})[0] for _ in range(2)][1]
    assert last.is_last[0] and not last.is_terminal[0]
    assert env.get_state() is None and "MemoryMazeEnv" in env.why_no_state()


def test_what_cannot_be_made_is_told() -> None:
    with pytest.raises(ConfigError, match=r"memory_maze has no environment '9x8' \('9x9' is the nearest"):
        make_env(EnvConfig(id="memory_maze:9x8"))
    with pytest.raises(ConfigError, match=r"does not take env\.kwargs {'size': 32}"):
        make_env(EnvConfig(id=ID, kwargs={"size": 32}))


def test_nothing_to_draw_with_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "MUJOCO_GL", "disabled")
    with pytest.raises(MissingExtraError, match="Pixels of MuJoCo need a library for drawing"):
        make_env(EnvConfig(id=ID))


def test_it_trains(tmp_path: Path) -> None:
    maze()
    assert_trains(ID, "memory_maze", tmp_path, "env.num_envs=1", "replay.prefill=16")


def test_the_preset_says_the_protocol() -> None:
    preset = load_config(["memory_maze"])
    assert [preset.env.num_envs, preset.replay.ratio, preset.train.steps] == [16, 32, 100_000_000]
