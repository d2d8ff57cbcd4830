"""stable-baselines3 takes our JAX-native environments (in a virtual environment that has it)."""

from __future__ import annotations

import numpy as np
import pytest

from dreamer_agent.envs.as_gymnasium import as_gymnasium
from dreamer_agent.envs.toy import Catch

pytest.importorskip("stable_baselines3")


@pytest.mark.filterwarnings("ignore")
def test_its_checker_accepts_them() -> None:
    from stable_baselines3.common.env_checker import check_env

    from tests.envs.jax_envs import Drift

    for env in (Catch(balls=1), Drift()):
        check_env(as_gymnasium(env), skip_render_check=True)


@pytest.mark.filterwarnings("ignore")
def test_its_ppo_runs_on_them() -> None:
    from stable_baselines3 import PPO

    env = as_gymnasium(Catch(balls=1))
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, device="cpu", seed=0)
    model.learn(64)
    action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
    assert np.asarray(action) in env.action_space
