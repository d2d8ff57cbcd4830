"""Baselines of stable-baselines3 leave what our own runs leave (in a virtual environment that has it)."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from dreamer_agent.bench import baselines
from dreamer_agent.bench.baseline_envs import vector_env, wrapped
from dreamer_agent.bench.baseline_record import evaluate
from dreamer_agent.bench.baseline_settings import (
    FILE,
    Settings,
    constructor_arguments,
    repeat_of,
    settings_from,
    settings_of,
)
from dreamer_agent.bench.baselines import main, train_baseline
from dreamer_agent.config import EnvConfig
from dreamer_agent.errors import ConfigError, RunDirectoryError
from dreamer_agent.training.evaluate import EVALUATION_SEED, Evaluation
from dreamer_agent.training.metrics import read_metrics
from tests.bench.counted import LENGTH, Counted

sb3 = pytest.importorskip("stable_baselines3")
COUNTED = "tests.bench.counted:Counted"
SMALL = {"n_steps": 16, "batch_size": 64, "n_epochs": 2, "gamma": 0.9, "policy_kwargs": {"net_arch": [8]}}


@pytest.fixture
def counted(monkeypatch) -> type[Counted]:
    """Environments whose steps and seeds are counted from here on."""
    monkeypatch.setattr(Counted, "steps", 0)
    monkeypatch.setattr(Counted, "seeds", [])
    return Counted


def small(monkeypatch, n_envs: int = 8, **agent: Any) -> None:
    """Settings of a PPO that is quickly trained."""
    settings = Settings("these tests", n_envs=n_envs, normalize={"gamma": 0.9}, agent={**SMALL, **agent})
    monkeypatch.setattr(baselines, "settings_of", lambda method, task: settings)


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text())


def test_the_settings_of_cartpole_are_those_of_the_zoo() -> None:
    settings = settings_of("ppo", "CartPole-v1")
    assert (settings.n_envs, settings.n_timesteps, settings.normalize) == (8, 100_000, None)
    assert settings.source == "rl_zoo3 2.9.2, ppo.yml, CartPole-v1"
    given = constructor_arguments(settings.agent)
    assert given["policy"] == "MlpPolicy" and given["n_steps"] == 32 and given["n_epochs"] == 20
    assert [given["learning_rate"](left) for left in (1, 0.5, 0)] == pytest.approx([1e-3, 5e-4, 0])
    assert [given["clip_range"](left) for left in (1, 0.25, 0)] == pytest.approx([0.2, 0.05, 0])


def test_every_setting_is_an_argument_of_its_algorithm() -> None:
    content = yaml.safe_load(FILE.read_text())
    for method, algorithm in (("ppo", sb3.PPO), ("sac", sb3.SAC)):
        known = inspect.signature(algorithm).parameters
        for task in content[method]:
            assert set(constructor_arguments(settings_of(method, task).agent)) <= set(known)


def test_normalisation_has_the_discount_of_the_agent() -> None:
    assert settings_of("ppo", "InvertedPendulum-v5").normalize == {"gamma": 0.999}
    half = settings_from("here", {"zoo": "x", "normalize": {"norm_reward": False}, "gamma": 0.9})
    assert half.normalize == {"norm_reward": False, "gamma": 0.9}
    assert settings_from("here", {"zoo": "x", "normalize": True}).normalize == {}


def test_plain_values_become_what_the_library_takes() -> None:
    import torch

    kwargs = {"activation_fn": "ReLU", "net_arch": [400, 300], "log_std_init": -3}
    given = constructor_arguments({"train_freq": [1, "episode"], "policy_kwargs": kwargs, "learning_rate": 0.1})
    assert given["train_freq"] == (1, "episode") and given["learning_rate"] == 0.1
    assert given["policy_kwargs"] == {**kwargs, "activation_fn": torch.nn.ReLU}
    for wrong in ("exp_0.1", "lin_fast", "0.1"):
        with pytest.raises(ConfigError, match=rf"learning_rate is '{wrong}', which is no schedule"):
            constructor_arguments({"learning_rate": wrong})
    with pytest.raises(ConfigError, match="The activation 'Rellu' is none of torch"):
        constructor_arguments({"policy_kwargs": {"activation_fn": "Rellu"}})


def test_steps_and_updates_are_counted_exactly(counted, tmp_path: Path, monkeypatch) -> None:
    """Eight environments, two steps for one action, and a budget that neither they nor the rollout divide."""
    small(monkeypatch)
    monkeypatch.setattr(baselines, "_evaluations", lambda *_: [Evaluation([0.0], [1], "mode")])
    train_baseline("ppo", EnvConfig(id=COUNTED, action_repeat=2), 1203, 0, tmp_path)
    steps = 1208  # the next multiple of eight
    assert result(tmp_path)["env_steps"] == steps and counted.steps == 2 * steps
    assert result(tmp_path)["updates"] == (steps // 128) * 2 * 2  # rollouts of 128, two batches, two epochs
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [504, 1000, 1208]
    assert [row["episode/count"] for row in rows] == [8 * (row["step"] // 8 // 5) for row in rows]
    assert {row["episode/length"] for row in rows} == {LENGTH / 2}  # after repeat
    assert {row["episode/return"] for row in rows} == {LENGTH}  # both rewards, not normalised
    assert all(row["time/env_steps_per_s"] > 0 for row in rows)


def test_a_budget_of_whole_rollouts_is_trained_on_whole(tmp_path: Path, monkeypatch) -> None:
    small(monkeypatch)
    train_baseline("ppo", EnvConfig(id=COUNTED), 256, 0, tmp_path, 2)
    assert result(tmp_path)["env_steps"] == 256 and result(tmp_path)["updates"] == 8


def test_the_evaluation_is_in_our_form_on_fresh_seeds(counted, tmp_path: Path, monkeypatch) -> None:
    small(monkeypatch, use_sde=True, sde_sample_freq=4)
    train_baseline("ppo", EnvConfig(id=COUNTED), 128, 5, tmp_path, 12)
    scores = result(tmp_path)["scores"]
    assert [score["policy"] for score in scores] == ["sample", "mode"]
    for score in scores:
        assert score.keys() == Evaluation([1.0], [1], "mode").summary().keys()
        assert (score["episodes"], score["return_mean"], score["length_max"]) == (12, LENGTH, LENGTH)
    fresh = [5 + EVALUATION_SEED + i for i in range(10)]
    assert counted.seeds[:8] == [5 + i for i in range(8)]
    assert counted.seeds[8:] == fresh * 2


def test_evaluation_observes_with_the_statistics_of_training() -> None:
    settings = Settings("here", normalize={"gamma": 0.9}, frame_stack=3)
    training = wrapped(vector_env(EnvConfig(id=COUNTED), settings, 2), settings)
    training.seed(0)
    training.reset()
    for _ in range(50):
        training.step(np.zeros((2, 1), np.float32))
    fresh = wrapped(vector_env(EnvConfig(id=COUNTED), settings, 2), settings, training=False)
    assert fresh.reset().max() == 10  # clipped: nothing is known of the scale
    sb3.common.vec_env.sync_envs_normalization(training, fresh)
    obs, rewards, _, _ = fresh.step(np.zeros((2, 1), np.float32))
    assert obs.shape == (2, 15) and np.abs(obs[:, -5:]).max() < 5
    assert rewards.tolist() == [1, 1]
    before = fresh.venv.obs_rms.count
    fresh.step(np.zeros((2, 1), np.float32))
    assert fresh.venv.obs_rms.count == before


def test_long_episodes_are_cut_in_an_evaluation() -> None:
    vector = vector_env(EnvConfig(id=COUNTED), Settings("here"), 2, max_length=7)
    out = evaluate(lambda obs: np.zeros((len(obs), 1), np.float32), vector, 3, 0, "mode", 7)
    assert out == Evaluation([7.0] * 3, [7] * 3, "mode", cut=3)


def test_noise_that_depends_on_the_state_is_redrawn_as_in_training() -> None:
    drawn: list[int] = []
    policy = SimpleNamespace(reset_noise=drawn.append)
    model = SimpleNamespace(
        policy=policy, use_sde=True, sde_sample_freq=4, predict=lambda obs, deterministic: (obs, None)
    )
    act = baselines._sampler(model, 16)
    for _ in range(9):
        act(np.zeros((3, 1)))
    assert drawn == [3, 3, 3]


def test_random_actions_on_cartpole(tmp_path: Path) -> None:
    train_baseline("random", EnvConfig(id="CartPole-v1"), 600, 0, tmp_path, 100)
    first, second = result(tmp_path)["scores"]
    assert first == second and first["policy"] == "sample" and first["episodes"] == 100
    assert 18 < first["return_mean"] < 27
    assert result(tmp_path)["updates"] == 0
    versions = json.loads((tmp_path / "provenance.json").read_text())["packages"]
    assert versions["stable-baselines3"] == sb3.__version__ and "torch" in versions


def test_ppo_learns_cartpole(tmp_path: Path) -> None:
    train_baseline("ppo", EnvConfig(id="CartPole-v1"), 10_000, 0, tmp_path)
    assert result(tmp_path)["env_steps"] == 10_000
    assert max(score["return_mean"] for score in result(tmp_path)["scores"]) > 100


def test_sac_trains_and_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_baseline("sac", EnvConfig(id="Pendulum-v1"), 220, 3, tmp_path / name, 1)
    # The first 100 steps are random; one update follows each later one.
    assert result(tmp_path / "a")["updates"] == 120
    assert result(tmp_path / "a") == result(tmp_path / "b")
    (row,) = read_metrics(tmp_path / "a")
    assert row["step"] == 220 and row["episode/count"] == 1 and row["episode/length"] == 200


@pytest.mark.parametrize("id", ["toy:catch", COUNTED])
def test_a_task_without_settings_takes_those_of_the_library(id: str, tmp_path: Path) -> None:
    """A JAX-native environment with images, and one with a Dict of observations."""
    train_baseline("ppo", EnvConfig(id=id), 20, 0, tmp_path, 1)
    written = json.loads((tmp_path / "settings.json").read_text())["hyperparameters"]
    assert written["source"] == f"the library's defaults: there are no settings of ppo for {id}"
    assert (written["agent"], written["n_envs"]) == ({}, 1)
    assert result(tmp_path)["env_steps"] == 20 and result(tmp_path)["updates"] == 0


def test_minigrid_is_seen_as_the_zoo_sees_it() -> None:
    pytest.importorskip("minigrid")
    id = "minigrid:MiniGrid-DoorKey-5x5-v0"
    vector = vector_env(EnvConfig(id=id), settings_of("ppo", id), 2)
    assert vector.observation_space.shape == (2835,) and vector.action_space.n == 7


def test_what_cannot_be_run_is_said_in_one_sentence(tmp_path: Path, capsys) -> None:
    cartpole, run = EnvConfig(id="CartPole-v1"), tmp_path / "run"
    with pytest.raises(
        ConfigError, match=r"sac .* takes .* Box, but those of CartPole-v1 are Discrete: take ppo"
    ):
        train_baseline("sac", cartpole, 100, 0, run)
    with pytest.raises(ConfigError, match=r"no baseline 'dqn': choose ppo, sac or random"):
        train_baseline("dqn", cartpole, 100, 0, run)
    with pytest.raises(ConfigError, match=r"at least one step and one episode; got 0 and 20"):
        train_baseline("ppo", cartpole, 0, 0, run)
    with pytest.raises(ConfigError, match=r"'CartPole-v1' env.processes is 2: set it to 0"):
        train_baseline("ppo", EnvConfig(id="CartPole-v1", processes=2), 100, 0, run)
    assert not run.exists()
    assert main(["sac", "CartPole-v1", "--steps", "10", "--run", str(run)]) == 1
    assert capsys.readouterr().err.startswith("sac of stable-baselines3 takes")


def test_a_run_begins_anew_until_it_is_finished(tmp_path: Path) -> None:
    cartpole, run = EnvConfig(id="CartPole-v1"), tmp_path / "run"
    train_baseline("random", cartpole, 600, 0, run, 1)
    rows = read_metrics(run)
    (run / "evaluation.json").unlink()
    train_baseline("random", cartpole, 600, 0, run, 1)
    assert [row["step"] for row in read_metrics(run)] == [row["step"] for row in rows] == [500, 600]
    before = (run / "metrics.jsonl").stat().st_mtime_ns
    train_baseline("random", cartpole, 600, 0, run, 1)
    assert (run / "metrics.jsonl").stat().st_mtime_ns == before
    with pytest.raises(
        RunDirectoryError, match="holds a baseline with seed=0, but seed=1 is asked for: give another"
    ):
        train_baseline("random", cartpole, 600, 1, run, 1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(RunDirectoryError, match="holds files but no baseline"):
        train_baseline("random", cartpole, 600, 0, tmp_path / "other", 1)


def test_damaged_scores_are_refused_and_without_them_it_is_trained_anew(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    command = ["random", COUNTED, "--steps", "20", "--run", str(run), "--episodes", "1"]
    assert main(command) == 0
    whole = result(run)
    (run / "evaluation.json").write_text('{"env_steps": 20}')
    capsys.readouterr()
    assert main(command) == 1
    assert capsys.readouterr().err.startswith(f"{run} has a damaged evaluation.json (scores is no list")
    (run / "evaluation.json").unlink()
    (run / "metrics.jsonl").unlink()
    assert main(command) == 0 and result(run)["scores"] == whole["scores"] and len(read_metrics(run)) == 1


def test_an_unfinished_run_of_other_settings_is_left_as_it_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_baseline("random", EnvConfig(id=COUNTED), 20, 0, run, 1)
    (run / "evaluation.json").unlink()
    before = {path.name: path.read_text() for path in run.iterdir()}
    for steps, seed, said in ((30, 0, "steps=20, but steps=30"), (20, 1, "seed=0, but seed=1")):
        with pytest.raises(RunDirectoryError, match=f"holds a baseline with {said} is asked for"):
            train_baseline("random", EnvConfig(id=COUNTED), steps, seed, run, 1)
    assert {path.name: path.read_text() for path in run.iterdir()} == before


def test_a_run_that_another_process_trains_is_left_to_it(tmp_path: Path, monkeypatch) -> None:
    train_baseline("random", EnvConfig(id=COUNTED), 20, 0, tmp_path / "run", 1)
    (tmp_path / "run" / "evaluation.json").unlink()
    before = (tmp_path / "run" / "metrics.jsonl").read_text()

    def taken(folder: Path) -> None:
        raise RunDirectoryError(f"{folder} is being trained by another process")

    monkeypatch.setattr(baselines, "locked", taken)
    with pytest.raises(RunDirectoryError, match="another process"):
        train_baseline("random", EnvConfig(id=COUNTED), 20, 0, tmp_path / "run", 1)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_the_command_says_what_came_out(tmp_path: Path, capsys) -> None:
    run = ["--run", str(tmp_path / "run"), "--episodes", "2", "--steps", "20"]
    assert main(["random", COUNTED, "--action-repeat", "2", *run]) == 0
    said = capsys.readouterr().out
    assert f"random on {COUNTED} after 20 env steps, sample actions: return 10 ± 0 over 2 episodes" in said
    assert (repeat_of("dmc:cartpole_swingup"), repeat_of("CartPole-v1")) == (2, 1)
