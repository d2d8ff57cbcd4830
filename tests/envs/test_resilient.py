"""Environments that fail: they are restarted, their episodes cut, and the others do not notice."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import Rows, make_env, resilient, source_of
from dreamer_agent.envs.checked import CheckedEnv
from dreamer_agent.envs.gymnasium_adapter import GymnasiumEnv, make_vector
from dreamer_agent.errors import EnvironmentFault
from dreamer_agent.interrupt import REQUEUE
from tests.envs.faulty import CRASHES, KINDS, LENGTH, Faulty
from tests.envs.masked_envs import Picky
from tests.envs.test_checked import Everything

TIMEOUT = 20.0


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before restarts, which are not made."""
    made: list[float] = []

    class Clock:
        sleep = staticmethod(made.append)

    monkeypatch.setattr(resilient, "time", Clock)
    return made


def faulty(
    folder: Path, *plans: dict[str, Any], max_faults: int = 5, processes: int = 0, timeout: float = TIMEOUT
) -> GymnasiumEnv:
    makers = [partial(Faulty, str(folder / f"env{i}"), plan) for i, plan in enumerate(plans)]
    return make_vector(makers, 1, None, max_faults, processes, timeout)


def play(env: Any, calls: int, seed: int = 3) -> list[Rows]:
    rows, rng = env.reset(seed), np.random.default_rng(0)
    for _ in range(calls):
        rows += env.step(random_actions(env, rng))
    return rows


def random_actions(env: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        key: rng.integers(0, spec.classes, (env.num_envs, *spec.shape), np.int32)
        if spec.kind == "discrete"
        else rng.uniform(-1, 1, (env.num_envs, *spec.shape)).astype(np.float32)
        for key, spec in env.act_specs.items()
    }


def assert_same(a: list[Rows], b: list[Rows], index: Any = slice(None)) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        for key in x.obs:
            assert x.obs[key].dtype == y.obs[key].dtype
            np.testing.assert_array_equal(x.obs[key][index], y.obs[key][index])
        for one, other in zip(x[1:5], y[1:5], strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one[index], other[index])


# Without faults


def in_spaces() -> gym.Env:
    env = Everything(3)
    env.observation_space = deepcopy(env.observation_space)  # its random numbers are the observations
    return env


def masked(where: str) -> gym.Env:
    return Picky("dict", where, 4, 1)


SOUND: dict[str, Callable[[], gym.Env]] = {
    "CartPole": partial(gym.make, "CartPole-v1"),
    "Pendulum": partial(gym.make, "Pendulum-v1", max_episode_steps=20),
    "every_space": in_spaces,
}


@pytest.mark.parametrize("processes", [0, 1, 2], ids=["here", "together", "apart"])
@pytest.mark.parametrize("name", SOUND)
def test_rows_are_those_of_gymnasiums_own_vector_environment(name: str, processes: int) -> None:
    reference = GymnasiumEnv(SyncVectorEnv([lambda: CheckedEnv(SOUND[name](), 2)] * 2))
    env = make_vector([SOUND[name]] * 2, 2, processes=processes)
    for seed in (5, 6):
        assert_same(play(env, 60, seed), play(reference, 60, seed))
    assert env.faults == 0 and env.last_fault == ""
    env.close()


@pytest.mark.parametrize("where", ["info", "obs"])
def test_masks_come_through_processes(where: str) -> None:
    env, reference = (make_vector([partial(masked, where)], 1, processes=count) for count in (1, 0))
    rng, pending = np.random.default_rng(0), [env.reset(0), reference.reset(0)]
    assert "action_mask/move" in env.obs_specs
    for _ in range(12):
        assert_same(*pending)
        (rows,) = pending[0]
        actions = random_actions(env, rng)
        for key in ("move", "press"):
            actions[key] = (rows.obs[f"action_mask/{key}"] * rng.random()).argmax(-1).astype(np.int32)
        pending = [env.step(actions), reference.step(actions)]  # Picky asserts that every action is legal
    env.close()


def test_what_is_configured_arrives() -> None:
    config = EnvConfig(id="CartPole-v1", num_envs=1, processes=1, timeout=7, max_faults=3)
    env: Any = make_env(config)
    assert env.env.max_faults == 3 and env.env.slots[0].host.timeout == 7
    env.close()
    env = make_env(EnvConfig(id="CartPole-v1", num_envs=1, kwargs={"render_mode": "rgb_array"}))
    env.reset(0)
    assert env.env.envs[0].name == "CartPole-v1" and env.env.metadata["render_fps"] == 50
    env = make_env(EnvConfig(id="toy:catch", max_faults=4))
    assert env.max_faults == 4


class Drawn(Faulty):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012
    render_mode = "rgb_array"

    def render(self) -> Any:
        return np.full((4, 5, 3), self.steps, np.uint8)


@pytest.mark.parametrize("processes", [0, 2], ids=["here", "elsewhere"])
def test_pictures_come_from_where_the_environment_is(processes: int, tmp_path: Path) -> None:
    env: Any = make_vector([partial(Drawn, str(tmp_path / "env"), {"raise": [4]})], 1, None, 5, processes)
    env.reset(0)
    shown = []
    for _ in range(5):
        env.step({"action": np.zeros(1, np.int32)})
        shown.append(int(env.env.render()[0].max()))
    assert shown == [1, 2, 3, 3, 0]  # of one that failed, the picture before
    assert env.env.metadata["render_fps"] == 12 and env.env.render_mode == "rgb_array"
    env.close()


# With faults


@pytest.mark.parametrize("processes", [0, 3], ids=["here", "elsewhere"])
def test_the_others_go_on_untouched(processes: int, tmp_path: Path) -> None:
    kinds = (*KINDS[:2], *CRASHES) if processes else KINDS
    plan = {kind: [3 + 9 * number] for number, kind in enumerate(kinds)}
    (tmp_path / "clean").mkdir()
    clean = play(faulty(tmp_path / "clean", {}, {}, {}), 60)
    env = faulty(tmp_path, {}, plan, {}, max_faults=1, processes=processes, timeout=2.0)
    rows = play(env, 60)
    assert_same(clean, rows, [0, 2])
    assert env.faults == len(kinds)
    lasts = [(bool(row.is_last[1]), bool(row.is_terminal[1])) for row in rows]
    faults = [
        i
        for i in range(1, 61)
        if rows[i].is_last[1]
        and rows[i].reward[1] == 0
        and all(np.array_equal(rows[i].obs[key][1], rows[i - 1].obs[key][1]) for key in rows[i].obs)
    ]
    assert len(faults) == len(kinds) and all(lasts[i] == (True, False) for i in faults)
    for row, after in pairwise(rows):
        assert after.is_first[1] == row.is_last[1]
    first = faults[0]
    assert_same(clean[:first], rows[:first])
    starts = {tuple(row.obs["numbers"][1]) for row in rows if row.is_first[1]}
    assert len(starts) == sum(row.is_first[1] for row in rows)  # each restart has a seed of its own
    env.close()


def test_a_restart_repeats_itself(tmp_path: Path) -> None:
    plan = {"raise": [4, 20], "reset": [4], "make": [2]}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert_same(*(play(faulty(tmp_path / name, {}, plan), 40) for name in "ab"))


@pytest.mark.parametrize("processes", [0, 2], ids=["here", "elsewhere"])
def test_what_keeps_failing_ends_the_run_with_a_sentence(
    processes: int, tmp_path: Path, pauses: list[float]
) -> None:
    env = faulty(tmp_path, {}, {"raise": range(9, 99), "close": [1]}, max_faults=3, processes=processes)
    with pytest.raises(EnvironmentFault) as caught:
        play(env, 40)
    message = str(caught.value)
    assert message.startswith("Environment 1 (Faulty) failed 4 times in a row, with no episode in between")
    assert (
        "(env.max_faults=3); the last time: " in message
        and "ValueError: the arm fell off (faulty.py, line" in message
    )
    assert (
        "`dreamer-agent check`" in message
        and f"env.processes={'0 to see' if processes else '2 to be told'}" in message
    )
    assert "\n" not in message and message.endswith(".") and ".." not in message
    assert pauses == [0.0, 0.1, 0.2]
    assert env.get_state() is None and "failed in the middle of a step" in (env.why_no_state() or "")
    (rows,) = env.reset(0)  # from here on as if it were new
    assert rows.is_first.all()
    if processes:
        env.close()


def test_pauses_grow_to_a_limit() -> None:
    assert [resilient._pause(times) for times in (0, 1, 2, 3, 4, 7, 8, 9, 10**6)] == [
        0, 0, 0.1, 0.2, 0.4, 3.2, 5, 5, 5
    ]  # fmt: skip


def test_an_episode_that_ends_by_itself_forgives(tmp_path: Path) -> None:
    once_per_episode = [3 + (3 + LENGTH) * number for number in range(6)]
    env = faulty(tmp_path, {"raise": once_per_episode}, max_faults=1)
    play(env, 80)
    assert env.faults == 6


def test_resets_and_constructors_are_tried_again(tmp_path: Path, pauses: list[float]) -> None:
    env = faulty(tmp_path, {"reset": [3, 4], "make": [3]}, max_faults=3)
    rows = play(env, 12)  # its first reset was to see whether it masks actions
    # The reset of the second episode fails; so does that of the one made instead, and the next is not even made.
    assert env.faults == 3 and pauses == [0.0, 0.1, 0.2]
    assert [i for i, row in enumerate(rows) if row.is_first[0]] == [0, LENGTH + 1]
    assert [i for i, row in enumerate(rows) if row.is_last[0]] == [LENGTH]
    assert "environment 0 (Faulty): it raised OSError: the simulator did not start" in env.last_fault


@pytest.mark.parametrize("plan", [{"reset": [1]}, {"raise": [1]}, {"make": [1]}, {"nan": [1]}])
def test_what_is_broken_from_the_start_is_not_tried_again(plan: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises((EnvironmentFault, RuntimeError, ValueError, OSError)) as caught:
        play(faulty(tmp_path, {}, plan), 3)
    assert "in a row" not in str(caught.value)


def test_nothing_is_mended_where_that_is_asked_for(tmp_path: Path) -> None:
    env = faulty(tmp_path, {"raise": [12]}, max_faults=0)
    with pytest.raises(ValueError, match="the arm fell off"):
        play(env, 20)
    assert env.faults == 1


def test_a_borrowed_environment_is_reset_but_neither_closed_nor_made_again(tmp_path: Path) -> None:
    mine = Faulty(str(tmp_path / "mine"), {"raise": [4]})
    env = source_of(mine).make(EnvConfig(max_faults=1), 1)
    rows = play(env, 9)
    assert env.faults == 1 and not mine.closed
    assert [bool(row.is_last[0]) for row in rows[:6]] == [False] * 4 + [True, False]
    assert rows[5].is_first[0]


def test_a_mask_that_leaves_nothing_is_a_fault_like_others() -> None:
    class Stuck(Picky):
        stuck = 1

        def mask_of(self, state: int) -> Any:
            mask = super().mask_of(state)
            if self.steps == 2 and Stuck.stuck:
                Stuck.stuck -= 1
                return mask * 0
            return mask

    env = make_vector([lambda: Stuck("discrete", "info", 5, 0)], 1, None, 2)
    pending, ends = env.reset(0), []
    for _ in range(5):
        (rows,) = pending
        pending = env.step({"action": rows.obs["action_mask"].argmax(-1).astype(np.int32)})
        ends.append((bool(pending[0].is_last[0]), bool(pending[0].is_first[0])))
    assert ends == [(False, False), (True, False), (False, True), (False, False), (False, False)]
    assert env.faults == 1 and "leaves no legal action" in env.last_fault


class Elsewhere(gym.Env):
    """Observes or speaks outside of its space."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: gym.Space, good: Any, bad: Any):
        self.observation_space, self.good, self.bad = space, good, bad

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        return self.good, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return self.bad, 0.0, False, False, {}


@pytest.mark.parametrize(
    ("space", "good", "bad"),
    [
        (spaces.Discrete(3, start=2), 4, 5), (spaces.Discrete(3, start=2), 2, 1),
        (spaces.MultiDiscrete([2, 3], start=[1, 0]), [2, 2], [3, 2]),
        (spaces.MultiDiscrete([2, 3]), [1, 0], [1, -1]),
        (spaces.MultiBinary(2), [0, 1], [0, 2]), (spaces.Text(2, charset="ab"), "ba", "bc"),
        (spaces.Text(2, charset="ab"), "ba", "bab"),
    ],
)  # fmt: skip
def test_discrete_values_outside_of_their_space_are_faults(space: gym.Space, good: Any, bad: Any) -> None:
    env = make_vector([lambda: Elsewhere(space, good, bad)], 1)
    env.reset(0)
    with pytest.raises(EnvironmentFault, match=r"the observation of step\(\) should lie in its space"):
        env.step({"action": np.zeros(1, np.int32)})
    env = make_vector([lambda: Elsewhere(space, good, good)], 1)
    play(env, 2)


@pytest.mark.parametrize("kind", ["one-hot", "vector", "mask"])
def test_a_box_that_is_one_hot_is_left_by_a_fault_only(kind: str) -> None:
    """Where it enters as a vector, what lies outside of its bounds does no harm."""
    space, good, bad = spaces.Box(0, 3, (2,), np.int64), np.array([0, 3]), np.array([-1, 4])
    wishes = {"obs": "vector"} if kind == "vector" else None
    if kind == "mask":  # whose form is checked with the actions
        space = spaces.Dict({"action_mask": spaces.Box(0, 1, (2,), np.int8), "obs": spaces.Discrete(1)})
        good, bad = ({"action_mask": np.array(legal), "obs": 0} for legal in ([1, 1], [0, 2]))
    steps = iter([good, bad, *[good] * 9])

    class Leaving(Elsewhere):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
            return next(steps), 0.0, False, False, {}

    env = make_vector([lambda: Leaving(space, good, bad)], 1, wishes, 2)
    rows = play(env, 4)
    assert env.faults == (0 if kind == "vector" else 1)
    assert [bool(row.is_last[0]) for row in rows] == [False, False, kind != "vector", False, False]
    told = {"one-hot": "the observation of step() should lie in its space Box(0, 3, (2,)", "mask": "The mask"}
    assert told.get(kind, "") in env.last_fault


def test_an_environment_that_would_end_this_process_is_at_fault(tmp_path: Path) -> None:
    class Exiting(Faulty):
        code: Any = 3

        def wrong(self, kind: str, obs: Any, reward: float) -> tuple[Any, float]:
            sys.exit(self.code)

        def close(self) -> None:
            sys.exit()

    env = make_vector([partial(Exiting, str(tmp_path / "env"), {"raise": [4]})], 1, None, 2)
    play(env, 9)
    assert env.faults == 1
    assert env.last_fault.endswith("The environment Exiting called sys.exit(3) during its step")
    with pytest.warns(UserWarning, match=r"called sys\.exit\(None\) during its close"):
        env.close()
    Exiting.code = REQUEUE  # as the handler of a signal would
    with pytest.raises(SystemExit):
        play(make_vector([partial(Exiting, str(tmp_path / "other"), {"raise": [4]})], 1, None, 2), 9)


def test_one_that_cannot_be_closed_does_not_keep_the_others_open(tmp_path: Path) -> None:
    env: Any = faulty(tmp_path, {}, {"close": [1]}, {})
    with pytest.warns(UserWarning, match=r"environment 1 \(Faulty\) .*closing is broken, too"):
        env.close()
    assert all(one.unwrapped.closed for one in env.env.envs)


# The state, with what is counted


@pytest.mark.parametrize("processes", [0, 2], ids=["here", "elsewhere"])
def test_the_state_of_what_was_counted_comes_back(processes: int) -> None:
    def made(seed: int) -> Any:
        env: Any = make_vector([partial(gym.make, "CartPole-v1")] * 2, 1, None, 2, processes)
        env.reset(seed)
        return env

    env = made(0)
    rng = np.random.default_rng(1)
    for _ in range(30):
        env.step(random_actions(env, rng))
    env.env.faults, env.env._broken[1], env.env._ended[1], env.done[1] = 4, True, True, True
    env.env._in_a_row[1], env.env._restarts[1] = 1, 3
    state = env.get_state()
    other = made(9)
    other.set_state(state)
    assert other.faults == 4 and state["vector"]["envs"][1] is None
    for _ in range(40):
        actions = random_actions(env, rng)
        assert_same(env.step(actions), other.step(actions))
    env.close()
    other.close()
