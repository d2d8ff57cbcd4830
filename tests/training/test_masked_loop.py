"""Whole runs on environments that assert on every illegal action, and on ones with extreme numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dreamer_agent.config import Config
from dreamer_agent.envs.checked import CheckedEnv
from dreamer_agent.envs.gymnasium_adapter import GymnasiumEnv, make_vector
from dreamer_agent.training import train
from dreamer_agent.training.loop import HostTrainer
from tests.conftest import small_config
from tests.envs.masked_envs import Picky

SHORT = [
    "env.num_envs=2", "replay.ratio=32", "replay.prefill=40", "train.log_every=30", "train.checkpoint_every=1000",
    "train.eval_episodes=4", "train.eval_envs=2", "optimizer.learning_rate=3e-3", "optimizer.warmup=10",
]  # fmt: skip


def short(steps: int) -> Config:
    return small_config(*SHORT, f"train.steps={steps}")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


RUNS = {
    "next_step": (AutoresetMode.NEXT_STEP, "discrete", "info"),
    "same_step": (AutoresetMode.SAME_STEP, "uneven", "obs"),
    "disabled": (AutoresetMode.DISABLED, "dict", "info"),
}


@pytest.mark.parametrize("name", RUNS)
def test_no_illegal_action_is_taken_and_the_masks_are_learned(name: str, tmp_path: Path) -> None:
    mode, kind, where = RUNS[name]
    made: list[Picky] = []

    def make(count: int) -> GymnasiumEnv:
        new = [Picky(kind, where, 3 + i, len(made) + i) for i in range(count)]
        made.extend(new)
        return GymnasiumEnv(SyncVectorEnv([lambda e=e: CheckedEnv(e) for e in new], autoreset_mode=mode))

    scores = train(short(150), tmp_path / "run", make=make, quiet=True)  # Picky asserts
    assert sum(one.steps_made for one in made) > 150
    assert [score.mean for score in scores] == [3.5, 3.5]  # two episodes each of three and of four steps
    rows = [row for row in rows_of(tmp_path / "run") if "loss/policy" in row]
    masks = [key for key in rows[0] if key.startswith("loss/rec/action_mask")]
    assert len(masks) == {"discrete": 1, "uneven": 2, "dict": 2}[kind]
    assert sum(rows[-1][key] for key in masks) < 0.5 * sum(rows[0][key] for key in masks)
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert all(abs(row["loss/policy"]) < 100 for row in rows)


class Extreme(gym.Env):
    """Huge float64 numbers everywhere. Episodes take one step, or never end."""

    observation_space = spaces.Dict(
        {
            "huge": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
            "word": spaces.Text(3, charset="xyz"),
            "one": spaces.Box(-np.inf, np.inf, (), np.float64),
        }
    )
    action_space = spaces.Tuple([spaces.Box(5, np.inf, (2,), np.float64), spaces.MultiDiscrete([[2, 3], [4, 2]])])

    def __init__(self, endless: bool):
        self.endless = endless
        self.most = 0.0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return self.observe(), {}

    def observe(self) -> dict[str, Any]:
        huge = self.np_random.choice([-1e300, 1e-300, 0.0, 1e30], (2, 2))
        return {"huge": huge, "word": "xyz"[: self.np_random.integers(1, 4)], "one": np.float64(1e39)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert action in self.action_space
        self.most = max(self.most, float(action[0].max()))
        reward = float(self.np_random.choice([-1e300, 1e300, 1e30, 0.0]))
        return self.observe(), reward, not self.endless, False, {}


def test_extreme_numbers_stay_finite_in_episodes_of_one_step_and_without_end(tmp_path: Path) -> None:
    made = [Extreme(endless=False), Extreme(endless=True)]
    trainer = HostTrainer.open(
        short(90), tmp_path / "run", lambda count: make_vector([lambda e=e: e for e in made], 1), quiet=True
    )
    try:
        trainer.run(90)
        rows = rows_of(tmp_path / "run")
        assert rows[-1]["updates"] >= 40
        assert all(np.isfinite(value) for row in rows for value in row.values())
        assert rows[-1]["episode/count"] == 30  # every other step of the first environment starts it again
        assert max(one.most for one in made) > 5.5
    finally:
        trainer.close()
