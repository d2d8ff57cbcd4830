"""One small configuration for all tests of the on-device loop, so that they share compiled programs."""

from __future__ import annotations

import json
from pathlib import Path

from dreamer_agent.config import Config
from tests.conftest import small_config

SHORT = [
    "env.id=tests.envs.jax_envs:Drift", "env.num_envs=2", "replay.ratio=10", "replay.prefill=50",
    "replay.capacity=400", "train.log_every=50", "train.checkpoint_every=100", "train.eval_episodes=2",
    "train.eval_envs=2", "train.loop=device",
]  # fmt: skip


def short(*overrides: str) -> Config:
    return small_config(*SHORT, *overrides)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_clock(row: dict) -> dict:
    return {key: value for key, value in row.items() if not key.startswith(("time/", "system/"))}


def scores(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())
