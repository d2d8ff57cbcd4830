"""The examples in docs/ run, and what they register works."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import jax
import numpy as np
import pytest

from dreamer_agent import ArraySpec, Config, make_env
from dreamer_agent.config import merge
from dreamer_agent.envs import SUITES
from dreamer_agent.envs.gymnasium_adapter import make_vector
from dreamer_agent.training.driver import Episode
from dreamer_agent.training.loggers import LOGGERS
from dreamer_agent.training.metrics import MetricsWriter
from dreamer_agent.world_model import ENCODERS, make_encoder
from tests.conftest import TEST_SIZE

DOCS = Path(__file__).parent.parent / "docs"


def examples(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S))


def test_the_corridor_of_the_docs_is_an_environment() -> None:
    exec(examples("environments.md"), {})
    try:
        env = make_env(merge(Config(), {"env": {"id": "corridor:short", "num_envs": 2}}).env)
        (rows,) = env.reset(0)
        for _ in range(4):
            (rows,) = env.step({"action": np.ones(2, np.int32)})
        assert rows.reward.tolist() == [1, 1] and rows.is_terminal.all()
        assert rows.obs["cell"].tolist() == [4, 4]
    finally:
        SUITES.pop("corridor")


def test_the_room_of_the_docs_reports_how_it_ended() -> None:
    names: dict = {}
    exec(examples("environments.md").split("import jax\n")[0], names)
    env = make_vector([names["Comfort"]], 1)
    rows = env.reset(0)
    for _ in range(100):
        rows += env.step({"action": np.ones(1, np.int32)})
    assert all(row.numbers is None for row in rows[:-1])
    final = rows[-1].obs["celsius"][0, 0]
    assert final > 22 and rows[-1].numbers["comfortable"].tolist() == [0.0]
    assert rows[-1].numbers["final_celsius"][0] == pytest.approx(final)


@pytest.mark.parametrize("name", ["wide", "wide_haiku"])
def test_the_encoders_of_the_docs_are_encoders(name: str) -> None:
    exec(examples("encoders.md"), {})
    try:
        config = merge(Config(), {"model": {"encoder": name}})
        net = make_encoder({"x": ArraySpec("continuous", (3,))}, config.model, np.float32)
        obs = {"x": np.ones((2, 5, 3), np.float32)}
        assert net.apply(net.init(jax.random.PRNGKey(0), obs), obs).shape == (2, 5, 256)
    finally:
        for registered in ("wide", "wide_haiku"):
            ENCODERS.pop(registered)


def test_the_logger_of_the_docs_is_a_logger(tmp_path: Path) -> None:
    exec(examples("plugins.md"), {})
    try:
        config = merge(Config(), {"train": {"loggers": ["table"]}})
        writer = MetricsWriter(tmp_path, config=config)
        writer.write(10, {"episode/return": 2.5, "updates": 1})
        writer.write(20, {"updates": 2})
        writer.close()
        assert (tmp_path / "returns.csv").read_text().split() == ["10,2.5"]
    finally:
        LOGGERS.pop("table")


def test_every_metric_of_the_update_is_explained(learner) -> None:
    from tests.conftest import random_batch

    metrics = jax.eval_shape(learner.agent.update, learner.state, random_batch(learner.agent))[2]
    page = (DOCS / "metrics.md").read_text()
    names = {re.sub(r"^loss/rec/.*", "loss/rec/KEY", name) for name in metrics if name != "skipped"}  # counted
    assert names and {name for name in names if f"`{name}`" not in page} == set()


def test_the_readme_works(tmp_path: Path, monkeypatch, capsys) -> None:
    """Its programs with a small model and few steps."""
    monkeypatch.chdir(tmp_path)
    text = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS.parent / "README.md").read_text(), re.S))
    few = [
        *TEST_SIZE, "env.num_envs=2", "replay.ratio=16", "replay.prefill=64", "train.steps=80",
        "train.eval_envs=2", "train.eval_episodes=2",
    ]  # fmt: skip
    for long, short in (
        ('Dreamer("CartPole-v1").learn(12_000)', f'Dreamer("CartPole-v1", config={few}).learn(80)'),
        ('["env.id=CartPole-v1", "seed=1"]', f'["env.id=CartPole-v1", "seed=1", *{few}]'),
        ("episodes=20", "episodes=2"),
        ("episodes=100", "episodes=2"),
    ):
        assert long in text
        text = text.replace(long, short)
    names: dict = {}
    exec(text, names)
    assert names["action"] in (0, 1) and (tmp_path / "my_agent" / "checkpoints").is_dir()
    assert len(names["sampled"].returns) == 2


def test_the_population_of_the_docs_is_one_program(monkeypatch) -> None:
    from dreamer_agent import api
    from dreamer_agent.training.population import group_by_program

    given: list[Config] = []

    def trained(config: Config, seeds: int, folder: str, hyper: dict) -> None:
        given.extend(api.population_configs(config, seeds, hyper))

    monkeypatch.setattr(api, "train_population", trained)
    exec(examples("device.md"), {})
    assert [config.seed for config in given] == [0, 1, 2, 3] and group_by_program(given) == [[0, 1, 2, 3]]
    assert [config.optimizer.learning_rate for config in given] == [3e-4, 5e-4, 7e-4, 1e-3]


def test_the_python_page_works(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(examples("python.md"), names)
    agent, env = names["agent"], gym.make("CartPole-v1")
    assert 5 < names["play"](agent, env, seed=0) == names["play"](agent, env, seed=0) <= 500
    best, stop = names["callbacks"]
    logged: list[dict] = []
    trainer = SimpleNamespace(log=logged.append)
    for score in (3.0, 1.0, 7.0):
        best.on_episode(trainer, Episode(0, score, 1))
    assert logged == [{"custom/best": 3.0}, {"custom/best": 7.0}] and stop.threshold == 475
    agent.export("policy")
    _, carry, _ = names["read_program"]("policy")
    assert carry["deter"].shape == (1, 128) and not carry["stoch"].any()
    assert 5 < names["run_program"]("policy", env, seed=0) <= 500


def test_the_planning_page_works() -> None:
    names: dict = {}
    exec(examples("planning.md").replace("range(50)", "range(20)"), names)
    assert names["state"].carry.plan and names["obs"].shape == (4,)


def test_a_dream_of_the_docs_is_an_environment(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(examples("dream_env.md"), names)
    assert names["obs"] in gym.make("CartPole-v1").observation_space and names["envs"].num_envs == 16
    assert names["agent"].config.env.id == "python:Dream"


def test_the_report_of_the_dreams_page(monkeypatch) -> None:
    from dreamer_agent import api

    monkeypatch.setattr(api.reports, "ROWS", 60)  # fewer steps than it watches
    names: dict = {}
    exec(examples("dreams.md"), names)
    report = names["report"]
    assert report.horizons == (1, 5, 10) and report.windows[0] == 12
    assert report.line("error/obs")[0] < report.line("error/obs", "persistence")[0]
