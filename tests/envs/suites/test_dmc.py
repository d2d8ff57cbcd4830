"""DeepMind Control, where it is installed: observations, ends, pixels, exact states, training."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from dreamer_agent.config import EnvConfig, load_config
from dreamer_agent.envs import make_env
from dreamer_agent.errors import ConfigError, MissingExtraError
from tests.envs.suites.training import assert_trains, played
from tests.envs.test_state import assert_goes_on


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo may leave a log
    pytest.importorskip("dm_env")
    if "dm_control" not in sys.modules:
        make_env(EnvConfig(id="dmc:walker_walk", num_envs=1)).close()  # it decides how to draw


def draws() -> None:
    if os.environ["MUJOCO_GL"] == "disabled":
        pytest.skip("there is no library for drawing")


def test_a_task_is_its_numbers_by_name_and_a_thousand_steps_are_no_end() -> None:
    env, rows = played("dmc:walker_walk", 501, action_repeat=2)
    shapes = {key: (spec.kind, spec.shape) for key, spec in env.obs_specs.items()}
    assert shapes == {
        "height": ("continuous", ()), "orientations": ("continuous", (14,)), "velocity": ("continuous", (9,)),
    }  # fmt: skip
    assert env.act_specs["action"].shape == (6,)
    assert [t for t, row in enumerate(rows) if row.is_last[0]] == [500]
    assert not rows[500].is_terminal[0] and rows[501].is_first[0]
    assert all(0 <= row.reward[0] <= 2 for row in rows) and sum(row.reward[0] for row in rows) > 5


def test_the_same_seed_is_the_same_episode() -> None:
    one, same, other = (played("dmc:cheetah_run", 5, seed)[1][0].obs["position"] for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


# Targets lie in the model (reacher, fish, finger), so do gains (point_mass); lqr draws its model.
EXACT = [
    "walker_run",
    "reacher_hard",
    "fish_swim",
    "finger_turn_easy",
    "point_mass_hard",
    "lqr_lqr_2_1",
    "hopper_hop",
]


@pytest.mark.parametrize("name", EXACT)
def test_tasks_go_on_bit_by_bit(name: str) -> None:
    config = EnvConfig(id=f"dmc:{name}", num_envs=1, action_repeat=4)
    assert_goes_on(lambda: make_env(config), before=243, after=40, ends=0 if name.startswith("lqr") else 1)


def test_a_dog_says_that_it_has_no_state() -> None:
    env = make_env(EnvConfig(id="dmc:dog_stand", num_envs=1))
    assert env.get_state() is None
    assert env.why_no_state() == "the environment ControlEnv, whose get_state() raised RuntimeError"


def test_pixels_go_on_bit_by_bit() -> None:
    draws()
    kwargs = {"pixels": True, "size": 16, "render_quality": "fast"}
    config = EnvConfig(id="dmc:reacher_easy", num_envs=1, action_repeat=4, kwargs=kwargs)
    assert_goes_on(lambda: make_env(config), before=243, after=15)


def test_pixels_are_an_image_and_fast_ones_differ() -> None:
    draws()
    full, rows = played("dmc:walker_walk", 3, kwargs={"pixels": True})
    assert full.obs_specs["obs"].kind == "image" and full.obs_specs["obs"].shape == (64, 64, 3)
    assert np.std(rows[0].obs["obs"]) > 10 and not np.array_equal(rows[0].obs["obs"], rows[3].obs["obs"])
    fast = played("dmc:walker_walk", 3, kwargs={"pixels": True, "render_quality": "fast"})[1]
    assert not np.array_equal(rows[3].obs["obs"], fast[3].obs["obs"])
    assert [row.reward[0] for row in rows] == [row.reward[0] for row in fast]


def test_what_cannot_be_made_is_told() -> None:
    with pytest.raises(ConfigError, match=r"no environment 'walker_wak' \('walker_walk' is the nearest"):
        make_env(EnvConfig(id="dmc:walker_wak"))
    with pytest.raises(ConfigError, match=r"'dmc:walker_walk' does not take env\.kwargs {'gravitas': 1}"):
        make_env(EnvConfig(id="dmc:walker_walk", kwargs={"gravitas": 1}))
    with pytest.raises(ConfigError, match="render_quality is 'high': choose full or fast"):
        make_env(EnvConfig(id="dmc:walker_walk", kwargs={"render_quality": "high"}))


def test_it_trains_from_numbers(tmp_path: Path) -> None:
    assert_trains("dmc:cartpole_swingup", "dmc_proprio", tmp_path)


def test_it_trains_from_pixels(tmp_path: Path) -> None:
    draws()
    assert_trains("dmc:cartpole_swingup", "dmc_vision", tmp_path, "env.kwargs.size=16")


def test_presets_say_the_protocol() -> None:
    proprio, vision = (load_config([name]) for name in ("dmc_proprio", "dmc_vision"))
    assert [proprio.env.action_repeat, proprio.replay.ratio, proprio.train.steps] == [2, 512, 250_000]
    assert [vision.env.action_repeat, vision.replay.ratio, vision.train.steps] == [2, 512, 500_000]


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dm_control.suite", None)
    with pytest.raises(MissingExtraError, match=r"'dm-control' is not installed.*dreamer-agent\[dmc\]"):
        make_env(EnvConfig(id="dmc:walker_walk"))
