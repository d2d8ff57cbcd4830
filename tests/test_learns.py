"""The whole of it learns: an environment whose best return is known, from a fresh start to the threshold."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.envs import SUITES, register_suite
from dreamer_agent.envs.jax_adapter import JaxVectorEnv
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training import train
from tests.conftest import small_config

STEPS = 8


class Matching:
    """Each step shows +1 or -1; the action that names it earns 1. Best return 8, random 4."""

    obs_specs = {"cue": ArraySpec("continuous", (1,))}  # noqa: RUF012
    act_specs = {"action": ArraySpec("discrete", (), 2)}  # noqa: RUF012
    time_limit = STEPS

    def reset(self, key):
        cue = jax.random.bernoulli(key).astype(jnp.int32)
        return cue, self._observe(cue)

    def step(self, key, cue, action):
        reward = (action["action"] == cue).astype(jnp.float32)
        new = jax.random.bernoulli(key).astype(jnp.int32)
        return new, self._observe(new), reward, jnp.zeros((), bool), jnp.zeros((), bool)

    def _observe(self, cue):
        return {"cue": (2.0 * cue - 1.0)[None]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, list]:
    register_suite("matching")(lambda task, config, count: JaxVectorEnv(Matching(), count))
    folder = tmp_path_factory.mktemp("learns") / "run"
    config = small_config(
        "env.id=matching:cue", "env.num_envs=8", "model.deter=64", "model.units=32", "model.hidden=32",
        "optimizer.learning_rate=3e-3", "optimizer.warmup=50", "replay.batch_size=16", "replay.ratio=24",
        "replay.prefill=256", "train.steps=3600", "train.log_every=500", "train.eval_episodes=50",
    )  # fmt: skip
    evaluations = train(config, folder, quiet=True)
    yield folder, evaluations
    SUITES.pop("matching")


def test_it_reaches_the_best_return(trained) -> None:
    sampled, mode = trained[1]
    assert sampled.policy == "sample" and mode.policy == "mode"
    assert len(sampled.returns) == 50 and set(sampled.lengths) == {STEPS}
    assert sampled.mean >= 7.0  # random gets 4, the best policy 8
    assert mode.mean >= 7.5


def test_the_run_directory_tells_the_story(trained) -> None:
    folder, evaluations = trained
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps) and steps[-1] >= 3600
    assert rows[-1]["episode/return"] > rows[0]["episode/return"] + 2
    assert all(np.isfinite(value) for value in rows[-1].values())
    scores = json.loads((folder / "evaluation.json").read_text())
    assert scores["scores"][0]["return_mean"] == pytest.approx(evaluations[0].mean)
    assert scores["updates"] == int((scores["env_steps"] - 256) * 24 / (16 * 8))
    assert list(folder.glob("events.out.tfevents*"))
    assert json.loads((folder / "provenance.json").read_text())["packages"]["jax"]


def test_the_model_knows_the_reward_and_that_time_limits_are_no_ends(trained) -> None:
    from dreamer_agent.api import dream_run

    dream = dream_run(trained[0], length=7, sequences=8)
    assert dream.error_by_step("reward")[1:4].mean() < 0.05
    seen = slice(0, dream.observed)  # later cues cannot be foreseen
    assert (np.sign(dream.prediction["cue"][:, seen]) == dream.truth["cue"][:, seen]).mean() > 0.9
    assert dream.error_by_step("continue").max() < 0.05
