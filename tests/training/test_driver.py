"""Acting, episode statistics and evaluation, with an agent that only remembers and counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dreamer_agent.agent import ActState
from dreamer_agent.envs import Rows
from dreamer_agent.envs.gymnasium_adapter import GymnasiumEnv
from dreamer_agent.training.driver import Driver, Episode, env_steps
from dreamer_agent.training.evaluate import EVALUATION_SEED, evaluate

PARAMS: Any = {"encoder": {}, "rssm": {}, "actor": {"bonus": jnp.int32(0)}, "critic": {"unused": jnp.zeros(3)}}


class Memory(NamedTuple):
    """Rows seen in this episode, the observation of the last one, and a random number of the step."""

    count: Any
    seen: Any
    noise: Any

    def pack(self) -> dict[str, Any]:
        return self._asdict()


class Remembering:
    """An agent whose latent is a count of its steps; action 1 + bonus when it explores, else 0."""

    acting, planner, leader = ("actor",), None, "policy"

    def init_act(self, num_envs: int) -> ActState:
        zeros = jnp.zeros(num_envs)
        memory = Memory(jnp.full(num_envs, -100, jnp.int32), jnp.zeros((num_envs, 2)), zeros)
        return ActState(memory, {"action": jnp.zeros(num_envs, jnp.int32)})  # type: ignore[arg-type]

    def act(self, params: Any, key: Any, carry: ActState, obs: Any, is_first: Any, explore: Any) -> ActState:
        count = jnp.where(is_first, 0, carry.latent.count + 1)  # type: ignore[attr-defined]
        noise = jax.random.uniform(key, count.shape)
        action = jnp.where(explore, 1 + params["actor"]["bonus"], 0) * jnp.ones_like(count)
        return ActState(Memory(count, obs["obs"], noise), {"action": action})  # type: ignore[arg-type]


class Counting(gym.Env):
    """Observes (episode, steps in it); every episode ends after `length` steps. The reward is 1 + action."""

    observation_space = spaces.Box(0, 1000, (2,), np.float32)
    action_space = spaces.Discrete(10)

    def __init__(self, length: int, terminates: bool):
        self.length, self.terminates = length, terminates
        self.episode, self.steps = -1, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.seed = seed if seed is not None else self.__dict__.get("seed")
        self.episode, self.steps = self.episode + 1, 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.steps += 1
        ended = self.steps == self.length
        obs = np.array([self.episode, self.steps], np.float32)
        return obs, 1.0 + int(action), ended and self.terminates, ended and not self.terminates, {}


MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]
AGENT: Any = Remembering()


def environment(lengths: list[int], mode: AutoresetMode = AutoresetMode.NEXT_STEP) -> GymnasiumEnv:
    makers = [lambda n=n, i=i: Counting(n, i % 2 == 0) for i, n in enumerate(lengths)]
    return GymnasiumEnv(SyncVectorEnv(makers, autoreset_mode=mode))


def drive(driver: Driver, calls: int, params: Any = PARAMS) -> list[tuple[Rows, dict[str, Any]]]:
    return [pair for _ in range(calls) for pair in driver.rows(params)]


@pytest.mark.parametrize("mode", MODES)
def test_memory_counts_the_rows_of_each_episode_whatever_the_mask(mode: AutoresetMode) -> None:
    driver = Driver(AGENT, environment([2, 3, 5], mode), seed=0)
    masked = 0
    for rows, step in drive(driver, 14):
        present = np.ones(3, bool) if rows.mask is None else rows.mask
        masked += rows.mask is not None
        # The agent started to count at the is_first, as the environment did, and saw this very row.
        np.testing.assert_array_equal(step["latent"]["count"][present], rows.obs["obs"][present, 1])
        np.testing.assert_array_equal(step["latent"]["seen"][present], rows.obs["obs"][present])
    assert (masked > 0) == (mode != AutoresetMode.NEXT_STEP)


def test_rows_outside_of_the_mask_keep_their_memory_and_action() -> None:
    driver = Driver(AGENT, environment([2, 3], AutoresetMode.SAME_STEP), seed=0)
    pairs = drive(driver, 3)
    (last, before), (first, after) = pairs[2:4]
    assert last.mask is None
    assert first.mask is not None
    assert first.mask.tolist() == [True, False]
    assert after["latent"]["count"].tolist() == [0, before["latent"]["count"][1]]
    assert after["latent"]["noise"][1] == before["latent"]["noise"][1]
    assert after["latent"]["noise"][0] != before["latent"]["noise"][0]


def test_the_step_to_store_is_the_row_with_its_action_and_latent() -> None:
    driver = Driver(AGENT, environment([2, 3]), seed=0)
    for rows, step in drive(driver, 6):
        assert set(step) == {"obs", "reward", "is_first", "is_last", "is_terminal", "latent", "action"}
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(step))
        assert step["action"]["action"].tolist() == [1, 1]
        np.testing.assert_array_equal(step["reward"], rows.reward)


@pytest.mark.parametrize("mode", MODES)
def test_episodes_have_the_returns_and_lengths_of_the_environment(mode: AutoresetMode) -> None:
    driver = Driver(AGENT, environment([2, 3, 5], mode), seed=0)
    pairs = drive(driver, 20)
    episodes = driver.finished()
    for index, length in enumerate([2, 3, 5]):
        mine = [episode for episode in episodes if episode.env == index]
        assert len(mine) >= 3
        assert mine == [Episode(index, 2.0 * length, length)] * len(mine)  # every step pays 1 + action 1
    assert driver.finished() == []
    ends = sum(int((r.is_last if r.mask is None else r.is_last & r.mask).sum()) for r, _ in pairs)
    assert ends == len(episodes)


@pytest.mark.parametrize("mode", MODES)
def test_env_steps_leave_out_the_rows_of_resets(mode: AutoresetMode) -> None:
    driver = Driver(AGENT, environment([1, 3], mode), seed=0)
    pairs = drive(driver, 13)
    # Every env step, and nothing else, pays a reward of 2.
    paid = sum(int((r.reward if r.mask is None else r.reward * r.mask).sum()) for r, _ in pairs)
    assert sum(env_steps(rows) for rows, _ in pairs) == paid / 2
    if mode == AutoresetMode.NEXT_STEP:
        assert paid / 2 == 6 + 9  # 13 rows: of two each one, of four each three


def test_randomness_depends_on_the_seed_and_the_number_of_calls() -> None:
    def noise(seed: int, skip: int = 0) -> np.ndarray:
        driver = Driver(AGENT, environment([2, 3]), seed)
        driver.calls = skip
        return np.stack([step["latent"]["noise"] for _, step in drive(driver, 4)])

    np.testing.assert_array_equal(noise(1), noise(1))
    np.testing.assert_array_equal(noise(1, skip=2)[:2], noise(1)[2:])
    assert len(np.unique(noise(1))) == 8
    assert not np.intersect1d(noise(1), noise(2)).size


def test_restart_forgets_the_episodes_under_way() -> None:
    driver = Driver(AGENT, environment([5, 5]), seed=0)
    drive(driver, 3)
    driver.restart()
    (rows, step), *_ = drive(driver, 6)
    assert rows.is_first.all()
    assert step["latent"]["count"].tolist() == [0, 0]
    assert driver.finished() == [Episode(0, 10.0, 5), Episode(1, 10.0, 5)]


def test_only_the_parameters_of_acting_are_asked_for() -> None:
    driver = Driver(AGENT, environment([2, 3]), seed=0)
    (_, step), *_ = drive(driver, 1, {key: PARAMS[key] for key in ("encoder", "rssm", "actor")})
    assert step["action"]["action"].tolist() == [1, 1]
    with pytest.raises(KeyError, match="actor"):
        drive(driver, 1, {"encoder": {}, "rssm": {}})


def test_evaluation_counts_equally_many_episodes_of_every_environment() -> None:
    result = evaluate(AGENT, PARAMS, environment([2, 7]), episodes=6, seed=0, explore=True, max_length=99)
    # In the time of three long episodes the short ones end many times: three of each count.
    assert result.lengths == [2, 2, 2, 7, 7, 7]
    assert result.returns == [4.0, 4.0, 4.0, 14.0, 14.0, 14.0]
    assert result.mean == 9.0
    assert result.summary() == {
        "policy": "sample",
        "episodes": 6,
        "return_mean": 9.0,
        "return_std": 5.0,
        "return_min": 4.0,
        "return_max": 14.0,
        "length_mean": 4.5,
        "length_max": 7,
        "episodes_cut": 0,
        "faults": 0,
        "numbers": {},
    }


def test_an_episode_that_does_not_end_is_cut_and_said_to_be() -> None:
    result = evaluate(AGENT, PARAMS, environment([3, 1000]), episodes=4, seed=0, explore=True, max_length=5)
    assert result.lengths == [3, 3, 5, 5] and result.returns == [6.0, 6.0, 10.0, 10.0]
    assert result.summary()["episodes_cut"] == 2 and result.cut == 2
    # One that ends exactly there is whole, and counted once.
    whole = evaluate(AGENT, PARAMS, environment([5]), episodes=3, seed=0, explore=True, max_length=5)
    assert whole.lengths == [5, 5, 5] and whole.cut == 0


def test_evaluation_gives_exactly_the_episodes_that_were_asked_for() -> None:
    result = evaluate(AGENT, PARAMS, environment([2, 3, 4]), episodes=4, seed=0, explore=True, max_length=99)
    assert result.lengths == [2, 2, 3, 3]


def test_evaluation_takes_the_mode_where_it_does_not_explore() -> None:
    params = PARAMS | {"actor": {"bonus": jnp.int32(3)}}
    results = {x: evaluate(AGENT, params, environment([2]), 1, 0, x, max_length=99) for x in (True, False)}
    assert {x: result.returns for x, result in results.items()} == {True: [2 * (1 + 4)], False: [2 * 1]}
    assert [results[x].policy for x in (True, False)] == ["sample", "mode"]


def test_evaluation_runs_from_seeds_that_training_does_not_use() -> None:
    env = environment([2, 3])
    evaluate(AGENT, PARAMS, env, 2, seed=5, explore=True, max_length=99)
    seeds = [counting.unwrapped.seed for counting in env.env.envs]  # type: ignore[attr-defined]
    assert seeds == [5 + EVALUATION_SEED, 5 + EVALUATION_SEED + 1]
