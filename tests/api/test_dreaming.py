"""A trained run as an environment: where its dreams begin, and that another agent learns in it."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from dreamer_agent import Dreamer, dream_env, dream_vector_env, load_dream
from dreamer_agent.errors import ConfigError, RunDirectoryError
from tests.conftest import TEST_SIZE

HELD = {"horizon": 10, "count": 16}


def small(**more: object) -> list[str]:
    few = ["env.num_envs=2", "replay.ratio=16", "replay.prefill=64", "train.eval_envs=2", "train.eval_episodes=2"]
    return [*TEST_SIZE, *few, *(f"env.kwargs.{key}={value}" for key, value in more.items())]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dreaming") / "run"
    with Dreamer("CartPole-v1", config=small(), run=folder, quiet=True) as agent:
        agent.learn(100)
    return folder


def test_another_agent_learns_in_it(run: Path, tmp_path: Path) -> None:
    with Dreamer(f"dream:{run}", config=small(**HELD), run=tmp_path / "run", quiet=True) as agent:
        agent.learn(80)
    real = Dreamer.load(tmp_path / "run", env="CartPole-v1", quiet=True)
    assert len(real.evaluate(1).returns) == 1
    assert real.predict(np.zeros(4, np.float32))[0] in (0, 1)
    with pytest.raises(ConfigError, match=r"does not take env\.kwargs"):
        Dreamer(f"dream:{run}", config=small(horizn=3))


def test_where_dreams_begin(run: Path) -> None:
    env = dream_vector_env(run, 2, **HELD)
    assert env.reset(seed=0)[0].shape == (2, 4)
    assert env.single_action_space == gym.make("CartPole-v1").action_space
    assert len(load_dream(run, count=16).starts["stoch"]) == 16
    assert 2 <= len(load_dream(run, "reset", count=8).starts["stoch"]) <= 8
    assert len(load_dream(run, np.zeros((3, 4), np.float32)).starts["stoch"]) == 3
    with pytest.raises(ConfigError, match="choose replay, reset"):
        dream_env(run, starts="anywhere")


def test_a_shipped_agent_has_no_replay_so_that_its_environment_is_reset() -> None:
    env = load_dream("pretrained:cartpole", count=12, ends="never", temperature=0.0).vector_env(12)

    def pushed(actions: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The angle of the pole and the probability that the episode goes on, at the end."""
        obs = env.reset(seed=0)[0]
        assert np.abs(obs[:, [0, 2]]).max() < 0.3  # a cart in the middle, a pole upright
        for action in actions:
            obs, reward, *_, info = env.step(np.full(12, action))
        assert np.abs(reward - 1).max() < 0.1
        return obs[:, 2], info["continue"]

    angle, goes_on = pushed([0, 1] * 6)
    assert np.median(np.abs(angle)) < 0.1 and np.median(goes_on) > 0.95
    angle, goes_on = pushed([1] * 12)  # to one side: the pole falls to the other
    assert angle.max() < -0.1 and goes_on.max() < 0.8
    with pytest.raises(RunDirectoryError, match="holds no replay"):
        load_dream("pretrained:cartpole", "replay")


@pytest.mark.filterwarnings("ignore")
def test_stable_baselines3_learns_in_it(run: Path) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_checker import check_env

    env = load_dream(run, **HELD).env()
    check_env(env, skip_render_check=True)
    model = sb3.PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, device="cpu", seed=0).learn(64)
    assert model.predict(np.zeros(4, np.float32))[0] in env.action_space
