"""JAX-native environments: the same rows, time limits apart from ends, one compilation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import JaxEnv, Rows, VectorEnv, make_env
from dreamer_agent.envs.jax_adapter import JaxVectorEnv
from dreamer_agent.envs.toy import Catch
from dreamer_agent.errors import ConfigError, EnvironmentFault
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training.driver import env_steps
from tests.envs.jax_envs import Drift


class Counter:
    """Observes its steps; action 1 terminates, action 2 truncates, action 3 breaks it. The reward is the count.

    The state of `reset` has weak types, that of `step` strong ones, as in many libraries.
    """

    def __init__(self, time_limit: int | None = None):
        self.obs_specs = {"steps": ArraySpec("continuous", (1,)), "small": ArraySpec("discrete", (), 1000)}
        self.act_specs = {"do": ArraySpec("discrete", (), 4)}
        self.time_limit = time_limit
        self.traces = 0

    def reset(self, key: Any) -> tuple[Any, dict[str, Any]]:
        return {"steps": 0, "seed": jax.random.bits(key)}, self.observe(0)

    def step(self, key: Any, state: Any, action: dict[str, Any]) -> tuple[Any, ...]:
        self.traces += 1  # once for each compilation
        steps, do = state["steps"] + jnp.ones((), jnp.int32), action["do"]
        reward = jnp.where(do == 3, jnp.nan, steps.astype(jnp.float32))
        return state | {"steps": steps}, self.observe(steps), reward, do == 1, do == 2

    def observe(self, steps: Any) -> dict[str, Any]:
        return {"steps": jnp.asarray(steps, jnp.float32)[None], "small": jnp.asarray(steps, jnp.uint8)}


F, L, T = "first", "last", "terminal"


@pytest.fixture(scope="module")
def counters() -> JaxVectorEnv:
    return JaxVectorEnv(Counter(), 2)


@pytest.fixture(scope="module")
def limited() -> JaxVectorEnv:
    return JaxVectorEnv(Counter(time_limit=3), 2)


@pytest.fixture(scope="module")
def catch_env() -> VectorEnv:
    return make_env(EnvConfig(id="toy:catch", num_envs=3, kwargs={"balls": 2}))


def play(env: JaxVectorEnv, actions: list[list[int]]) -> list[Rows]:
    rows = env.reset(0)
    for column in zip(*actions, strict=True):
        rows += env.step({"do": np.array(column, np.int32)})
    return rows


def seen(rows: list[Rows], index: int) -> list[tuple[int, float, set[str]]]:
    """Count, reward and flags of one environment."""
    assert all(row.mask is None for row in rows)
    return [
        (
            int(row.obs["steps"][index, 0]),
            float(row.reward[index]),
            {k for k, flag in zip((F, L, T), row[2:5], strict=True) if flag[index]},
        )
        for row in rows
    ]


def test_rows_restart_after_an_end_and_ignore_the_action_there(counters: JaxVectorEnv) -> None:
    # After an end the action does not count: 1 and 3 there must do nothing.
    rows = play(counters, [[0, 1, 1, 0, 2, 3, 0], [0, 0, 0, 0, 0, 0, 1]])
    assert seen(rows, 0) == [
        (0, 0, {F}), (1, 1, set()), (2, 2, {L, T}),
        (0, 0, {F}), (1, 1, set()), (2, 2, {L}),
        (0, 0, {F}), (1, 1, set()),
    ]  # fmt: skip
    assert seen(rows, 1) == [(0, 0, {F}), *((n, n, set()) for n in range(1, 7)), (7, 7, {L, T})]
    assert [env_steps(row) for row in rows] == [0, 2, 2, 1, 2, 2, 1, 2]
    for row in rows:
        assert row.obs["steps"].dtype == np.float32
        assert row.obs["small"].dtype == np.int32
        assert row.reward.dtype == np.float32
        assert {flag.dtype for flag in row[2:5]} == {np.dtype(bool)}


def test_a_time_limit_truncates_and_an_end_in_the_same_step_still_terminates(limited: JaxVectorEnv) -> None:
    rows = play(limited, [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0]])
    assert seen(rows, 0) == [
        (0, 0, {F}), (1, 1, set()), (2, 2, set()), (3, 3, {L}), (0, 0, {F}), (1, 1, set())
    ]  # fmt: skip
    assert seen(rows, 1)[3] == (3, 3, {L, T})


def test_repeated_actions_sum_rewards_and_stop_at_the_end() -> None:
    rows = play(JaxVectorEnv(Counter(time_limit=5), 2, action_repeat=2), [[0, 0, 0, 0], [0, 1, 0, 0]])
    assert seen(rows, 0) == [(0, 0, {F}), (2, 3, set()), (4, 7, set()), (5, 5, {L}), (0, 0, {F})]
    assert seen(rows, 1) == [(0, 0, {F}), (2, 3, set()), (3, 3, {L, T}), (0, 0, {F}), (2, 3, set())]


def test_it_compiles_once_although_reset_and_step_differ_in_weak_types(counters: JaxVectorEnv) -> None:
    for seed in range(2):
        counters.reset(seed)
        for number in range(12):
            counters.step({"do": jnp.asarray([0, number % 3], jnp.int32)})
    assert counters.env.traces == 1  # type: ignore[attr-defined]


def test_episodes_start_from_keys_of_their_own(limited: JaxVectorEnv) -> None:
    def starts(seed: int) -> list[list[int]]:
        limited.reset(seed)
        out = []
        for _ in range(3):
            out.append(np.asarray(limited._carry[1]["seed"]).tolist())
            for _ in range(4):  # ends by the limit and restarts
                limited.step({"do": np.zeros(2, np.int32)})
        return out

    first = starts(0)
    assert len({x for row in first for x in row}) == 6
    assert first == starts(0)
    assert first != starts(1)


def test_nan_is_a_fault_that_names_the_environment(counters: JaxVectorEnv) -> None:
    counters.reset(0)
    with pytest.raises(EnvironmentFault, match="environment Counter gave NaN or infinity in 'reward'"):
        counters.step({"do": np.array([0, 3], np.int32)})


# Faults: action 3 of Counter breaks a step, and the mask of Drift may leave nothing to do


def test_a_faulty_row_shows_the_last_good_one_and_is_cut() -> None:
    env = JaxVectorEnv(Counter(), 2, max_faults=2)
    rows = play(env, [[0, 0, 3, 0, 0, 3, 1, 1], [0] * 8])
    assert seen(rows, 0) == [
        (0, 0, {F}), (1, 1, set()), (2, 2, set()), (2, 0, {L}), (0, 0, {F}),
        (1, 1, set()), (1, 0, {L}), (0, 0, {F}), (1, 1, {L, T}),
    ]  # fmt: skip
    assert seen(rows, 1) == [(0, 0, {F}), *((n, n, set()) for n in range(1, 9))]
    assert env.faults == 2 and env.faults_of(env._carry).in_a_row.tolist() == [0, 0]
    assert env.env.traces == 1  # type: ignore[attr-defined]


def test_rows_without_a_fault_do_not_know_of_them() -> None:
    actions = [[0, 0, 0, 1, 0, 0], [0, 3, 0, 0, 2, 0], [0, 0, 2, 0, 0, 0]]
    rows = play(JaxVectorEnv(Counter(), 3, max_faults=2), actions)
    clean = play(JaxVectorEnv(Counter(), 3, max_faults=2), [actions[0], [0] * 6, actions[2]])
    assert [seen(rows, i) for i in (0, 2)] == [seen(clean, i) for i in (0, 2)]


def test_faults_in_a_row_end_the_run_with_a_sentence() -> None:
    env = JaxVectorEnv(Counter(), 2, max_faults=2)
    env.reset(0)
    with pytest.raises(EnvironmentFault) as caught:
        for step in range(20):
            env.step({"do": np.array([0, 3 * (step % 3 == 2)], np.int32)})
    assert env.faults == 3
    assert str(caught.value) == (
        "The environment Counter gave NaN or infinity in 'reward' (environment 1), 3 times in a row with no "
        "episode in between that ended by itself (env.max_faults=2): mend its step."
    )
    assert env.get_state() is None
    env.reset(0)
    assert env.faults == 3 and env.last_fault.endswith("'reward' (environment 1)")
    for step in range(6):
        env.step({"do": np.array([0, 3 * (step % 3 == 2)], np.int32)})
    assert env.faults == 5


def test_a_count_that_ended_a_run_begins_anew_from_its_state() -> None:
    env = JaxVectorEnv(Counter(), 2, max_faults=1)
    env.reset(0)
    env.step({"do": np.array([0, 3], np.int32)})
    state = env.get_state()
    assert state is not None and env.last_fault.endswith("gave NaN or infinity in 'reward' (environment 1)")
    for limit, expected in ((1, [0, 1]), (0, [0, 0])):
        other = JaxVectorEnv(Counter(), 2, max_faults=limit)
        other.set_state(state)
        assert other.faults == 1 and other.faults_of(other._carry).in_a_row.tolist() == expected
        assert not other.failed(other._carry)


def test_what_is_faulty_from_the_first_reset_on_is_not_tried_again() -> None:
    class Lost(Counter):
        def observe(self, steps: Any) -> dict[str, Any]:
            return {**super().observe(steps), "steps": jnp.full(1, jnp.nan)}

    with pytest.raises(
        EnvironmentFault, match=r"Lost gave NaN or infinity in 'steps' \(environment 0\): mend its step"
    ):
        JaxVectorEnv(Lost(), 2, max_faults=5).reset(0)


def test_a_later_reset_that_is_faulty_is_an_episode_without_steps() -> None:
    class Sometimes(Counter):
        def reset(self, key: Any) -> tuple[Any, dict[str, Any]]:
            state, obs = super().reset(key)
            return state, {**obs, "steps": jnp.where(state["seed"] % 2 == 0, jnp.nan, obs["steps"])}

    env = JaxVectorEnv(Sometimes(), 1, max_faults=9)
    for seed in range(20):
        try:
            (rows,) = env.reset(seed)
        except EnvironmentFault:
            continue
        for _ in range(30):
            (rows,) = env.step({"do": np.ones(1, np.int32)})
            assert np.isfinite(rows.obs["steps"]).all()
            if rows.is_first[0] and rows.is_last[0]:
                assert not rows.is_terminal[0] and rows.reward[0] == 0
                return
    raise AssertionError("no reset failed")


def test_a_mask_that_leaves_nothing_restarts_its_environment() -> None:
    class Stuck(Drift):
        def observe(self, state: Any) -> dict[str, Any]:
            none = jnp.zeros(2, bool)
            return super().observe(state) | {"action_mask/stop": jnp.where(state[1] == 2, none, ~none)}

    env = JaxVectorEnv(Stuck(), 1, max_faults=1)
    env.reset(0)
    action = {"push": np.zeros((1, 2), np.float32), "stop": np.zeros(1, np.int32)}
    before, fault, after = (env.step(action)[0] for _ in range(3))
    np.testing.assert_array_equal(fault.obs["place"], before.obs["place"])
    assert fault.is_last[0] and not fault.is_terminal[0] and after.is_first[0]
    assert fault.obs["action_mask/stop"].all() and env.faults == 1
    assert env.last_fault.startswith("The mask 'action_mask/stop' of Stuck leaves no legal action")


def test_environments_are_told_from_other_things() -> None:
    assert isinstance(Catch(), JaxEnv)
    assert isinstance(Counter(), JaxEnv)
    assert not isinstance(object(), JaxEnv)


def catch_policy(image: np.ndarray) -> np.ndarray:
    """Move the middle of the paddle under the ball."""
    actions = []
    for picture in image.astype(int):
        ball = np.argwhere((picture == [250, 220, 60]).all(-1))[0][1] // 2
        paddle = np.argwhere((picture[-1] == [80, 200, 120]).all(-1))[0][0] // 2
        actions.append(1 + np.sign(ball - paddle - 1))
    return np.array(actions, np.int32)


def catch(env: VectorEnv, calls: int, policy: Callable[[np.ndarray], np.ndarray]) -> list[Rows]:
    (rows,) = env.reset(0)
    out = [rows]
    for _ in range(calls):
        (rows,) = env.step({"action": policy(rows.obs["image"])})
        out.append(rows)
    return out


def test_catch_rewards_every_caught_ball_and_is_cut_after_the_last(catch_env: VectorEnv) -> None:
    rows = catch(catch_env, 15, catch_policy)
    rewards = np.stack([row.reward for row in rows])
    assert rewards[:15].sum(0).tolist() == [2, 2, 2]
    assert np.flatnonzero(rewards[:, 0]).tolist() == [7, 14]
    assert [row.is_last.all() for row in rows] == [step == 14 for step in range(16)]
    assert not any(row.is_terminal.any() for row in rows)
    assert rows[15].is_first.all()


def test_a_missed_ball_ends_the_episode_of_catch() -> None:
    env = make_env(EnvConfig(id="toy:catch", num_envs=16, kwargs={"balls": 2}))
    # The paddle stays in the left corner: what lands in the three cells there is caught, at step 7.
    rows = catch(env, 8, lambda image: np.zeros(len(image), np.int32))
    landed = rows[7]
    missed = landed.reward == -1
    assert 0 < missed.sum() < 16 and (landed.reward[~missed] == 1).all()
    columns = [np.argwhere((image[-1] == [250, 220, 60]).all(-1)) for image in landed.obs["image"]]
    assert all((column >= 6).all() and len(column) == 2 for column in np.array(columns, object)[missed])
    assert landed.is_terminal.tolist() == landed.is_last.tolist() == missed.tolist()
    assert rows[8].is_first.tolist() == missed.tolist()
    assert not any(row.is_last.any() for row in rows[:7])


def test_catch_shows_one_ball_and_one_paddle(catch_env: VectorEnv) -> None:
    for rows in catch(catch_env, 14, catch_policy):
        image = rows.obs["image"]
        assert image.dtype == np.uint8
        assert image.shape == (3, 16, 16, 3)
        assert (image == np.array([250, 220, 60])).all(-1).sum((1, 2)).tolist() == [4, 4, 4]
        assert set((image == np.array([80, 200, 120])).all(-1).sum((1, 2)).tolist()) == {12}


def test_a_cartpole_of_gymnax_that_is_cut_is_not_terminal() -> None:
    pytest.importorskip("gymnax")
    env = make_env(EnvConfig(id="gymnax:CartPole-v1", num_envs=2))
    assert env.env.time_limit == 500  # type: ignore[attr-defined]
    env.env.time_limit = 20  # type: ignore[attr-defined]
    (rows,) = env.reset(0)
    flags = []
    for _ in range(21):  # the first balances by the pole's tilt and its speed, the second falls over
        x, speed, tilt, turn = rows.obs["obs"][0]
        balance = int(3 * tilt + turn + 0.1 * x + 0.2 * speed > 0)
        (rows,) = env.step({"action": np.array([balance, 0], np.int32)})
        flags.append(np.stack(rows[2:5], -1).tolist())
    assert flags[19][0] == [False, True, False]
    assert flags[20][0] == [True, False, False]
    assert [last for _, last, _ in (flag[0] for flag in flags)].count(True) == 1
    assert [False, True, True] in [flag[1] for flag in flags]


def test_a_pendulum_of_gymnax_gets_actions_in_its_own_bounds() -> None:
    pytest.importorskip("gymnax")
    env = make_env(EnvConfig(id="gymnax:Pendulum-v1", num_envs=4))
    assert env.act_specs["action"] == ArraySpec("continuous", (1,))
    (before,) = env.reset(0)
    raw = np.array([-1, 0, 0.5, 3], np.float32)
    (after,) = env.step({"action": raw[:, None]})
    cos, sin, speed = before.obs["obs"].T
    torque = np.array([-2, 0, 1, 2])  # the action times two, clipped at one before
    expected = np.clip(speed + (3 * 10 / 2 * sin + 3 * torque) * 0.05, -8, 8)
    np.testing.assert_allclose(after.obs["obs"][:, 2], expected, rtol=1e-4, atol=1e-5)
    cost = np.arctan2(sin, cos) ** 2 + 0.1 * speed**2 + 0.001 * torque**2
    np.testing.assert_allclose(after.reward, -cost, rtol=1e-4)


@pytest.fixture(scope="module")
def drifts() -> JaxVectorEnv:
    return JaxVectorEnv(Drift(noise=0.0), 2)


def test_continuous_actions_arrive_between_minus_one_and_one(drifts: JaxVectorEnv) -> None:
    (before,) = drifts.reset(0)
    push = np.array([[3, -0.5], [-7, 1]], np.float32)
    (after,) = drifts.step({"push": push, "stop": np.zeros(2, np.int32)})
    moved = after.obs["place"] - before.obs["place"]
    np.testing.assert_allclose(moved, np.clip(push, -1, 1), atol=1e-6)


def test_masks_are_integers_and_belong_to_their_rows(drifts: JaxVectorEnv) -> None:
    rows = drifts.reset(0)
    for stop in ([0, 0], [0, 1], [0, 0]):
        rows += drifts.step({"push": np.zeros((2, 2), np.float32), "stop": np.array(stop, np.int32)})
    masks = [row.obs["action_mask/stop"] for row in rows]
    assert {mask.dtype for mask in masks} == {np.dtype(np.int32)}
    assert [mask[:, 1].tolist() for mask in masks] == [[0, 0], [1, 1], [1, 1], [1, 0]]


def test_masks_that_leave_nothing_are_a_fault_only_while_the_episode_goes_on() -> None:
    class Stuck(Drift):
        def observe(self, state: Any) -> dict[str, Any]:
            none = jnp.zeros(2, bool)
            return super().observe(state) | {"action_mask/stop": jnp.where(state[1] >= 2, none, ~none)}

    def play(stop: int) -> Rows:
        env = JaxVectorEnv(Stuck(), 1)
        env.reset(0)
        for action in (0, stop):
            (rows,) = env.step({"push": np.zeros((1, 2), np.float32), "stop": np.array([action], np.int32)})
        return rows

    assert play(1).obs["action_mask/stop"].tolist() == [[0, 0]]
    with pytest.raises(EnvironmentFault, match="'action_mask/stop' of Stuck leaves no legal action"):
        play(0)


def test_masked_actions_are_not_repeated() -> None:
    with pytest.raises(ConfigError, match="repeated 2 times"):
        JaxVectorEnv(Drift(), 1, action_repeat=2)


def test_worlds_are_made_only_where_an_episode_ended():
    made = []

    class Made(Counter):
        def reset(self, key: Any) -> tuple[Any, dict[str, Any]]:
            jax.debug.callback(lambda: made.append(1))
            return super().reset(key)

    env = JaxVectorEnv(Made(), 2)
    env.reset(0)
    counts = []
    for action in (0, 1, 0, 0):
        env.step({"do": np.array([0, action])})
        jax.effects_barrier()
        counts.append(len(made))
    # The second env ends in the second step and is reset, with all others, in the third.
    assert counts[0] == counts[1] < counts[2] == counts[3]
