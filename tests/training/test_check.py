"""What is found about a run before it starts."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from rich.console import Console

from dreamer_agent.agent import Agent
from dreamer_agent.api.check import duration, print_report, raise_problems, verdict
from dreamer_agent.config import Config
from dreamer_agent.envs import make_env
from dreamer_agent.envs.gymnasium_adapter import BorrowedEnv, GymnasiumEnv, make_vector
from dreamer_agent.errors import ConfigError, EnvironmentFault
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training.check import Forecast, Numbers, Report, Speed, check_run, forecast, random_rollout
from dreamer_agent.training.check.notices import notices
from dreamer_agent.training.check.rollout import RandomPolicy
from dreamer_agent.training.check.speed import filled_replay
from dreamer_agent.training.check.survey import gymnasium_findings, single_env
from dreamer_agent.training.check.words import acted, box_words, choice_words, routed
from dreamer_agent.training.opening import make_replay
from tests.conftest import small_config
from tests.envs.masked_envs import Picky


class Odd(gym.Env):
    """Gives `obs(step)` of `space` and `reward(step)`; episodes have `length` steps (0: no end)."""

    def __init__(
        self, space: gym.Space, obs: Any, reward: Any = lambda step: float(step % 2), length: int = 10,
        action: gym.Space | None = None,
    ):  # fmt: skip
        self.observation_space, self.action_space = space, action or spaces.Discrete(2)
        self.obs, self.reward, self.length = obs, reward, length

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self.obs(0), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        self.time += 1
        return self.obs(self.time), self.reward(self.time), self.time == self.length, False, {}


def box(low: float, high: float, shape: tuple[int, ...] = (2,), dtype: Any = np.float32) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


def looked_at(env: Any, *overrides: str, quick: bool = True) -> Report:
    config = small_config("env.num_envs=2", "train.steps=2000", *overrides)
    return check_run(config, lambda count: make_vector([env] * count, 1, config.env.route), quick, 0.05)


def of_time(step: int) -> np.ndarray:
    return np.array([step, -step], np.float32)


# Statistics


def test_numbers_are_those_of_the_whole_batch() -> None:
    numbers = Numbers.of(ArraySpec("discrete", (2,), 5))
    numbers.add(np.array([[0, 3], [1, 3]]))
    numbers.add(np.array([[0, 3]]))
    assert (numbers.min, numbers.max, numbers.count, numbers.zeros, numbers.constant) == (0, 3, 6, 2, 1)
    assert numbers.mean == pytest.approx(10 / 6)
    assert numbers.std == pytest.approx(np.std([0, 3, 1, 3, 0, 3]))
    assert numbers.seen.tolist() == [True, True, False, True, False]


def test_random_actions_are_legal_and_reach_everything() -> None:
    specs = {"action": ArraySpec("discrete", (2,), 3), "push": ArraySpec("continuous", (4,))}
    legal = np.broadcast_to(np.array([[1, 0, 1], [0, 1, 0]]), (500, 2, 3))
    actions = RandomPolicy(specs)({"action_mask": legal}, 500)
    assert set(actions["action"][:, 0]) == {0, 2} and set(actions["action"][:, 1]) == {1}
    assert actions["action"].dtype == np.int32 and actions["push"].dtype == np.float32
    assert actions["push"].min() < -0.9 and actions["push"].max() > 0.9 and np.abs(actions["push"]).max() <= 1


def test_a_rollout_counts_steps_calls_and_episodes() -> None:
    env = make_vector([lambda: Odd(box(-20, 20), of_time, lambda step: 1.0, 4)] * 2, 1)
    rollout = random_rollout(env, steps=80, keep=7)
    assert rollout.steps == 80 and rollout.calls == 50  # every fifth call of both environments is a reset
    assert set(rollout.lengths) == {4} and set(rollout.returns) == {4.0} and len(rollout.lengths) >= 18
    assert (rollout.rewards.min, rollout.rewards.max) == (1, 1)
    assert (rollout.observations["obs"].min, rollout.observations["obs"].max) == (-4, 4)
    assert len(rollout.kept) == 7 and rollout.kept[0]["is_first"].all() and not rollout.faults


def test_masks_are_respected_and_told() -> None:
    env = make_vector([lambda: Picky("dict", "info", 5, 0)] * 2, 1)  # Picky asserts on illegal actions
    rollout = random_rollout(env, steps=100)
    assert not rollout.faults and 0 < rollout.observations["action_mask/move"].mean < 1
    assert "only legal ones" in next(entry.receives for entry in acted(env.interface) if entry.key == "move")


# Words


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (box(-1, 1), "numbers in [-1, 1], as the policy gives them"),
        (box(-2, 2), "[-1, 1] stretched over [-2, 2]"),
        (box(-np.inf, np.inf), "no bounds: the policy's number as it is"),
        (box(0, 9, dtype=np.int64), "[-1, 1] stretched over [0, 9], rounded to integers"),
        (
            spaces.Box(np.array([0, -5], np.float32), np.array([1, 5], np.float32)),
            "[-1, 1] stretched over the bounds of each entry, within [-5, 5]",
        ),
        (
            spaces.Box(np.array([0, -np.inf, -1], np.float32), np.array([np.inf, np.inf, 1], np.float32)),
            "each entry by its own bounds: 1 between its bounds, 1 without bounds, 1 with a lower bound only",
        ),
    ],
)
def test_what_a_box_of_actions_receives(space: spaces.Box, words: str) -> None:
    assert box_words(space) == words


def test_what_choices_receive() -> None:
    assert choice_words(ArraySpec("discrete", (), 7), 2) == "one of 7, counted from 2"
    assert choice_words(ArraySpec("discrete", (3,), 4), np.zeros(3)) == "3 choices, each one of 4, counted from 0"


def test_durations() -> None:
    assert [duration(x) for x in (0.04, 12, 75, 7300)] == ["0.0 s", "12 s", "1 min 15 s", "2 h 1 min"]


# Notices


PIXELS = np.arange(12 * 12 * 3, dtype=np.uint8).reshape(12, 12, 3)

ODDITIES = {
    "symbols": (Odd(box(0, 255, (12, 12, 3), np.uint8), lambda t: PIXELS % (t + 2)), "env.route.obs=vector"),
    "large image": (
        Odd(box(0, 255, (130, 16, 3), np.uint8), lambda t: np.full((130, 16, 3), t + 50, np.uint8)),
        "130 x 16 pixels, which is slow",
    ),
    "constant": (Odd(box(-1, 1), lambda t: np.zeros(2, np.float32)), "'obs' never changed in 1,000 random steps"),
    "outside": (
        Odd(box(-4, 20), of_time),
        "left the bounds of its space in 1 of 2 elements: seen -10 to 0, declared -4",
    ),
    "large": (Odd(box(-np.inf, np.inf), lambda t: of_time(t) * 1e4), "'obs' reaches 1e+05: it can be learned"),
    "beyond float32": (
        Odd(box(-np.inf, np.inf, dtype=np.float64), lambda t: np.array([t, 1e300])),
        "beyond what float32 holds",
    ),
    "integers": (
        Odd(box(0, 2**40, (1,), np.int64), lambda t: np.array([2**25 * t])),
        "holds integers beyond 2^24",
    ),
    "one-hot": (Odd(spaces.MultiDiscrete([300] * 10), lambda t: np.full(10, t)), "takes 3,000 numbers"),
    "sparse": (Odd(box(-20, 20), of_time, lambda t: 0.0), "Every reward in 1,000 random steps was zero"),
    "rewards": (Odd(box(-20, 20), of_time, lambda t: 1e6 * (t % 2)), "Rewards reach 1e+06"),
    "endless": (Odd(box(-999, 999), of_time, length=0), "No episode ended in 500 random steps"),
    "no difference": (Odd(box(-20, 20), of_time, lambda t: -1.0), "every episode returned -10"),
    "one step": (Odd(box(-20, 20), of_time, length=1), "Every episode ended after one step"),
    "free action": (Odd(box(-20, 20), of_time, action=box(-np.inf, 1)), "lacks bounds in 2 of 2 entries"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODDITIES)
def test_an_oddity_is_told_alone(name: str) -> None:
    odd, sentence = ODDITIES[name]
    parts = odd.observation_space, odd.obs, odd.reward, odd.length, odd.action_space
    config = small_config("env.num_envs=2", "train.steps=2000")
    env = make_vector([lambda: Odd(*parts)] * 2, 1)
    (told,) = notices(config, env, random_rollout(env, 1000))
    assert sentence in told and told.endswith((".", "?"))


def test_nothing_is_told_of_a_sound_environment() -> None:
    report = looked_at(lambda: Odd(box(-20, 20), of_time))
    assert (report.problems, report.notices, report.gymnasium) == ([], [], [])
    limited = looked_at(lambda: gym.wrappers.TimeLimit(Odd(box(-999, 999), of_time, length=0), 900))
    assert limited.notices == [] and not limited.rollout.lengths  # type: ignore[union-attr]


def test_a_run_that_ends_before_it_learns_is_told() -> None:
    report = looked_at(lambda: Odd(box(-20, 20), of_time), "train.steps=500")
    assert "Nothing will be learned in 500 env steps" in report.notices[0]


# Faults


class Bad(Odd):
    """Several faults, each at steps of its own, so that the first hides the others."""

    def __init__(self) -> None:
        super().__init__(box(-1, 1), lambda t: np.ones(3 if t % 50 == 0 and t else 2, np.float32), length=0)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        obs, _, *rest = super().step(action)
        if self.time % 61 == 0:
            raise KeyError("door")
        return obs, float("nan") if self.time % 37 == 0 else 0.0, *rest


def test_every_fault_is_found_not_only_the_first() -> None:
    report = looked_at(Bad)
    assert len(report.problems) == 3
    nan, shape, door = report.problems
    assert "the reward should be one finite number, got nan" in nan
    assert "should have the shape (2,) of its space, got shape (3,)" in shape
    assert "KeyError: 'door', in test_check.py line" in door
    assert report.speed is None and report.rollout.steps > 100  # type: ignore[union-attr]
    with pytest.raises(EnvironmentFault, match=r"cannot be trained as it is: .*\(and 2 more, above\)"):
        raise_problems(report)


def test_a_space_that_cannot_be_encoded_does_not_hide_the_rest() -> None:
    class Graphs(Bad):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Sequence(spaces.Discrete(3))

    report = looked_at(Graphs)
    assert "is a Sequence, which cannot be encoded" in report.problems[0]
    assert len(report.problems) == 1 and report.observations == [] and report.memory is None


def test_an_environment_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match="CartPol-v1"):
        check_run(small_config("env.id=CartPol-v1"), quick=True)


def test_another_number_of_environments_than_asked_for_is_a_problem() -> None:
    def make(count: int) -> GymnasiumEnv:
        return make_vector([lambda: Odd(box(-20, 20), of_time)] * 3, 1)

    report = check_run(small_config("env.num_envs=2"), make, quick=True)
    assert report.problems == ["There are 3 environments, but env.num_envs=2: make them equal."]


def test_what_is_lent_is_not_closed() -> None:
    lent = Odd(box(-20, 20), of_time)
    lent.close = lambda: pytest.fail("closed")  # type: ignore[method-assign]
    env = BorrowedEnv(SyncVectorEnv([lambda: lent]))
    report = check_run(small_config("env.num_envs=1"), lambda count: env, quick=True)
    assert report.problems == [] and report.gymnasium is None


def test_gymnasiums_checker_is_asked_on_after_its_first_objection() -> None:
    class Unseeded(Odd):
        def reset(self, **kwargs: Any) -> tuple[Any, dict]:
            self.time = 0
            return of_time(9), {}

    found = gymnasium_findings(Unseeded(box(-1, 1), of_time))
    assert len(found) >= 2 and "observation space" in found[0]
    assert any("let it call super().reset(seed=seed)" in line for line in found)
    assert not any("\x1b" in line or "\n" in line for line in found) and len(set(found)) == len(found)
    assert gymnasium_findings(gym.make("Pendulum-v1").unwrapped) == []


# Memory and speed


def test_what_does_not_fit_is_a_problem_and_is_not_timed() -> None:
    report = looked_at(lambda: Odd(box(-20, 20), of_time), "replay.max_gb=0.0001", quick=False)
    assert "GB are allowed" in report.problems[0] and report.speed is None
    assert report.memory is not None and report.memory.budget.parameters > 1000


def test_the_time_of_a_run_is_the_sum_of_its_parts() -> None:
    # An update for every two env steps.
    config = small_config("train.steps=5000", "replay.prefill=1000", "replay.ratio=16")
    speed = Speed(env=0.01, policy=0.002, update=0.05, compiling=9.0, activations=None)
    run = forecast(config, speed, calls_per_step=0.25)
    assert (run.calls, run.updates) == (1250, 2000)
    assert (run.env, run.policy, run.update) == pytest.approx((12.5, 2.5, 100))
    assert run.total == pytest.approx(115) and run.bound == "update"


@pytest.mark.parametrize(
    ("times", "bound", "advice"),
    [
        ((1, 1, 8), "update", "replay.ratio=16 would take 6.0 s"),
        ((8, 1, 1), "env", "stepped in turn"),
        ((1, 8, 1), "policy", "env.num_envs=8"),
        ((3, 3, 4), "none", "Balanced"),
    ],
)
def test_the_verdict_names_what_takes_more_than_half(times: tuple, bound: str, advice: str) -> None:
    run = Forecast(10, 10, *times)
    assert run.bound == bound
    assert advice in verdict(Report(Config()), Speed(0.1, 0.1, 0.1, 1.0, None), run)[1]


@pytest.fixture(scope="module")
def report() -> Report:
    return check_run(small_config("env.num_envs=2", "train.steps=2000"), seconds=0.05)


def test_a_sound_run_is_measured(report: Report) -> None:
    assert report.problems == [] and report.gymnasium == []
    assert report.speed is not None and report.forecast is not None and report.memory is not None
    assert min(report.speed.env, report.speed.policy, report.speed.update) > 0
    assert report.forecast.updates == int((2000 - 1024) * 1.0)
    assert 1000 < report.forecast.calls < 1200  # two env steps a call, and resets
    assert report.memory.budget.replay < report.memory.free


def test_the_report_fits_a_hundred_columns(report: Report) -> None:
    out = io.StringIO()
    print_report(report, Console(file=out))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    text = out.getvalue()
    for part in (
        "vector [4]",
        "one of 2, counted from 0",
        "it passes",
        "parameters in float32",
        "nothing looks wrong",
    ):
        assert part in text
    assert "\x1b" not in text


def test_the_batches_are_those_of_the_run() -> None:
    """Same shapes and types, so that the compiled update is the trainer's own."""
    config = small_config("env.num_envs=2", "train.steps=2000")
    env = make_env(config.env)
    agent = Agent.create(config, env.obs_specs, env.act_specs)
    rollout = random_rollout(env, steps=40, keep=5)  # shorter than a window: it is used again
    measured = filled_replay(config, agent, rollout).sample()[0]
    replay = make_replay(config, agent)
    latent = jax.tree.map(np.asarray, agent.init_act(2).latent.pack())
    for _ in range(20):
        replay.add({**rollout.kept[0], "latent": latent})
    trained = replay.sample()[0]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), measured) == jax.tree.map(
        lambda x: (x.shape, x.dtype), trained
    )
    assert measured["reward"].any() and measured["obs"]["obs"].std() > 0


# The command


BROKEN = """
import gymnasium as gym
import numpy as np


class Broken(gym.Env):
    observation_space = gym.spaces.Sequence(gym.spaces.Discrete(3))
    action_space = gym.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return (1, 2), {}

    def step(self, action):
        return (1,), "much", False, False, {}
"""


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "dreamer_agent", "check", *arguments, "--quick"]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_command_reports_and_says_whether_it_can_train(tmp_path: Path) -> None:
    good = command("FrozenLake-v1", "--steps", "7000", folder=tmp_path)
    assert good.returncode == 0 and good.stderr == ""
    assert "would run it for 7,000 env steps" in good.stdout and "one-hot of 16" in good.stdout
    assert not list(tmp_path.iterdir())  # nothing is written

    (tmp_path / "broken.py").write_text(BROKEN)
    bad = command("broken:Broken", folder=tmp_path)
    assert bad.returncode == 2 and "Traceback" not in bad.stderr
    assert len(bad.stderr.strip().splitlines()) == 1 and "is a Sequence, which cannot be encoded" in bad.stderr
    assert "the reward should be one finite number, got much" in " ".join(bad.stdout.split())


def test_an_environment_of_another_kind_is_not_asked_about_gymnasium() -> None:
    env = make_env(small_config("env.id=toy:catch", "env.num_envs=2").env)
    assert [entry.reason for entry in routed(env.interface, own_words=True)] == ["the environment says so"]
    assert single_env(None, small_config("env.id=toy:catch").env) is None
