"""Crafter, where it is installed: the picture, ends apart from the limit, achievements, training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamer_agent import Dreamer
from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import make_env
from dreamer_agent.envs.suites.crafter import score as crafter_score
from dreamer_agent.envs.suites.crafter import score_of_run
from dreamer_agent.errors import ConfigError, MissingExtraError
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training.metrics import read_metrics
from tests.conftest import TEST_SIZE
from tests.envs.suites.training import assert_trains, played

LIMIT = 20


def test_the_limit_cuts_and_the_same_seed_begins_the_same() -> None:
    pytest.importorskip("crafter")
    env, rows = played("crafter:reward", LIMIT + 1, kwargs={"length": LIMIT})
    assert env.obs_specs == {"obs": ArraySpec("image", (64, 64, 3))}
    assert env.act_specs == {"action": ArraySpec("discrete", (), 17)}
    assert [t for t, row in enumerate(rows) if row.is_last[0]] == [LIMIT]
    assert not rows[LIMIT].is_terminal[0] and rows[LIMIT + 1].is_first[0]
    assert not np.array_equal(rows[0].obs["obs"], rows[LIMIT + 1].obs["obs"])
    assert np.array_equal(env.reset(0)[0].obs["obs"], rows[0].obs["obs"])


def test_a_death_is_terminal() -> None:
    pytest.importorskip("crafter")
    env, _ = played("crafter:reward", 0)
    player: Any = env.env.envs[0].unwrapped.game._player
    player.health = 0
    (row,) = env.step({"action": np.zeros(1, np.int32)})
    assert row.is_terminal[0] and row.is_last[0]


def test_an_unknown_task_is_told() -> None:
    pytest.importorskip("crafter")
    with pytest.raises(ConfigError, match="crafter has no environment 'rewards'"):
        make_env(EnvConfig(id="crafter:rewards"))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "crafter", None)
    with pytest.raises(MissingExtraError, match=r"'crafter' is not installed.*dreamer-agent\[crafter\]"):
        make_env(EnvConfig(id="crafter:reward"))


def test_it_trains(tmp_path: Path) -> None:
    pytest.importorskip("crafter")
    assert_trains("crafter:reward", "crafter", tmp_path, "env.kwargs.size=36", "env.kwargs.length=10")


def test_the_last_step_reports_every_achievement() -> None:
    crafter = pytest.importorskip("crafter")
    env, rows = played("crafter:noreward", LIMIT - 1, kwargs={"length": LIMIT})
    player: Any = env.env.envs[0].unwrapped.game._player
    player.achievements.update(collect_wood=3, wake_up=1)
    (last,) = env.step({"action": np.zeros(1, np.int32)})
    assert last.is_last[0] and all(row.numbers is None for row in rows)
    assert last.numbers is not None
    names = crafter.constants.achievements
    assert set(last.numbers) == {f"achievements/{name}" for name in names} and len(names) == 22
    for name in ("collect_wood", "wake_up"):
        assert last.numbers[f"achievements/{name}"].tolist() == [1.0]
    achieved = sum(last.numbers.values())
    assert achieved[0] == sum(count > 0 for count in player.achievements.values()) >= 2
    env.step({"action": np.zeros(1, np.int32)})
    for _ in range(LIMIT):
        (row,) = env.step({"action": np.zeros(1, np.int32)})
    assert row.numbers is not None and row.numbers["achievements/collect_wood"].tolist() == [0.0]


def numbers(*rates: float, prefix: str = "achievements/") -> dict[str, float]:
    """The first achievements at these rates, the others at none."""
    return {f"{prefix}{i:02d}": rate for i, rate in enumerate([*rates, *[0.0] * (22 - len(rates))])}


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.0] * 22, 0.0),
        ([1.0] * 22, 100.0),
        ([0.5] * 22, 50.0),
        ([1.0], 101 ** (1 / 22) - 1),  # by hand: 0.2334
        ([1.0, 0.01, 0.5], (101 * 2 * 51) ** (1 / 22) - 1),
    ],
)
def test_the_score_is_the_geometric_mean(rates: list[float], expected: float) -> None:
    assert crafter_score({"success": 1.0, **numbers(*rates)}) == pytest.approx(expected, abs=1e-9)


def test_one_achievement_of_all_scores_as_worked_by_hand() -> None:
    # ln 101 = 4.61512; over 22 achievements 0.209778; e to that, less one
    assert crafter_score(numbers(1.0)) == pytest.approx(0.23340, abs=1e-5)


def test_rows_of_a_run_count_by_their_episodes() -> None:
    def row(count: int, *rates: float) -> dict[str, float]:
        return {"step": 10.0 * count, "episode/count": count, **numbers(*rates, prefix="episode/achievements/")}

    rows = [
        {"step": 5, "episode/count": 0},
        row(3, 1.0, 0.0),  # three of three
        {"step": 31, "evaluation/return_mean": 5.0, **numbers(prefix="evaluation/episode/achievements/")},
        {"step": 32, "episode/count": 3},  # none ended
        row(4, 0.0, 0.0),
        row(10, 0.5, 1 / 6),  # three of six, one of six
    ]
    assert score_of_run(rows) == pytest.approx(crafter_score(numbers(6 / 10, 1 / 10)))


def test_numbers_of_something_else_are_refused() -> None:
    with pytest.raises(ConfigError, match="success rates of 22 achievements, named achievements/NAME; got 1:"):
        crafter_score({"achievements/eat_cow": 1.0})
    with pytest.raises(ConfigError, match="got 0"):
        score_of_run([{"step": 5, "episode/count": 1, "episode/return": 3.0}])


def test_a_run_and_an_evaluation_hold_what_the_score_needs(tmp_path: Path) -> None:
    pytest.importorskip("crafter")
    config = [
        *TEST_SIZE, "env.kwargs.size=36", "env.kwargs.length=10", "replay.ratio=1", "replay.prefill=100",
        "env.num_envs=1", "train.log_every=20", "train.eval_envs=1",
    ]  # fmt: skip
    dreamer = Dreamer("crafter:reward", "crafter", config=config, run=tmp_path / "run", quiet=True)
    dreamer.learn(40)
    evaluation = dreamer.evaluate(2)
    dreamer.close()
    rows = read_metrics(tmp_path / "run")
    names = [name for name in rows[-1] if name.startswith("episode/achievements/")]
    assert len(names) == 22 and 0 <= score_of_run(rows) < 20
    assert len(evaluation.numbers) == 2 and 0 <= crafter_score(evaluation.summary()["numbers"]) < 20
