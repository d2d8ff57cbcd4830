"""A counting environment through every autoreset mode: one truth, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import Rows, make_env
from dreamer_agent.envs.gymnasium_adapter import CheckedEnv, GymnasiumEnv
from dreamer_agent.training.driver import env_steps

MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]


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
