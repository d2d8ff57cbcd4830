"""MiniGrid and BabyAI, where they are installed: both views, missions, ends, training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import make_env
from dreamer_agent.envs.suites import minigrid as suite
from dreamer_agent.errors import ConfigError, MissingExtraError
from dreamer_agent.specs import ArraySpec
from tests.envs.suites.training import assert_trains, played

EMPTY, BABY = "minigrid:MiniGrid-Empty-5x5-v0", "minigrid:BabyAI-GoToRedBallGrey-v0"
OWN = (0, 3, 6)  # the agent's own cell of the first environment: the middle of the near edge
SYMBOLS = {
    "object": ArraySpec("discrete", (7, 7), 11),
    "colour": ArraySpec("discrete", (7, 7), 6),
    "state": ArraySpec("discrete", (7, 7), 3),
}


@pytest.fixture(autouse=True)
def library() -> None:
    pytest.importorskip("minigrid")


def told(row: Any) -> str:
    """The words of the first environment's mission."""
    return " ".join(suite.WORDS[index - 1] for index in row.obs["mission"][0] if index)


def test_pixels_are_the_default() -> None:
    env, rows = played(EMPTY, 2)
    assert env.obs_specs == {"obs": ArraySpec("image", (28, 28, 3))}
    assert np.std(rows[0].obs["obs"]) > 10
    assert played(EMPTY, 0, kwargs={"tile_size": 2})[0].obs_specs["obs"].shape == (14, 14, 3)


def test_symbols_are_the_cells_of_the_view() -> None:
    env, rows = played(EMPTY, 0, kwargs={"view": "symbols"})
    assert env.obs_specs == SYMBOLS
    # It stands in a corner and looks along the wall: the goal is two cells ahead and two to its right.
    objects, colours = rows[0].obs["object"], rows[0].obs["colour"]
    assert np.argwhere(objects == 8).tolist() == [[0, 5, 4]] and colours[0, 5, 4] == 1
    assert objects[OWN] == 1 and (objects[0, 2] == 2).all()


def test_what_is_carried_is_seen() -> None:
    objects = pytest.importorskip("minigrid.core.world_object")
    env, _ = played(EMPTY, 0, kwargs={"view": "symbols"})
    env.env.envs[0].unwrapped.carrying = objects.Key("yellow")
    (row,) = env.step({"action": np.array([6], np.int32)})
    assert (row.obs["object"][OWN], row.obs["colour"][OWN]) == (5, 4)


def test_the_goal_is_terminal_and_the_limit_is_not() -> None:
    env, _ = played(EMPTY, 0, kwargs={"view": "symbols"})
    for action in (2, 2, 1, 2, 2):  # twice ahead, right, twice ahead
        (row,) = env.step({"action": np.array([action], np.int32)})
    assert row.is_terminal[0] and row.is_last[0]
    np.testing.assert_allclose(row.reward, 1 - 0.9 * 5 / 100, rtol=1e-6)
    _, rows = played(EMPTY, 3, kwargs={"max_steps": 3})
    assert rows[3].is_last[0] and not rows[3].is_terminal[0]


def test_babyai_tells_its_mission() -> None:
    env, rows = played(BABY, 3)
    assert env.obs_specs == {
        "image": ArraySpec("image", (28, 28, 3)),
        "mission": ArraySpec("discrete", (72,), len(suite.WORDS) + 1),
    }
    assert [told(row) for row in rows] == ["go to the red ball"] * 4
    symbols, _ = played(BABY, 0, kwargs={"view": "symbols", "words": 8})
    assert symbols.obs_specs == {**SYMBOLS, "mission": ArraySpec("discrete", (8,), len(suite.WORDS) + 1)}
    assert played(BABY, 0, kwargs={"mission": False})[0].obs_specs.keys() == {"obs"}


def test_missions_differ_where_the_task_does() -> None:
    kwargs = {"view": "symbols", "mission": True, "words": 10}
    missions = {
        told(played("minigrid:MiniGrid-Fetch-5x5-N2-v0", 0, seed, kwargs=kwargs)[1][0]) for seed in range(4)
    }
    assert len(missions) > 1 and all(mission.split()[-1] in ("ball", "key") for mission in missions)


@pytest.mark.parametrize(
    "name",
    [
        "BabyAI-BossLevel-v0", "BabyAI-OpenDoorsOrderN4-v0", "BabyAI-PickupLoc-v0", "BabyAI-PutNextLocal-v0",
        "MiniGrid-LavaCrossingS9N1-v0", "MiniGrid-LockedRoom-v0", "MiniGrid-MultiRoom-N2-S4-v0",
        "MiniGrid-ObstructedMaze-1Dl-v0", "MiniGrid-PutNear-6x6-N2-v0", "MiniGrid-RedBlueDoors-6x6-v0",
        "MiniGrid-Unlock-v0",
    ],
)  # fmt: skip
def test_every_word_is_known(name: str) -> None:
    env, rows = played(f"minigrid:{name}", 0, kwargs={"view": "symbols", "mission": True})
    assert told(rows[0]) == env.env.envs[0].unwrapped.mission.replace(",", "").lower()


def test_the_longest_mission_fits() -> None:
    half = "put the grey key in front of you next to the red box in front of you"
    longest = f"{half} and {half} after you {half} and {half}"
    assert np.count_nonzero(suite.indices_of(longest, suite.LONGEST)) == suite.LONGEST
    assert suite.indices_of("go to the key, then open a box", 9).tolist()[-2:] == [
        suite.WORDS.index("box") + 1,
        0,
    ]


def test_what_cannot_be_told_is_said() -> None:
    with pytest.raises(ConfigError, match=r"has 5 words, more than 4: set env\.kwargs\.words higher"):
        played(BABY, 0, kwargs={"words": 4})
    with pytest.raises(ConfigError, match="has the unknown word 'dragon'"):
        suite.indices_of("go to the dragon", 8)


def test_what_cannot_be_made_is_told() -> None:
    with pytest.raises(
        ConfigError, match=r"no environment 'BabyAI-GoToRedBal-v0' \('BabyAI-GoToRedBall-v0' is the"
    ):
        make_env(EnvConfig(id="minigrid:BabyAI-GoToRedBal-v0"))
    with pytest.raises(ConfigError, match="no environment 'CartPole-v1'"):
        make_env(EnvConfig(id="minigrid:CartPole-v1"))
    with pytest.raises(ConfigError, match="view is 'smell': choose pixels or symbols"):
        make_env(EnvConfig(id=EMPTY, kwargs={"view": "smell"}))
    with pytest.raises(ConfigError, match=r"does not take env\.kwargs {'gravitas': 1}"):
        make_env(EnvConfig(id=EMPTY, kwargs={"gravitas": 1}))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minigrid.wrappers", None)
    with pytest.raises(MissingExtraError, match=r"'minigrid' is not installed.*dreamer-agent\[minigrid\]"):
        make_env(EnvConfig(id=EMPTY))


def test_symbols_and_a_mission_train(tmp_path: Path) -> None:
    assert_trains(BABY, "minigrid", tmp_path, "env.kwargs.words=8")
