"""JAX-native environments with gymnasium's API."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from dreamer_agent.envs.as_gymnasium import as_gymnasium
from dreamer_agent.envs.gymnasium_adapter import make_vector
from dreamer_agent.envs.toy import Catch
from dreamer_agent.specs import mask_specs
from tests.envs.jax_envs import Drift


def test_gymnasium_accepts_what_we_make_of_jax() -> None:
    for env in (as_gymnasium(Catch(balls=1)), as_gymnasium(Drift())):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on unbounded boxes
            check_env(env, skip_render_check=True)


def test_a_single_array_is_bare_and_several_are_a_dict() -> None:
    catch, drift = as_gymnasium(Catch()), as_gymnasium(Drift())
    assert catch.observation_space == spaces.Box(0, 255, (16, 16, 3), np.uint8)
    assert catch.action_space == spaces.Discrete(3)
    assert drift.action_space == spaces.Dict({"push": spaces.Box(-1, 1, (2,)), "stop": spaces.Discrete(2)})
    obs, info = drift.reset(seed=0)
    assert obs.keys() == {"place", "turn", "action_mask/stop"}
    assert obs in drift.observation_space
    assert info == {}


def test_episodes_depend_on_the_seed_alone() -> None:
    env = as_gymnasium(Drift())

    def play(seed: int | None) -> list[np.ndarray]:
        seen = [env.reset(seed=seed)[0]["place"]]
        for _ in range(4):
            seen.append(env.step({"push": np.zeros(2, np.float32), "stop": 0})[0]["place"])
        return seen

    first, onward, again = play(3), play(None), play(3)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(onward, play(None))
    assert not np.array_equal(first, onward)
    assert not np.array_equal(first, play(4))


def test_actions_are_clipped_and_the_time_limit_truncates() -> None:
    env = as_gymnasium(Drift(noise=0.0))
    start = env.reset(seed=0)[0]["place"]
    ends = []
    for _ in range(Drift.time_limit):
        obs, reward, terminated, truncated, _ = env.step({"push": np.array([5, -5], np.float32), "stop": 0})
        ends.append((terminated, truncated))
        assert type(reward) is float
    np.testing.assert_allclose(obs["place"] - start, [Drift.time_limit, -Drift.time_limit], rtol=1e-5)
    assert ends == [(False, False)] * (Drift.time_limit - 1) + [(False, True)]
    env.reset(seed=0)
    assert env.step({"push": np.zeros(2, np.float32), "stop": 1})[2:4] == (True, False)


def test_a_step_before_a_reset_is_refused() -> None:
    with pytest.raises(gym.error.ResetNeeded):
        as_gymnasium(Catch()).step(0)


def test_it_comes_back_into_the_library_with_its_masks() -> None:
    env = make_vector([lambda: as_gymnasium(Drift())] * 2, 1)
    assert dict(env.obs_specs) == {**Drift.obs_specs, **mask_specs(Drift.act_specs)}
    (rows,) = env.reset(0)
    assert rows.obs["action_mask/stop"].tolist() == [[1, 0]] * 2
    assert rows.obs["turn"].dtype == np.int32
    (rows,) = env.step({"push": np.zeros((2, 2), np.float32), "stop": np.zeros(2, np.int32)})
    assert rows.obs["action_mask/stop"].tolist() == [[1, 1]] * 2
    assert rows.obs["turn"].tolist() == [1, 1]
