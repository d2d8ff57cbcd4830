"""The agents that ship with the package do what their cards say, for tools written for stable-baselines3 too."""

from __future__ import annotations

import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import dreamer_agent
from dreamer_agent import Dreamer, evaluate_run
from dreamer_agent.api import pretrained_names

FOLDER = Path(dreamer_agent.__file__).parent / "pretrained"
LEAST = {"cartpole": 475.0, "catch": 2.0}  # over a few episodes; the cards give the mean of a hundred


def test_every_shipped_agent_is_tested_here_and_has_a_card() -> None:
    assert pretrained_names() == sorted(LEAST)
    for name in LEAST:
        card = (FOLDER / name / "README.md").read_text()
        score = re.search(r"sampled actions \| ([\d.]+)", card)
        assert score and float(score[1]) >= LEAST[name]


@pytest.mark.parametrize("name", LEAST)
def test_it_scores_what_its_card_says(name: str) -> None:
    assert evaluate_run(f"pretrained:{name}", episodes=10).mean >= LEAST[name]


def test_it_foresees_what_its_actions_do() -> None:
    dream = Dreamer.load("pretrained:cartpole").dream(length=20, observed=10)
    truth, prediction = dream.truth["obs"][..., 1], dream.prediction["obs"][..., 1]  # the cart's velocity
    error = np.abs(truth - prediction)[:, 10:].mean()
    assert error < 0.5 * np.abs(truth[:, 10:] - truth[:, 9:10]).mean()  # half of what standing still would miss


@pytest.mark.filterwarnings("ignore")
def test_stable_baselines3_evaluates_it() -> None:
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    from stable_baselines3.common.env_util import make_vec_env

    agent = Dreamer.load("pretrained:cartpole")
    for env in (gym.make("CartPole-v1"), make_vec_env("CartPole-v1", n_envs=3, seed=0)):
        mean, _ = evaluation.evaluate_policy(agent, env, n_eval_episodes=3, deterministic=True)
        assert mean >= LEAST["cartpole"]
