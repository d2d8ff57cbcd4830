"""A counting environment through every autoreset mode: one truth, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import Rows, make_env
from dreamer_agent.envs.gymnasium_adapter import CheckedEnv, GymnasiumEnv, make_vector
from dreamer_agent.errors import ConfigError, EnvironmentFault, SpaceError
from dreamer_agent.training.driver import env_steps

MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]
NAN = float("nan")


class Counting(gym.Env):
    """Observes (episode, steps in it); episode n ends as `ends[n % len(ends)]` says: after how many steps, how.

    The reward is 10 * episode + steps. `log` keeps every action beside the observation it was meant for.
    """

    action_space = spaces.Discrete(5, start=2)

    def __init__(self, ends: list[tuple[int, str]], kind: str = "box"):
        box = spaces.Box(0, 1000, (2,), np.float32)
        self.kind, self.ends = kind, ends
        self.observation_space = {
            "box": box,
            "dict": spaces.Dict({"inner": spaces.Dict({"count": box}), "steps": spaces.Discrete(1000)}),
            "tuple": spaces.Tuple([box, spaces.Tuple([spaces.Discrete(1000)])]),
        }[kind]
        self.episode, self.steps = -1, 0
        self.log: list[tuple[int, int, int]] = []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        length, how = self.ends[self.episode % len(self.ends)]
        assert self.steps < length, "stepped past the end"
        self.log.append((self.episode, self.steps, int(action)))
        self.steps += 1
        ended = self.steps == length
        reward = 10.0 * self.episode + self.steps
        return self.observe(), reward, ended and how != "cut", ended and how != "end", {}

    def observe(self) -> Any:
        count = np.array([self.episode, self.steps], np.float32)
        if self.kind == "dict":
            return {"inner": {"count": count}, "steps": np.int64(self.steps)}
        return (count, (np.int64(self.steps),)) if self.kind == "tuple" else count


# "end" terminates, "cut" truncates, "both" does both in the same step.
ENDS = [[(2, "end"), (3, "cut")], [(1, "cut"), (4, "end")], [(1, "end"), (1, "both")]]
F, L, T = "first", "last", "terminal"
# (episode, steps), reward, flags
TRUTH = [
    [
        ((0, 0), 0, {F}), ((0, 1), 1, set()), ((0, 2), 2, {L, T}),
        ((1, 0), 0, {F}), ((1, 1), 11, set()), ((1, 2), 12, set()), ((1, 3), 13, {L}),
        ((2, 0), 0, {F}), ((2, 1), 21, set()), ((2, 2), 22, {L, T}),
    ],
    [
        ((0, 0), 0, {F}), ((0, 1), 1, {L}),
        ((1, 0), 0, {F}), ((1, 1), 11, set()), ((1, 2), 12, set()), ((1, 3), 13, set()), ((1, 4), 14, {L, T}),
        ((2, 0), 0, {F}), ((2, 1), 21, {L}),
        ((3, 0), 0, {F}),
    ],
    [
        ((0, 0), 0, {F}), ((0, 1), 1, {L, T}), ((1, 0), 0, {F}), ((1, 1), 11, {L, T}), ((2, 0), 0, {F}),
        ((2, 1), 21, {L, T}), ((3, 0), 0, {F}), ((3, 1), 31, {L, T}), ((4, 0), 0, {F}), ((4, 1), 41, {L, T}),
    ],
]  # fmt: skip


def vector(mode: AutoresetMode, kind: str = "box", repeat: int = 1) -> tuple[GymnasiumEnv, list[Counting]]:
    counters = [Counting(ends, kind) for ends in ENDS]
    factories: list[Callable[[], gym.Env]] = [lambda e=e: CheckedEnv(e, repeat) for e in counters]  # type: ignore[misc]
    env = GymnasiumEnv(SyncVectorEnv(factories, autoreset_mode=mode))
    for counter in counters:
        counter.episode = -1  # it was reset once, to see whether it masks actions
    return env, counters


def policy(obs: np.ndarray) -> np.ndarray:
    """Tells which observation it was meant for."""
    return (obs.sum(-1) % 5).astype(np.int32)


def play(env: Any, calls: int, key: str, act: Callable[[np.ndarray], np.ndarray] = policy) -> list[Rows]:
    """All rows in order, with a policy that sees each of them in turn."""
    actions, out = np.zeros(env.num_envs, np.int32), []
    pending = env.reset(0)
    for _ in range(calls):
        for rows in pending:
            present = np.ones(env.num_envs, bool) if rows.mask is None else rows.mask
            actions = np.where(present, act(rows.obs[key]), actions)
            out.append(rows)
        pending = env.step({"action": actions})
    return out + pending


def by_env(rows: list[Rows], key: str) -> list[list[tuple[tuple[int, int], float, set[str]]]]:
    """The rows of each environment in the form of TRUTH."""
    out: list[list] = [[] for _ in rows[0].reward]
    for row in rows:
        for index, seen in enumerate(out):
            if row.mask is None or row.mask[index]:
                flags = {F: row.is_first, L: row.is_last, T: row.is_terminal}
                count = tuple(int(x) for x in row.obs[key][index])
                seen.append((count, float(row.reward[index]), {k for k, flag in flags.items() if flag[index]}))
    return out


KEYS = {"box": "obs", "dict": "inner/count", "tuple": "0"}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("mode", MODES)
def test_rows_are_the_same_in_every_autoreset_mode(mode: AutoresetMode, kind: str) -> None:
    env, _ = vector(mode, kind)
    rows = play(env, 9, KEYS[kind])
    assert [seen[:10] for seen in by_env(rows, KEYS[kind])] == TRUTH
    assert {row.reward.dtype for row in rows} == {np.dtype(np.float32)}
    for flags in (row[2:5] for row in rows):
        assert all(flag.dtype == bool and flag.shape == (3,) for flag in flags)
    if kind != "box":  # the other array of the space belongs to the same step
        other = {"dict": "steps", "tuple": "1/0"}[kind]
        for row in rows:
            np.testing.assert_array_equal(row.obs[other], row.obs[KEYS[kind]][:, 1])


@pytest.mark.parametrize("mode", MODES)
def test_an_environment_gets_the_action_chosen_for_what_it_showed(mode: AutoresetMode) -> None:
    env, counters = vector(mode)
    play(env, 12, "obs")
    for counter in counters:
        assert len(counter.log) >= 6
        for episode, steps, action in counter.log:
            assert action == 2 + (episode + steps) % 5


@pytest.mark.parametrize("mode", MODES)
def test_actions_after_an_end_are_ignored(mode: AutoresetMode) -> None:
    """Two policies that differ only in what they do on the last row of an episode see the same."""

    def play_with(action_at_end: int) -> list[Rows]:
        env, _ = vector(mode)
        lengths = [{episode: ends[episode % 2][0] for episode in range(20)} for ends in ENDS]

        def act(obs: np.ndarray) -> np.ndarray:
            at_end = [lengths[i][int(episode)] == steps for i, (episode, steps) in enumerate(obs)]
            return np.where(at_end, action_at_end, 0)

        return play(env, 10, "obs", act)

    for a, b in zip(play_with(0), play_with(4), strict=True):
        for x, y in zip(a[1:], b[1:], strict=True):
            np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(a.obs["obs"], b.obs["obs"])


@pytest.mark.parametrize("mode", MODES)
def test_env_steps_are_the_steps_that_environments_made(mode: AutoresetMode) -> None:
    env, counters = vector(mode)
    rows = play(env, 11, "obs")
    assert sum(map(env_steps, rows)) == sum(len(counter.log) for counter in counters)
    assert env_steps(rows[0]) == 0


def test_reset_starts_over() -> None:
    env, _ = vector(AutoresetMode.NEXT_STEP)
    play(env, 2, "obs")  # the second and third environment have just ended
    (rows,) = env.reset(3)
    assert rows.is_first.all()
    assert rows.mask is None
    assert rows.obs["obs"][:, 1].tolist() == [0, 0, 0]
    (rows,) = env.step({"action": np.zeros(3, np.int32)})
    assert not rows.is_first.any()


@pytest.mark.parametrize("mode", MODES)
def test_repeated_actions_sum_rewards_and_stop_at_the_end(mode: AutoresetMode) -> None:
    env, counters = vector(mode, repeat=2)
    rows = by_env(play(env, 6, "obs"), "obs")
    assert rows[0][:5] == [
        ((0, 0), 0, {F}),
        ((0, 2), 1 + 2, {L, T}),
        ((1, 0), 0, {F}),
        ((1, 2), 11 + 12, set()),
        ((1, 3), 13, {L}),
    ]
    assert rows[1][:5] == [
        ((0, 0), 0, {F}),
        ((0, 1), 1, {L}),
        ((1, 0), 0, {F}),
        ((1, 2), 11 + 12, set()),
        ((1, 4), 13 + 14, {L, T}),
    ]
    first_two = [action for episode, steps, action in counters[1].log if (episode, steps) in ((1, 0), (1, 1))]
    assert first_two == [2 + 1, 2 + 1]  # the action for (1, 0), twice


def test_each_environment_starts_from_a_seed_of_its_own() -> None:
    def starts(seed: int) -> np.ndarray:
        env = make_env(EnvConfig(id="CartPole-v1"), num_envs=3)
        (rows,) = env.reset(seed)
        env.close()
        return rows.obs["obs"]

    np.testing.assert_array_equal(starts(1), starts(1))
    assert len(np.unique(starts(1), axis=0)) == 3
    assert not np.array_equal(starts(1), starts(2))


def test_cartpole_from_its_name() -> None:
    env = make_env(EnvConfig(id="CartPole-v1", num_envs=2))
    assert env.num_envs == 2
    assert env.obs_specs["obs"].shape == (4,)
    assert env.act_specs["action"].classes == 2
    env.reset(0)
    ends = []
    for _ in range(30):  # always pushing left falls over within 12 steps
        (rows,) = env.step({"action": np.zeros(2, np.int32)})
        ends += rows.is_terminal.tolist()
        np.testing.assert_array_equal(rows.is_last, rows.is_terminal)
    assert sum(ends) >= 4
    env.close()


def test_a_time_limit_truncates() -> None:
    env = make_env(EnvConfig(id="Pendulum-v1", num_envs=1, kwargs={"max_episode_steps": 3}))
    env.reset(0)
    action = {"action": np.zeros((1, 1), np.float32)}
    flags = [
        (rows.is_first[0], rows.is_last[0], rows.is_terminal[0]) for _ in range(5) for rows in env.step(action)
    ]
    assert [tuple(map(bool, row)) for row in flags] == [
        (False, False, False), (False, False, False), (False, True, False), (True, False, False), (False,) * 3
    ]  # fmt: skip


class Broken(Counting):
    """Hands out `obs`, `reward` or `result` in place of the right one from step `since` on."""

    def __init__(self, kind: str = "box", since: int = 2, **wrong: Any):
        super().__init__([(9, "end")], kind)
        self.wrong, self.since = wrong, since

    def reset(self, **kwargs: Any) -> Any:
        obs, info = super().reset(**kwargs)
        return self.wrong["reset"](obs, info) if "reset" in self.wrong else (obs, info)

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        if self.steps >= self.since:
            obs, reward = self.wrong.get("obs", obs), self.wrong.get("reward", reward)
            if "step" in self.wrong:
                return self.wrong["step"](obs, reward, terminated, info)
        return obs, reward, terminated, truncated, info


def fault_of(run: Callable[[], Any], name: str) -> str:
    with pytest.raises(EnvironmentFault) as caught:
        run()
    message = str(caught.value)
    assert message.startswith(f"The environment {name} breaks its API: ")
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 400
    return message


WRONG = {
    "nan": ({"obs": np.array([0, NAN], np.float32)}, "step() should hold finite numbers, got [ 0. nan]"),
    "infinity": ({"obs": np.array([0, np.inf], np.float32)}, "step() should hold finite numbers"),
    "longer": ({"obs": np.zeros(3, np.float32)}, "should have the shape (2,) of its space, got shape (3,)"),
    "scalar": ({"obs": 1.0}, "should have the shape (2,) of its space, got shape ()"),
    "no_obs": ({"obs": None}, "should have the shape (2,) of its space, got shape ()"),
    "ragged": ({"obs": [[1, 2], [3]]}, "should have the shape (2,) of its space, got [[1, 2], [3]]"),
    "words": ({"obs": np.array(["a", "b"])}, "should hold numbers"),
    "complex": ({"obs": np.array([1j, 0])}, "should hold numbers"),
    "no_reward": ({"reward": None}, "the reward should be one finite number, got None"),
    "string": ({"reward": "1.0"}, "the reward should be one finite number, got 1.0"),
    "rewards": ({"reward": np.array([1.0, 2.0])}, "the reward should be one finite number, got [1. 2.]"),
    "ragged_rewards": ({"reward": [[1], [1, 2]]}, "the reward should be one finite number"),
    "empty_reward": ({"reward": np.zeros(0)}, "the reward should be one finite number, got []"),
    "nan_reward": ({"reward": NAN}, "the reward should be one finite number, got nan"),
    "infinite_reward": ({"reward": -np.inf}, "the reward should be one finite number, got -inf"),
    "four_values": (
        {"step": lambda *values: values},
        "should return (observation, reward, terminated, truncated",
    ),
    "bare_reset": ({"reset": lambda obs, info: obs}, "reset() should return (observation, info), got [0. 0.]"),
    "nan_at_reset": ({"reset": lambda obs, info: (obs * NAN, info)}, "reset() should hold finite numbers"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("repeat", [1, 3])
def test_a_broken_environment_is_named_in_one_sentence(name: str, repeat: int) -> None:
    wrong, expected = WRONG[name]

    def run() -> None:
        env = make_vector([lambda: Counting([(9, "end")]), lambda: Broken(**wrong)], repeat)
        env.reset(0)
        for _ in range(2):
            env.step({"action": np.zeros(2, np.int32)})

    assert expected in fault_of(run, "Broken")


@pytest.mark.parametrize(
    ("kind", "obs", "lacking"),
    [
        ("dict", {"inner": {}, "steps": np.int64(0)}, "lacks 'inner/count'"),
        ("dict", {"steps": np.int64(0)}, "lacks 'inner'"),
        ("dict", np.zeros(2), "lacks 'inner'"),
        ("tuple", (np.zeros(2, np.float32),), "lacks '1'"),
        ("tuple", None, "lacks '0'"),
    ],
)
def test_a_missing_part_of_an_observation_is_named(kind: str, obs: Any, lacking: str) -> None:
    env = make_vector([lambda: Broken(kind, obs=obs)], 1)
    env.reset(0)
    env.step({"action": np.zeros(1, np.int32)})
    assert lacking in fault_of(lambda: env.step({"action": np.zeros(1, np.int32)}), "Broken")


def test_a_nested_observation_is_named_by_its_path() -> None:
    env = make_vector([lambda: Broken("dict", obs={"inner": {"count": np.full(2, NAN)}, "steps": 1})], 1)
    env.reset(0)
    env.step({"action": np.zeros(1, np.int32)})
    message = fault_of(lambda: env.step({"action": np.zeros(1, np.int32)}), "Broken")
    assert "the observation 'inner/count' of step() should hold finite numbers" in message


@pytest.mark.parametrize("reward", [1, True, np.float64(1), np.array([1.0]), np.array(1, np.int8), jnp.ones(())])
def test_rewards_may_be_any_one_number(reward: Any) -> None:
    env = make_vector([lambda: Broken(reward=reward, since=1)], 1)
    env.reset(0)
    action = {"action": np.zeros(1, np.int32)}
    rewards = [env.step(action)[0].reward for _ in range(3)]
    assert [r.tolist() for r in rewards] == [[1.0], [1.0], [1.0]]


def test_an_observation_outside_of_its_bounds_is_no_fault() -> None:
    env = make_vector([lambda: Broken(obs=np.array([-5000, 5000], np.float32))], 1)
    env.reset(0)
    env.step({"action": np.zeros(1, np.int32)})
    (rows,) = env.step({"action": np.zeros(1, np.int32)})
    assert rows.obs["obs"].tolist() == [[-5000, 5000]]


@pytest.fixture
def registered() -> Any:
    """A broken environment under an id, as a user would register it."""
    gym.register("test_suite/Broken-v0", entry_point=Broken)
    yield "test_suite/Broken-v0"
    del gym.registry["test_suite/Broken-v0"]


@pytest.mark.parametrize("name", ["nan", "longer", "no_reward", "rewards", "four_values", "bare_reset"])
def test_a_registered_environment_is_named_by_its_id(registered: str, name: str) -> None:
    wrong, expected = WRONG[name]

    def run() -> None:
        env = make_env(EnvConfig(id=registered, num_envs=1, kwargs={"since": 1, **wrong}))
        env.reset(0)
        env.step({"action": np.zeros(1, np.int32)})

    assert expected in fault_of(run, registered)


def test_the_checks_of_gymnasium_do_not_come_before_ours(registered: str) -> None:
    kwargs = {"kind": "dict", "reset": lambda obs, info: (None, info)}
    config = EnvConfig(id=registered, num_envs=1, kwargs=kwargs)
    assert "lacks 'inner'" in fault_of(lambda: make_env(config).reset(0), registered)


def test_vector_environments_that_were_not_checked_give_no_nan() -> None:
    """A user's own vector environment comes without our wrapper inside."""
    for wrong in ({"obs": np.array([0, NAN], np.float32)}, {"reward": NAN}):
        env = GymnasiumEnv(SyncVectorEnv([lambda w=wrong: Broken(**w)]))
        env.reset(0)
        env.step({"action": np.zeros(1, np.int32)})
        with pytest.raises(EnvironmentFault, match="finite"):
            env.step({"action": np.zeros(1, np.int32)})


@pytest.mark.parametrize(
    "name",
    ["CartPol-v1", "CartPole-v99", "no_such_module:Thing-v0", "toyy:catch", "nowhere/Thing-v0", "not an id!"],
)
def test_an_unknown_environment_is_a_configuration_error(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_env(EnvConfig(id=name))
    message = str(caught.value)
    assert message.startswith(f"There is no environment '{name}': ")
    assert "gymnax, minigrid, python, toy" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["toy:chess", "gymnax:Chess-v0"])
def test_an_unknown_task_of_a_suite_is_a_configuration_error(name: str) -> None:
    if name.startswith("gymnax"):
        pytest.importorskip("gymnax")
    with pytest.raises(ConfigError, match=name.partition(":")[2]):
        make_env(EnvConfig(id=name))


def test_a_space_that_cannot_be_encoded_is_told_at_the_start() -> None:
    class Speaking(Counting):
        def __init__(self) -> None:
            super().__init__([(2, "end")])
            self.observation_space = spaces.Dict({"graph": spaces.Graph(spaces.Box(0, 1, (2,)), None)})

    with pytest.raises(SpaceError, match="The observation 'graph' is a Graph"):
        make_vector([Speaking], 1)
