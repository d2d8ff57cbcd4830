"""Runs with an explorer: who collects when, on both loops, resumed, and what a run offers afterwards."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from dreamer_agent import Dreamer, load_dream
from dreamer_agent.agent import Agent
from dreamer_agent.api import evaluate_run
from dreamer_agent.api.runs import load_saved
from dreamer_agent.errors import ConfigError, RunDirectoryError
from dreamer_agent.training.checkpoint import newest
from dreamer_agent.training.weights import named
from tests.conftest import TEST_SIZE

FEW = [
    *TEST_SIZE, "env.num_envs=2", "replay.ratio=16", "replay.prefill=64", "replay.capacity=1000",
    "train.eval_envs=2", "train.checkpoint_every=60", "train.updates_per_dispatch=1", "model.ensemble=2",
    "behaviour.explore_steps=80",
]  # fmt: skip
STEPS = 120


def learn(folder: Path, loop: str, *steps: int) -> Path:
    for until in steps:
        with Dreamer("toy:rooms", config=[*FEW, f"train.loop={loop}"], run=folder, quiet=True) as agent:
            agent.learn(until)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learn(tmp_path_factory.mktemp("exploring") / "run", "host", STEPS)


def learned(folder: Path) -> dict:
    state = load_saved(folder).state
    return named((state.params, state.explorer))


def test_a_run_goes_on_as_if_it_had_not_stopped(run: Path, tmp_path: Path) -> None:
    whole, parts = learned(run), learned(learn(tmp_path / "parts", "host", 60, STEPS))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], name)


@pytest.mark.parametrize("loop", ["host", "device"])
def test_the_explorer_collects_the_first_steps(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its head is certain of moving up, the policy's of moving down: the replay tells who chose."""
    init = Agent.init

    def certain(self: Agent, key: jax.Array):
        state = init(self, key)
        for own, move in (("actor", 2), ("explorer_actor", 0)):
            head = state.params[own]["logits_action"]["dense"]
            head["kernel"], head["bias"] = 0 * head["kernel"], 50.0 * jax.nn.one_hot(move, 4)
        return state

    monkeypatch.setattr(Agent, "init", certain)
    seen = []
    with Dreamer("toy:rooms", config=[*FEW, f"train.loop={loop}"], run=tmp_path / "run", quiet=True) as agent:
        agent.learn(STEPS)
        replay = agent._trainer.replay
        data = replay.state.data if loop == "device" else replay.data
        seen = np.asarray(data["action"]["action"])[:, : STEPS // 2 + 1].T  # [steps, envs]
    # Two environments: rows 0 are resets; those seen with fewer than 80 env steps behind them are the explorer's.
    assert (seen[:41] == 0).all() and (seen[41:] == 2).all()


def test_what_a_run_with_an_ensemble_offers(run: Path) -> None:
    assert evaluate_run(run, 2, planner="explorer").policy == "explorer, sample"
    assert evaluate_run(run, 2).policy == "sample"
    dream = load_dream(run, count=8, most_doubt=0.0, horizon=None, ends="never")
    env = dream.vector_env(2)
    env.reset(seed=0)
    *_, truncated, info = env.step({"action": np.zeros(2, int)})
    assert (info["doubt"] > 0).all() and truncated.all()
    with pytest.raises(RunDirectoryError, match="no best checkpoint"):  # the explorer's returns are no reason
        newest(run, best=True)


def test_a_run_without_an_explorer_has_none_to_evaluate() -> None:
    with pytest.raises(ConfigError, match="no explorer"):
        evaluate_run("pretrained:cartpole", 1, planner="explorer")
