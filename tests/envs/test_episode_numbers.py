"""What environments report of an episode, through every autoreset mode and from processes of their own."""

from __future__ import annotations

import re
import warnings
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from dreamer_agent.envs import Rows
from dreamer_agent.envs.episode_numbers import EpisodeNumbers, Unfit, numbers_of
from dreamer_agent.envs.gymnasium_adapter import CheckedEnv, GymnasiumEnv, make_vector
from tests.envs.faulty import Faulty
from tests.envs.test_gymnasium_adapter import MODES

LENGTHS = (2, 3, 5)


class Reporting(gym.Env):
    """Episodes of `length` steps; the last one reports `reports[n]` of episode n, and every other step a trap.

    The info of a reset holds the trap, too: nothing of it is a number of an episode.
    """

    observation_space = spaces.Box(0, 1000, (2,), np.float32)
    action_space = spaces.Discrete(2)
    trap: dict[str, Any] = {"episode_numbers": {"score": -1.0}, "success": -1.0}  # noqa: RUF012

    def __init__(self, length: int, reports: list[dict[str, Any]]):
        self.length, self.reports, self.episode = length, reports, -1

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.episode, self.steps = 0 if seed is not None else self.episode + 1, 0
        return self.observe(), dict(self.trap)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.steps += 1
        ended = self.steps == self.length
        info = self.reports[self.episode % len(self.reports)] if ended else self.trap
        return self.observe(), 0.0, ended and self.episode % 2 == 0, ended and self.episode % 2 == 1, dict(info)

    def observe(self) -> np.ndarray:
        return np.array([self.episode, self.steps], np.float32)


def reports(length: int) -> list[dict[str, Any]]:
    """Three forms in turn: both keys; a flag alone, the older one; nothing."""
    return [
        {"episode_numbers": {"score": 10.0 * length, f"only/{length}": np.float32(0.5)}, "success": True},
        {"is_success": np.float32(0.0)},
        {},
    ]


def of_episodes(rows: list[Rows]) -> list[list[dict[str, float]]]:
    """What each environment reported of its episodes, in order; nothing is reported elsewhere."""
    out: list[list] = [[] for _ in rows[0].reward]
    for row in rows:
        present = np.ones(len(out), bool) if row.mask is None else row.mask
        for name, values in (row.numbers or {}).items():
            assert values.shape == (len(out),) and values.dtype == np.float64
            assert np.isnan(values[~(present & row.is_last)]).all(), name
        for index in np.flatnonzero(present & row.is_last):
            numbers = {name: values[index] for name, values in (row.numbers or {}).items()}
            out[index].append({name: float(x) for name, x in numbers.items() if not np.isnan(x)})
    return out


def rows_of(env: GymnasiumEnv, calls: int = 24) -> list[Rows]:
    rows = env.reset(0)
    for _ in range(calls):
        rows += env.step({"action": np.zeros(env.num_envs, np.int32)})
    env.close()
    return rows


def assert_reported(rows: list[Rows]) -> None:
    for length, episodes in zip(LENGTHS, of_episodes(rows), strict=True):
        first = {"score": 10.0 * length, f"only/{length}": 0.5, "success": 1.0}
        assert len(episodes) >= 4
        assert episodes[:4] == [first, {"success": 0.0}, {}, first]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("checked", [True, False])
def test_every_autoreset_mode_gives_the_same_numbers(mode: AutoresetMode, checked: bool) -> None:
    def one(length: int) -> gym.Env:
        env = Reporting(length, reports(length))
        return CheckedEnv(env) if checked else env

    vector = SyncVectorEnv([partial(one, length) for length in LENGTHS], autoreset_mode=mode)
    assert_reported(rows_of(GymnasiumEnv(vector)))


def test_gymnasiums_processes_give_the_same_numbers() -> None:
    makers = [partial(Reporting, length, reports(length)) for length in LENGTHS]
    vector = AsyncVectorEnv(makers, context="spawn", autoreset_mode=AutoresetMode.SAME_STEP)
    assert_reported(rows_of(GymnasiumEnv(vector)))


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_environments_of_ours_give_the_same_numbers_wherever_they_are(processes: int) -> None:
    makers = [partial(Reporting, length, reports(length)) for length in LENGTHS]
    assert_reported(rows_of(make_vector(makers, 1, None, 0, processes)))


def test_a_repeated_action_reports_what_the_step_that_ended_it_does() -> None:
    makers = [partial(Reporting, length, reports(length)) for length in LENGTHS]
    assert_reported(rows_of(make_vector(makers, 2)))


class Older(gym.vector.VectorEnv):
    """A vector environment of one step an episode, whose infos of last steps are a list, one for each."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012
    single_observation_space, single_action_space = spaces.Box(0, 1, (1,)), spaces.Discrete(2)
    num_envs = 2

    def __init__(self, infos: Any):
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, 2)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, 2)
        self.infos = infos

    def reset(self, **_: Any) -> tuple[Any, dict]:
        return np.zeros((2, 1), np.float32), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict]:
        obs = np.zeros((2, 1), np.float32)
        ended = np.array([True, False])
        return obs, np.zeros(2), ended, np.zeros(2, bool), {"final_obs": [obs[0], None], "final_info": self.infos}


def test_last_infos_one_by_one_are_read() -> None:
    last, first = GymnasiumEnv(Older([{"success": 1, "episode_numbers": {"score": 3}}, None])).step(
        {"action": np.zeros(2, np.int32)}
    )
    assert last.numbers is not None and first.numbers is None
    np.testing.assert_array_equal(last.numbers["success"], [1.0, np.nan])
    np.testing.assert_array_equal(last.numbers["score"], [3.0, np.nan])


def test_a_number_for_all_environments_together_belongs_to_none() -> None:
    env = GymnasiumEnv(Older({"success": 0.5}))
    with pytest.warns(
        UserWarning, match=r"as 'success' is left out, since it is of the type float for 2 environments"
    ):
        last, _ = env.step({"action": np.zeros(2, np.int32)})
    assert last.numbers is None


def test_what_is_reported_by_name_comes_before_flags() -> None:
    assert numbers_of({"is_success": 0, "success": 1}) == {"success": 1.0}
    assert numbers_of({"success": 1, "episode_numbers": {"success": 0.25}}) == {"success": 0.25}
    assert numbers_of({"is_success": None, "episode_numbers": None, "score": 3.0}) == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, 1.0), (np.bool_(False), 0.0), (3, 3.0), (np.uint8(7), 7.0), (np.float32(0.5), 0.5),
        (np.ones((1, 1)), 1.0), (-1e300, -1e30),
    ],
)  # fmt: skip
def test_numbers_of_any_type_are_taken(value: Any, expected: float) -> None:
    (number,) = numbers_of({"episode_numbers": {"x": value}}).values()
    assert type(number) is float and number == expected


BAD = [
    ("abc", "a text"), (np.zeros(3), r"an array of the shape \[3\]"), ([1, 2], r"an array of the shape \[2\]"),
    (np.nan, "NaN or infinity"), (-np.inf, "NaN or infinity"), (None, "of the type NoneType"),
    ({"y": 1}, "of the type dict"), ([[1], [1, 2]], "of the type list"), (10**400, "of the type int"),
]  # fmt: skip


@pytest.mark.parametrize("processes", [0, 1])
def test_what_is_no_number_is_left_out_with_one_warning_and_ends_nothing(processes: int) -> None:
    report = {
        "episode_numbers": {f"bad{i}": value for i, (value, _) in enumerate(BAD)} | {"return": 3, "good": 4}
    }
    maker = partial(Reporting, 2, [report])
    env = make_vector([maker], 1, None, 5, processes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = rows_of(env, 12)
    assert of_episodes(rows) == [[{"good": 4.0}] * 4]
    assert env.faults == 0
    told = "\n".join(str(one.message) for one in caught)
    assert len(caught) == len(BAD) + 1, told
    for i, (_, words) in enumerate(BAD):
        expected = (
            rf"'bad{i}' is left out, since it is {words}, not one finite number: mend its info\['episode_num"
        )
        assert re.search(expected, told), told
    assert "'return' is left out, since it has a name that the run itself uses" in told


def test_what_is_no_dict_is_told() -> None:
    told = numbers_of({"episode_numbers": ["score", 1.0]})
    assert told == {"episode_numbers": Unfit("is of the type list, not a dict of numbers")}
    with pytest.warns(
        UserWarning, match=r"'episode_numbers' is left out, since it is of the type float, not a dict"
    ):
        assert EpisodeNumbers(1).read([{"episode_numbers": 1.0}], np.ones(1, bool)) is None


def test_an_episode_that_a_fault_cuts_reports_nothing(tmp_path: Any) -> None:
    class Told(Faulty):
        def step(self, action: Any) -> Any:
            *row, info = super().step(action)
            return (*row, info | {"success": True})

    env = make_vector([partial(Told, str(tmp_path / "env"), {"raise": [3]})], 1, None, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (episodes,) = of_episodes(rows_of(env, 24))
    assert env.faults == 1
    assert episodes[0] == {} and episodes[1:] == [{"success": 1.0}] * len(episodes[1:]) and len(episodes) >= 3


def test_ragged_and_flagless_infos_of_a_vector_environment_are_told_or_read() -> None:
    ended = np.ones(2, bool)
    with pytest.warns(UserWarning, match="reports of an episode as 'a' is left out"):
        found = EpisodeNumbers(2).read({"episode_numbers": {"a": [[1.0], [1.0, 2.0]]}}, ended)
    assert found is not None
    np.testing.assert_equal(found["a"], [1.0, np.nan])
    with pytest.warns(UserWarning, match=r"is of the type list|is an array of the shape"):
        assert EpisodeNumbers(2).read({"episode_numbers": {"a": [1.0, 2.0, 3.0]}}, ended) is None
    with pytest.warns(UserWarning, match="for 2 environments together") as said:
        assert EpisodeNumbers(2).read({"episode_numbers": np.float32(3.0)}, ended) is None
    assert "Unfit" not in str(said[0].message)
    found = EpisodeNumbers(2).read({"success": np.array([1.0, 0.0]), "_success": None}, ended)
    assert found is not None and found["success"].tolist() == [1.0, 0.0]
