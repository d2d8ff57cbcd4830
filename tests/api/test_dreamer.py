"""`Dreamer`: learn, predict, evaluate, save, load, export, in the conventions of recurrent policies."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium import spaces

from dreamer_agent import Callback, Dreamer, StopOnReturn
from dreamer_agent.api.export import PROGRAM, parity
from dreamer_agent.errors import ConfigError, DreamerError, EnvironmentFault, RunDirectoryError, SpaceError
from dreamer_agent.training.driver import Episode
from dreamer_agent.training.metrics import read_metrics
from dreamer_agent.training.weights import FILE
from tests.conftest import TEST_SIZE

SMALL = [
    *TEST_SIZE, "env.num_envs=2", "replay.ratio=16", "replay.prefill=64", "train.log_every=50",
    "train.eval_envs=2",
]  # fmt: skip


class Nested(gym.Env):
    """Observes and acts by nested spaces; asserts that actions come in its own structure; masks one choice."""

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            {
                "pose": spaces.Tuple(
                    [spaces.Box(-np.inf, np.inf, (2,), np.float64), spaces.Discrete(3, start=1)]
                ),
                "grid": spaces.Box(0, 3, (2, 2, 2), np.int8),
            }
        )
        self.action_space = spaces.Dict(
            {"gear": spaces.Discrete(3, start=-1), "wheel": spaces.Box(-2, 4, (1,), np.float64)}
        )
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe()

    def step(self, action):
        assert self.action_space.contains(action), action
        assert action["gear"] != 0, "masked"
        self.steps += 1
        return *self._observe()[:1], 1.0, False, self.steps >= 7, self._observe()[1]

    def _observe(self):
        obs = {
            "pose": (self.np_random.normal(size=2), np.int64(1 + self.steps % 3)),
            "grid": np.full((2, 2, 2), self.steps % 4, np.int8),
        }
        return obs, {"action_mask": {"gear": np.array([1, 0, 1], np.int8)}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Dreamer:
    run = tmp_path_factory.mktemp("dreamer") / "run"
    return Dreamer("CartPole-v1", config=SMALL, run=run, quiet=True).learn(100)


def test_learning_goes_on_where_the_last_call_ended(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Dreamer("CartPole-v1", config=SMALL, run=run, quiet=True) as agent:
        agent.learn(80).learn(40)
        assert 120 <= agent.env_steps <= 121
    again = Dreamer("CartPole-v1", config=SMALL, run=run, quiet=True)
    again.learn(80)  # the same script, started again: this call was done before
    assert 120 <= again.env_steps <= 121
    again.learn(80)
    assert 160 <= again.env_steps <= 161
    again.close()
    assert len(again.evaluate(1).returns) == 1  # what was closed can still be asked


def test_predict_takes_single_and_batched_observations(trained: Dreamer) -> None:
    action, state = trained.predict(np.zeros(4, np.float32), deterministic=True)
    assert (
        np.shape(action) == ()
        and action.dtype == np.int64
        and gym.make("CartPole-v1").action_space.contains(action)
    )
    batch = np.stack([np.zeros(4), np.ones(4)])
    actions, states = trained.predict(batch, deterministic=True)
    assert actions.shape == (2,) and set(actions) <= {0, 1}
    np.testing.assert_allclose(states.carry.latent.deter[0], state.carry.latent.deter[0], atol=1e-5)
    again, _ = trained.predict(batch, deterministic=True)
    np.testing.assert_array_equal(again, actions)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(states.carry))


def test_an_episode_start_forgets_the_state_of_its_row_only(trained: Dreamer) -> None:
    first = np.random.default_rng(0).normal(size=(3, 4))
    second = np.random.default_rng(1).normal(size=(3, 4))
    _, state = trained.predict(first, deterministic=True)
    _, going_on = trained.predict(second, state, np.zeros(3, bool), deterministic=True)
    _, mixed = trained.predict(second, state, np.array([True, False, True]), deterministic=True)
    _, fresh = trained.predict(second, None, None, deterministic=True)
    deter = [s.carry.latent.deter for s in (going_on, mixed, fresh)]
    np.testing.assert_allclose(deter[1][1], deter[0][1], atol=1e-6)
    np.testing.assert_allclose(deter[1][[0, 2]], deter[2][[0, 2]], atol=1e-6)
    assert not np.allclose(deter[0], deter[2])
    _, default = trained.predict(second, state, deterministic=True)
    np.testing.assert_allclose(default.carry.latent.deter, deter[0], atol=1e-6)


def test_sampling_differs_from_call_to_call(trained: Dreamer) -> None:
    obs = np.zeros((64, 4))
    assert not np.array_equal(trained.predict(obs)[0], trained.predict(obs)[0])


def test_masks_can_be_passed_to_any_agent(trained: Dreamer) -> None:
    masks = [np.array([1, 0])] * 10 + [np.array([0, 1])] * 10
    actions, _ = trained.predict(np.zeros((20, 4)), action_masks=masks)
    assert actions.tolist() == [0] * 10 + [1] * 10
    assert trained.predict(np.zeros(4), action_masks=np.array([0, 1]))[0] == 1


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda a: a.predict(np.zeros(5)), SpaceError, r"shape \(5,\), but the agent was trained on \(4,\)"),
        (lambda a: a.predict(np.full(4, np.nan)), EnvironmentFault, "NaN or infinity"),
        (lambda a: a.predict(np.zeros(4), action_masks=np.array([0, 0])), EnvironmentFault, "no legal action"),
        (lambda a: a.predict(np.zeros(4), action_masks=np.array([1, 1, 1])), EnvironmentFault, "shape"),
        (lambda a: a.predict(np.zeros((2, 4)), a.predict(np.zeros(4))[1]), SpaceError, "give as many of each"),
        (lambda a: Dreamer("CartPol-v1"), ConfigError, "no environment 'CartPol-v1'"),
        (lambda a: Dreamer(7), ConfigError, "7 is no environment"),
        (lambda a: Dreamer("CartPole-v1", config={"replay.ratoi": 3}), ConfigError, "did you mean replay.ratio"),
        (lambda a: Dreamer("CartPole-v1", preset="clasic"), ConfigError, "did you mean classic"),
        (lambda a: Dreamer.load(a.folder, env="Acrobot-v1"), SpaceError, r"'obs' continuous \[4\], but this"),
        (lambda a: Dreamer.load("nowhere"), RunDirectoryError, "nowhere is no run directory"),
        (lambda a: Dreamer.load("pretrained:chess"), RunDirectoryError, "no pretrained agent 'chess'"),
        (lambda a: a.save(a.folder), RunDirectoryError, "holds something already"),
        (lambda a: a.save(a.folder, overwrite=True), RunDirectoryError, "is the run directory of this agent"),
        (lambda a: a.export(a.folder), RunDirectoryError, "holds something already"),
        (lambda a: a.evaluate(0), ConfigError, "0 episodes were asked for"),
        (lambda a: a.dream(sequences=0), ConfigError, "0 sequences were asked for"),
        (lambda a: a.dream(4, observed=4), ConfigError, "4 of 4 steps should be observed"),
        (lambda a: Dreamer("CartPole-v1", init_from="nowhere", run="new")._open(), RunDirectoryError, "nowhere"),
    ],
)
def test_a_mistake_is_one_sentence_and_harms_nothing(trained: Dreamer, call, error, sentence) -> None:
    before = {path: path.read_bytes() for path in trained.folder.rglob("*") if path.is_file()}
    with pytest.raises(error, match=sentence) as caught:
        call(trained)
    assert isinstance(caught.value, DreamerError) and "\n" not in str(caught.value)
    assert before == {path: path.read_bytes() for path in trained.folder.rglob("*") if path.is_file()}


def test_a_mistake_in_init_from_makes_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="holds neither checkpoints nor"):
        Dreamer("CartPole-v1", config=SMALL, init_from=tmp_path / "none", run=tmp_path / "run", quiet=True).learn(
            10
        )
    assert not (tmp_path / "run").exists()


def test_the_seed_may_be_part_of_the_configuration() -> None:
    assert Dreamer("CartPole-v1", config=["seed=3"]).folder == Path("runs/CartPole-v1-3")
    assert Dreamer("CartPole-v1", config=["seed=3"], seed=4).config.seed == 4
    assert Dreamer("CartPole-v1").config.seed == 0


def test_two_lambdas_have_run_directories_of_their_own() -> None:
    one, other = Dreamer(lambda: gym.make("CartPole-v1")), Dreamer(lambda: gym.make("Acrobot-v1"))
    again = Dreamer(lambda: gym.make("CartPole-v1"))
    assert one.folder == again.folder != other.folder
    assert "CartPole-v1" in one.folder.name and not set("<>: ") & set(one.folder.name)
    captured = [Dreamer(lambda name=name: gym.make(name)).folder for name in ("CartPole-v1", "Acrobot-v1")]
    closed = [(lambda name: Dreamer(lambda: gym.make(name)).folder)(n) for n in ("CartPole-v1", "Acrobot-v1")]
    assert captured[0] != captured[1] and closed[0] != closed[1]


def test_deterministic_predictions_draw_anew_at_each_step_of_an_episode(trained: Dreamer) -> None:
    obs = np.zeros((1, 4))
    _, first = trained.predict(obs, deterministic=True)
    start = np.array([True])  # the same memory, one call later
    _, second = trained.predict(obs, first, start, deterministic=True)
    np.testing.assert_allclose(first.carry.latent.deter, second.carry.latent.deter, atol=1e-6)
    stoch = [
        trained.predict(np.zeros((200, 4)), state, np.ones(200, bool), deterministic=True)[1].carry.latent.stoch
        for state in (None, trained.predict(np.zeros((200, 4)), deterministic=True)[1])
    ]
    assert not np.array_equal(*stoch)


def test_a_saved_run_is_replaced_only_where_that_is_asked_for(trained: Dreamer, tmp_path: Path) -> None:
    saved = trained.save(tmp_path / "saved")
    (saved / "old").touch()
    with pytest.raises(RunDirectoryError, match="overwrite=True"):
        trained.save(saved)
    assert trained.save(saved, overwrite=True) == saved and not (saved / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.txt").touch()
    with pytest.raises(RunDirectoryError, match="holds something already"):
        trained.save(tmp_path / "else", overwrite=True)
    assert (tmp_path / "else" / "thesis.txt").exists()
    assert Dreamer.load(saved).env_steps == trained.env_steps


def test_a_script_that_starts_again_keeps_its_whole_replay(tmp_path: Path) -> None:
    config = [*SMALL, "replay.prefill=10000"]  # no update: this is about the replay
    with Dreamer("CartPole-v1", config=config, run=tmp_path / "run", quiet=True) as agent:
        agent.learn(40).learn(400)
        stored = agent._open().replay.added.sum()
    assert agent.env_steps >= 440
    with Dreamer("CartPole-v1", config=config, run=tmp_path / "run", quiet=True) as again:
        again.learn(40)
        replay = again._open().replay
        assert not replay.dropped and replay.added.sum() == stored


def test_a_loaded_agent_learns_on_in_another_environment_of_its_spaces(trained: Dreamer, tmp_path: Path) -> None:
    trained.save(tmp_path / "saved")
    env = gym.make("CartPole-v1")  # one, where the run had two
    other = Dreamer.load(tmp_path / "saved", env=env, run=tmp_path / "new", quiet=True)
    obs = np.random.default_rng(0).normal(size=(5, 4))
    np.testing.assert_array_equal(
        other.predict(obs, deterministic=True)[0], trained.predict(obs, deterministic=True)[0]
    )
    other.learn(40)
    assert 40 <= other.env_steps < 45 and other.folder == tmp_path / "new"
    other.close()
    env.close()


def test_actions_are_not_repeated_for_a_vector_environment() -> None:
    env = gym.make_vec("CartPole-v1", num_envs=2)
    for given in (env, lambda: gym.make_vec("CartPole-v1", num_envs=2)):
        with pytest.raises(ConfigError, match=r"env.action_repeat=3 cannot be done for a vector environment"):
            Dreamer(given, config=["env.action_repeat=3"])
    env.close()


def test_a_saved_agent_predicts_the_same_and_learns_on(trained: Dreamer, tmp_path: Path) -> None:
    trained.save(tmp_path / "saved")
    loaded = Dreamer.load(tmp_path / "saved", quiet=True)
    obs = np.random.default_rng(0).normal(size=(5, 4))
    ours, theirs = (agent.predict(obs, deterministic=True) for agent in (trained, loaded))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1].carry.latent.deter, theirs[1].carry.latent.deter)
    loaded.learn(40)
    assert loaded.env_steps >= trained.env_steps + 40
    assert loaded._open().replay.added.sum() > trained._open().replay.added.sum()  # its replay came along
    loaded.close()


def test_what_is_scored_shown_and_exported_is_the_average(trained: Dreamer, tmp_path: Path) -> None:
    trained.save(tmp_path / "saved")
    with Dreamer.load(tmp_path / "saved", quiet=True) as agent:
        trainer, obs = agent._open(), np.ones((5, 4))

        def used(name: str) -> list:
            """What users get to see of the policy and the model."""
            agent.export(tmp_path / name, program=False)
            agent._policy = None
            shown = [agent.predict(obs)[1].carry.latent.deter, agent.dream(4, 1).prediction]
            with np.load(tmp_path / name / FILE) as weights:
                return [*jax.tree.leaves(shown), *weights.values(), *trainer.evaluate(True, 2).returns]

        before = used("before")
        trainer.state = trainer.state._replace(params=jax.tree.map(lambda x: x + 1, trainer.state.params))
        for one, other in zip(before, used("after"), strict=True):
            np.testing.assert_array_equal(one, other)
        trainer.state = trainer.state._replace(average=trainer.state.params)
        assert any((one != other).any() for one, other in zip(before[:-2], used("other")[:-2], strict=True))


def test_an_exported_agent_is_the_same_policy(trained: Dreamer, tmp_path: Path) -> None:
    gaps = trained.export(tmp_path / "exported")
    assert gaps["action/action"] == 0 and gaps["stoch"] == 0 and gaps["deter"] < 1e-5
    loaded = Dreamer.load(tmp_path / "exported", quiet=True)
    obs = np.random.default_rng(0).normal(size=(5, 4))
    np.testing.assert_array_equal(
        trained.predict(obs, deterministic=True)[1].carry.latent.deter,
        loaded.predict(obs, deterministic=True)[1].carry.latent.deter,
    )
    assert len(loaded.evaluate(2).returns) == 2
    other = Dreamer("CartPole-v1", config=SMALL, run=tmp_path / "other", seed=5, quiet=True)
    agent, _ = other._known()
    assert parity(tmp_path / "exported" / PROGRAM, agent, other._state().params)["deter"] > 1e-3


def test_starting_from_another_run_takes_what_fits(trained: Dreamer, tmp_path: Path, capsys) -> None:
    trained.save(tmp_path / "saved")
    agent = Dreamer("Acrobot-v1", config=SMALL, run=tmp_path / "run", init_from=tmp_path / "saved")
    trainer = agent._open()
    out = capsys.readouterr().out
    assert "arrays taken over" in out and "shape differs" in out and "[2] -> [3]" in out
    old, new = trained._state().average, trainer.state.params
    for a, b in zip(jax.tree.leaves(old["critic"]), jax.tree.leaves(new["critic"]), strict=True):
        np.testing.assert_array_equal(a, b)
    agent.close()


class Counts(Callback):
    """Counts the calls and stops at the third update."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def _count(self, name: str) -> None:
        self.seen[name] = self.seen.get(name, 0) + 1

    def on_start(self, trainer):
        self._count("start")

    def on_step(self, trainer):
        self._count("step")

    def on_episode(self, trainer, episode):
        self._count("episode")
        assert isinstance(episode, Episode) and episode.length > 0

    def on_update(self, trainer, metrics):
        self._count("update")
        return self.seen["update"] < 3

    def on_end(self, trainer):
        self._count("end")


def test_callbacks_see_everything_and_end_the_training(tmp_path: Path) -> None:
    counts, steps = Counts(), []
    agent = Dreamer("CartPole-v1", config=SMALL, run=tmp_path / "run", quiet=True)
    agent.learn(1000, [counts, lambda trainer: steps.append(trainer.counters.env_steps)])
    assert counts.seen["update"] == 3 and counts.seen["start"] == counts.seen["end"] == 1
    assert counts.seen["step"] == len(steps) and steps[-1] == agent.env_steps < 100
    assert counts.seen["episode"] >= 1
    agent.learn(10)
    assert agent.env_steps < 120
    agent.close()


def test_stop_on_return_waits_for_enough_episodes() -> None:
    stop = StopOnReturn(10, episodes=2)
    scores = [100.0, -90.0, 25.0, 5.0, 15.0]
    assert [stop.on_episode(None, Episode(0, score, 1)) for score in scores] == [True, True, True, False, False]  # type: ignore[arg-type]


def test_nested_spaces_and_masks_go_the_whole_way(tmp_path: Path) -> None:
    agent = Dreamer(Nested, config=SMALL, run=tmp_path / "run", quiet=True).learn(90)
    assert set(agent.evaluate(3).lengths) == {7}
    env = Nested()
    obs, info = env.reset(seed=0)
    state, start = None, True
    for _ in range(7):
        action, state = agent.predict(obs, state, np.array([start]), action_masks=info["action_mask"])
        assert action["wheel"].dtype == np.float64 and action["wheel"].shape == (1,)
        obs, _, _, _, info = env.step(action)
        start = False
    with pytest.raises(SpaceError, match="trained with action masks"):
        agent.predict(obs)
    with pytest.raises(SpaceError, match=r"lacks '(pose|grid)'"):
        agent.predict({"wrong": 1}, action_masks=info["action_mask"])
    agent.save(tmp_path / "saved")
    agent.close()
    assert Dreamer.load(tmp_path / "saved", env=Nested, quiet=True).evaluate(1).lengths == [7]


def test_an_instance_is_used_as_it_is(tmp_path: Path) -> None:
    env = gym.make("CartPole-v1")
    agent = Dreamer(env, config=[*SMALL, "train.eval_every=50", "train.eval_episodes=2"], run=tmp_path / "run")
    agent.learn(100)
    assert agent.config.env.id == "CartPole-v1" and agent.config.env.num_envs == 1
    assert len(agent.evaluate(2).returns) == 2
    agent.close()
    env.reset()  # still open
    assert any("evaluation/return_mean" in row for row in read_metrics(tmp_path / "run"))


def test_a_vector_environment_brings_its_number(tmp_path: Path) -> None:
    env = gym.make_vec("CartPole-v1", num_envs=3)
    agent = Dreamer(env, config=SMALL, run=tmp_path / "run", quiet=True)
    assert agent.config.env.num_envs == 3
    assert len(agent.evaluate(4).returns) == 4
    env.close()


def test_the_preset_auto_looks_at_the_observations(tmp_path: Path) -> None:
    assert Dreamer("CartPole-v1").config.replay.ratio == 128
    assert Dreamer("toy:catch").config.replay.ratio == 64
