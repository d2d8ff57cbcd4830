"""What the tests of suites share: a small run of a preset, and steps with random actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent import Dreamer
from dreamer_agent.config import EnvConfig, load_config
from dreamer_agent.envs import Rows, make_env
from tests.conftest import TEST_SIZE

SMALL = (*TEST_SIZE, "replay.ratio=16", "replay.prefill=24", "train.log_every=20", "env.num_envs=2")


def assert_trains(id: str, preset: str, folder: Path, *overrides: str) -> None:
    """Train a small agent for some updates with the environments of `preset`."""
    dreamer = Dreamer(id, preset, config=[*SMALL, *overrides], run=folder / "run", quiet=True)
    before = load_config([preset]).env
    assert dreamer.config.env.action_repeat == before.action_repeat
    assert dreamer.config.env.kwargs.keys() >= before.kwargs.keys()
    dreamer.learn(48)
    assert dreamer._trainer.counters.updates >= 4
    assert (folder / "run" / "metrics.jsonl").read_text().count("loss/") > 0
    dreamer.close()


def played(id: str, steps: int, seed: int = 0, **given: Any) -> tuple[Any, list[Rows]]:
    """An environment of one copy, and its rows under random actions."""
    env = make_env(EnvConfig(id=id, num_envs=1, **given))
    rng, rows = np.random.default_rng(seed), env.reset(seed)
    for _ in range(steps):
        rows += env.step(random_actions(env, rng))
    return env, rows


def random_actions(env: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        key: rng.integers(spec.classes, size=(env.num_envs, *spec.shape)).astype(np.int32)
        if spec.kind == "discrete"
        else rng.uniform(-1, 1, (env.num_envs, *spec.shape)).astype(np.float32)
        for key, spec in env.act_specs.items()
    }
