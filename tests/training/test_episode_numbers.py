"""What environments report of episodes: to the rows of metrics, through a resume, and to evaluations."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from dreamer_agent import Dreamer
from dreamer_agent.training import train
from dreamer_agent.training.callbacks import Callback
from dreamer_agent.training.driver import Driver, Episode, mean_numbers
from dreamer_agent.training.evaluate import evaluate
from dreamer_agent.training.loop import HostTrainer
from dreamer_agent.training.metrics import read_metrics
from tests.conftest import small_config
from tests.envs.test_episode_numbers import LENGTHS, MODES, Reporting, reports
from tests.training.test_driver import AGENT, PARAMS, drive


class Quest(gym.Env):
    """Episodes of 3 to 7 steps by chance; success of every other one, a score of every third."""

    observation_space = spaces.Box(0, 1000, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.episode = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.episode, self.left = self.episode + 1, int(self.np_random.integers(3, 8))
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.left -= 1
        info: dict[str, Any] = {"success": self.episode % 2 == 0}
        if self.episode % 3 == 0:
            info["episode_numbers"] = {"score/total": self.np_random.normal()}
        return self.observe(), 1.0, self.left == 0, False, info

    def observe(self) -> np.ndarray:
        return np.array([self.episode, self.left], np.float32)

    def get_state(self) -> Any:
        return {"episode": self.episode, "left": self.left, "random": self.np_random}

    def set_state(self, state: Any) -> None:
        self.episode, self.left, self.np_random = state["episode"], state["left"], state["random"]


CONFIG = small_config(
    "env.id=tests.training.test_episode_numbers:Quest", "env.num_envs=2", "replay.ratio=1", "replay.prefill=1000",
    "train.log_every=25", "train.checkpoint_every=1000", "train.steps=150", "train.eval_episodes=4",
    "train.eval_envs=2", "train.eval_every=100",
)  # fmt: skip


class Watch(Callback):
    """Keeps the episodes; as SIGTERM would, ends the run after env step `stop`."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop, self.episodes = stop, list[Episode]()

    def on_step(self, trainer: Any) -> None:
        if self.stop is not None and trainer.counters.env_steps >= self.stop:
            trainer._interrupt(signal.SIGTERM)

    def on_episode(self, trainer: Any, episode: Episode) -> None:
        self.episodes.append(episode)


def rows_without_clock(folder: Path) -> list[dict[str, Any]]:
    rows = read_metrics(folder)
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "system/"))} for row in rows]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Episode]]:
    folder, watch = tmp_path_factory.mktemp("numbers") / "run", Watch()
    train(CONFIG, folder, quiet=True, callbacks=watch)
    return folder, watch.episodes


def test_rows_hold_the_means_over_the_episodes_that_reported(run: tuple[Path, list[Episode]]) -> None:
    folder, episodes = run
    rows = [row for row in read_metrics(folder) if "episode/count" in row]
    before, scores = 0, 0
    for row in rows:
        ended = episodes[before : int(row["episode/count"])]
        before = int(row["episode/count"])
        assert row["episode/success"] == np.mean([e.numbers["success"] for e in ended])
        told = [e.numbers["score/total"] for e in ended if "score/total" in e.numbers]
        scores += len(told)
        assert ("episode/score/total" in row) == bool(told)
        assert not told or row["episode/score/total"] == np.mean(told)
    assert before == len(episodes) >= 20 and scores >= 6
    assert {e.numbers["success"] for e in episodes} == {0.0, 1.0}


@pytest.mark.parametrize("stop", [40, 43])
def test_a_run_that_was_stopped_and_goes_on_writes_the_same_rows(run: Any, tmp_path: Path, stop: int) -> None:
    with pytest.raises(SystemExit):
        train(CONFIG, tmp_path / "run", quiet=True, callbacks=Watch(stop))
    assert len(read_metrics(tmp_path / "run")) == 1
    trainer = HostTrainer.open(CONFIG, tmp_path / "run", quiet=True)
    assert trainer.whole and trainer.counters.env_steps in (stop, stop + 1)
    trainer.close()
    train(CONFIG, tmp_path / "run", quiet=True)
    assert rows_without_clock(tmp_path / "run") == rows_without_clock(run[0])


def test_numbers_of_rows_that_wait_are_kept(tmp_path: Path) -> None:
    """At one of these steps an episode has just ended whose row the policy has not seen."""
    waiting = 0
    trainer = HostTrainer.open(CONFIG, tmp_path / "run", quiet=True)
    trainer.begin(60)
    while trainer.counters.env_steps < 60:
        trainer._step()
        saved = trainer.driver.save()
        numbers = [rows.numbers for rows in trainer.driver.pending or []]
        if any(numbers):
            waiting += 1
            trainer.driver.restore(saved)
            again = [rows.numbers for rows in trainer.driver.pending or []]
            for one, other in zip(numbers, again, strict=True):
                assert one is not None and other is not None and one.keys() == other.keys()
                for name in one:
                    np.testing.assert_array_equal(one[name], other[name])
    trainer.close()
    assert waiting >= 5


def test_evaluations_hold_the_means(run: tuple[Path, list[Episode]]) -> None:
    folder, _ = run
    for score in json.loads((folder / "evaluation.json").read_text())["scores"]:
        # Two environments with two episodes each: one with success, the other with a score.
        assert score["episodes"] == 4 and set(score["numbers"]) == {"success", "score/total"}
        assert score["numbers"]["success"] == 0.5
    (row,) = [row for row in read_metrics(folder) if "evaluation/return_mean" in row]
    assert row["evaluation/episode/success"] == 0.5
    assert not any(key.startswith("evaluation/numbers") for key in row)


def test_an_evaluation_in_python_tells_of_each_episode(tmp_path: Path) -> None:
    dreamer = Dreamer(Quest, config=[*map(str, _small())], run=tmp_path / "run", quiet=True)
    result = dreamer.evaluate(6)
    dreamer.close()
    assert len(result.numbers) == len(result.returns) == 6
    names = {name for numbers in result.numbers for name in numbers}
    assert names == {"success", "score/total"}
    told = [numbers["score/total"] for numbers in result.numbers if "score/total" in numbers]
    assert result.summary()["numbers"]["score/total"] == pytest.approx(np.mean(told))


def _small() -> list[str]:
    from tests.conftest import TEST_SIZE

    return [*TEST_SIZE, "train.eval_envs=2", "env.num_envs=2"]


def vector(mode: Any) -> Any:
    from gymnasium.vector import SyncVectorEnv

    from dreamer_agent.envs.gymnasium_adapter import GymnasiumEnv

    makers = [lambda n=n: Reporting(n, reports(n)) for n in LENGTHS]  # type: ignore[misc]
    return GymnasiumEnv(SyncVectorEnv(makers, autoreset_mode=mode))


@pytest.mark.parametrize("mode", MODES)
def test_episodes_have_the_numbers_of_their_own_environment(mode: Any) -> None:
    driver = Driver(AGENT, vector(mode), seed=0)
    for _, step in drive(driver, 30):
        assert "numbers" not in step
    episodes = driver.finished()
    for index, length in enumerate(LENGTHS):
        mine = [episode.numbers for episode in episodes if episode.env == index]
        first = {"score": 10.0 * length, f"only/{length}": 0.5, "success": 1.0}
        assert mine[:4] == [first, {"success": 0.0}, {}, first]


@pytest.mark.parametrize("mode", MODES)
def test_an_evaluation_leaves_out_what_a_cut_episode_does_not_report(mode: Any) -> None:
    result = evaluate(AGENT, PARAMS, vector(mode), episodes=6, seed=0, explore=True, max_length=4)
    # Episodes of 2 and 3 steps end; that of 5 is cut after 4, and its last step counts as another one.
    assert result.cut == 1 and [len(numbers) for numbers in result.numbers] == [3, 1, 3, 1, 0, 3]
    means = result.summary()["numbers"]
    assert means["success"] == 3 / 5 and means["score"] == (20 + 30 + 50) / 3
    assert set(means) == {"only/2", "only/3", "only/5", "score", "success"}


def test_means_are_over_those_that_have_the_number() -> None:
    assert mean_numbers([]) == {}
    assert mean_numbers([{"b": 1.0}, {}, {"a": 3.0, "b": 4.0}]) == {"a": 3.0, "b": 2.5}
