"""gymnasium's own groups behind an extra, where they are installed: each steps, and one of each trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.envs.suites.training import assert_trains, played


@pytest.mark.parametrize(
    ("module", "id", "kind", "shape"),
    [
        ("mujoco", "HalfCheetah-v5", "continuous", (17,)),
        ("Box2D", "LunarLander-v3", "continuous", (8,)),
        ("Box2D", "BipedalWalker-v3", "continuous", (24,)),
        ("gymnasium", "FrozenLake-v1", "discrete", ()),
    ],
)
def test_a_task_of_each_extra_steps(
    module: str, id: str, kind: str, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo may leave a log
    pytest.importorskip(module)
    env, rows = played(id, 20)
    assert (env.obs_specs["obs"].kind, env.obs_specs["obs"].shape) == (kind, shape)
    assert len(rows) == 21


def test_mujoco_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("mujoco")
    assert_trains("HalfCheetah-v5", "mujoco", tmp_path)


def test_box2d_trains(tmp_path: Path) -> None:
    pytest.importorskip("Box2D")
    assert_trains("LunarLander-v3", "classic", tmp_path)


def test_toy_text_trains(tmp_path: Path) -> None:
    assert_trains("FrozenLake-v1", "classic", tmp_path)
