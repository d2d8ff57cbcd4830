"""Definitions of benchmarks: those that ship, those of users, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import pytest

from dreamer_agent.bench.benchmark import Task, benchmark_names, load_benchmark, with_settings
from dreamer_agent.bench.jobs import job_from, jobs_of
from dreamer_agent.bench.reference import published
from dreamer_agent.config import load_config, preset_names
from dreamer_agent.envs.catalogue import LIBRARIES, tasks_of
from dreamer_agent.errors import ConfigError


@pytest.mark.parametrize("name", benchmark_names())
def test_what_ships_is_whole(name: str) -> None:
    benchmark = load_benchmark([name])
    assert benchmark.title and benchmark.protocol and benchmark.tasks
    for task in benchmark.tasks:
        config = task.config(seed=3, episodes=5)
        assert (config.env.id, config.seed, config.train.steps) == (task.env, 3, task.steps)
        assert task.frames_per_step() >= config.env.action_repeat
        assert (task.low is None) == (task.high is None)
        if task.low is not None and task.high is not None:
            assert task.low < task.threshold < task.high
        assert not task.suite or not task.published or task.suite.split()
    folders = [task.folder for task in benchmark.tasks]
    assert len(set(folders)) == len(folders)
    assert f"bench/{name}" not in preset_names()


def test_published_tasks_are_in_the_reference_data() -> None:
    missing = set()
    for name in benchmark_names():
        for task in load_benchmark([name]).tasks:
            if task.published and not published(task.suite.split(), task.published):
                missing.add(task.published)
    assert not missing


@pytest.mark.parametrize("name", benchmark_names())
def test_tasks_are_known_where_they_are_installed(name: str) -> None:
    ids = {task.env for task in load_benchmark([name]).tasks}
    suites = {id.partition(":")[0] for id in ids if ":" in id}
    installed = [suite for suite in suites if LIBRARIES[suite].installed]
    known = {task for suite in installed for task in tasks_of(suite)} | set(gym.registry)
    assert not {id for id in ids if ":" not in id or id.partition(":")[0] in installed} - known


@pytest.mark.parametrize("name", ["atari", "atari100k", "crafter", "dmc_proprio", "dmc_vision", "procgen"])
def test_budgets_are_those_of_the_published_curves(name: str) -> None:
    for task in load_benchmark([name]).tasks:
        rows = published(task.suite.split(), task.published)
        drawn = [row for row in rows if row.method in (task.drawn or ("dreamerv3",))]
        assert drawn and {row.budget for row in drawn} == {task.steps * task.frames_per_step()}


def test_scales_of_procgen_give_the_published_mean_of_normalised_scores() -> None:
    tasks = load_benchmark(["procgen"]).tasks
    for method, mean in (("dreamerv3", 0.6569), ("ppg", 0.6446), ("ppo_fixhp", 0.4254)):  # rows ALL of scores.csv
        scores = []
        for task in tasks:
            (row,) = (row for row in published(["procgen"], task.published) if row.method == method)
            assert task.low is not None and task.high is not None
            scores.append((row.mean - task.low) / (task.high - task.low))
        assert len(scores) == 16 and sum(scores) / 16 == pytest.approx(mean, abs=1e-4)


def test_steps_of_bsuite_are_its_episodes_by_their_length() -> None:
    suite, sweep = pytest.importorskip("bsuite"), pytest.importorskip("bsuite.sweep")
    tasks = {task.env.partition(":")[2]: task.steps for task in load_benchmark(["bsuite"]).tasks}
    for name, steps in tasks.items():
        env, length = suite.load_from_id(name), 0
        step = env.reset()
        while not step.last() and length < 1000:
            step, length = env.step(0), length + 1
        wanted = 1000 if name.startswith("cartpole") else length  # whose poles fall before their time is over
        assert steps == sweep.EPISODES[name] * wanted
    experiments = {one.partition("/")[0] for one in sweep.SWEEP if not one.startswith("mnist")}
    assert {name.partition("/")[0] for name in tasks} == experiments


def test_a_mission_is_observed_beside_the_symbols() -> None:
    (task,) = load_benchmark(["minigrid"]).select(["MiniGrid-GoToDoor-5x5-v0"]).tasks
    assert task.config(0, 1).env.kwargs == {"view": "symbols", "mission": True}


def test_presets_hold_the_protocol() -> None:
    task = load_benchmark(["dmc_proprio"]).select(["cartpole_swingup"]).tasks[0]
    assert task.steps == load_config(["dmc_proprio"]).train.steps == 250_000
    assert task.frames_per_step() == 2 and task.threshold == 800
    game = load_benchmark(["atari100k"]).select(["pong"]).tasks[0]
    assert game.steps * game.frames_per_step() == 400_000
    assert game.threshold == pytest.approx(-20.7 + 0.8 * (14.6 + 20.7))


def test_environments_by_their_ids() -> None:
    benchmark = load_benchmark(["CartPole-v1", "toy:catch"], ["classic"])
    assert [task.env for task in benchmark.tasks] == ["CartPole-v1", "toy:catch"]
    assert benchmark.tasks[0].steps == 12_000 and benchmark.tasks[0].threshold is None
    assert benchmark.tasks[1].folder == "toy_catch"


def test_settings_for_all_tasks() -> None:
    benchmark = load_benchmark(["classic"])
    changed = with_settings(
        benchmark, steps=900, size="1m", overrides=["replay.ratio=64", "env.num_envs=2"], episodes=7
    )
    for task in changed.tasks:
        config = task.config(0, changed.episodes)
        assert (config.train.steps, config.replay.ratio, config.env.num_envs) == (900, 64, 2)
        assert config.model.deter == 512 and config.train.eval_episodes == 7
    assert changed.changed == ("900 env steps", "size 1m", "7 episodes", "replay.ratio=64", "env.num_envs=2")
    assert with_settings(benchmark, episodes=benchmark.episodes).changed == ()


def test_jobs_go_through_all_tasks_before_the_next_seed(tmp_path: Path) -> None:
    benchmark = load_benchmark(["classic"]).select(["CartPole-v1", "Pendulum-v1"], ["dreamer", "dreamer"])
    jobs = jobs_of(benchmark, tmp_path, [3, 4])
    assert [(job.task.env, job.seed) for job in jobs] == [
        ("CartPole-v1", 3), ("Pendulum-v1", 3), ("CartPole-v1", 4), ("Pendulum-v1", 4),
    ]  # fmt: skip
    assert jobs[0].folder == tmp_path / "CartPole-v1" / "dreamer-3"
    assert [job_from(job.text()) for job in jobs] == jobs


def test_what_is_named_twice_is_run_once(tmp_path: Path) -> None:
    names = ["CartPole-v1", "Pendulum-v1", "CartPole-v1"]
    benchmark = load_benchmark(["classic"]).select(names, ["ppo", "random", "ppo"])
    jobs = jobs_of(benchmark, tmp_path, [0])
    assert [(job.task.env, job.method) for job in jobs] == [
        ("CartPole-v1", "ppo"), ("CartPole-v1", "random"), ("Pendulum-v1", "ppo"), ("Pendulum-v1", "random"),
    ]  # fmt: skip


def test_methods_that_a_task_leaves_out(tmp_path: Path) -> None:
    task = Task("CartPole-v1", 100, methods=("dreamer", "ppo"), budgets={"ppo": 5000})
    assert task.allows("ppo") and not task.allows("sac")
    assert task.steps_of("ppo") == 5000 and task.steps_of("dreamer") == 100


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks: {}", "has no tasks"),
        ("speed: 3\ntasks: {CartPole-v1: {}}", "unknown field 'speed'"),
        ("tasks: {CartPole-v1: {goals: 3}}", "unknown field 'goals'"),
        ("tasks: {CartPole-v1: {low: 5, high: 5}}", "give both, low below high"),
        ("tasks: {CartPole-v1: {low: 5}}", "give both, low below high"),
        ("tasks: {CartPole-v1: {low: abc, high: 5}}", "low is 'abc': it should be a number"),
        ("tasks: {CartPole-v1: {steps: 1.5}}", "steps is 1.5: it should be a whole number"),
        ("seeds: 0\ntasks: {CartPole-v1: {}}", "seeds is 0: it should be a whole number from 1 on"),
        ("tasks: {CartPole-v1: 5}", "got 5 for the values of a task"),
        ("tasks: {CartPole-v1: {budgets: {dqn: 5}}}", "no method 'dqn'"),
        ("tasks: {CartPole-v1: {budgets: {dreamer: 5}}}", "are those of other methods than dreamer"),
        ("methods: [dqn]\ntasks: {CartPole-v1: {}}", "no method 'dqn': choose from dreamer, ppo, sac, random"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_benchmark([str(path)])


def test_numbers_that_yaml_reads_as_texts(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("title: 5\ntasks: {CartPole-v1: {steps: 1e5, low: 0, high: 1e2}}")
    benchmark = load_benchmark([str(path)])
    assert benchmark.tasks[0].steps == 100_000 and benchmark.tasks[0].high == 100.0 and benchmark.title == "5"


def test_another_preset_brings_its_own_budget() -> None:
    benchmark = load_benchmark(["dmc_proprio"], ["classic"])
    assert {task.steps for task in benchmark.tasks} == {12_000} and benchmark.changed == ("preset classic",)


def test_unknown_names_are_told() -> None:
    with pytest.raises(ConfigError, match=r"Is 'clasic' the benchmark 'classic'\?"):
        load_benchmark(["clasic"])
    with pytest.raises(ConfigError, match=r"'classic'\? Give one benchmark"):
        load_benchmark(["classic", "gate"])
    with pytest.raises(ConfigError, match="no benchmark 'nothing': choose from"):
        load_benchmark(["nothing"])
    with pytest.raises(ConfigError, match="Name a benchmark"):
        load_benchmark([])
    with pytest.raises(ConfigError, match="no benchmark file"):
        load_benchmark(["nowhere.yaml"])
    with pytest.raises(ConfigError, match="no task 'Pong': choose from CartPole-v1"):
        load_benchmark(["classic"]).select(["Pong"])


@pytest.mark.parametrize("text", ["train.steps=5", "train.eval_episodes=5", "seed=3", "env.id=CartPole-v1"])
def test_what_options_are_for_is_not_set_as_a_value(text: str) -> None:
    with pytest.raises(ConfigError, match=f"{text.split('=')[0]} of a benchmark is not set as a value: use "):
        with_settings(load_benchmark(["classic"]), overrides=[text])


def test_frames_of_a_step_stay_what_the_definition_says() -> None:
    with pytest.raises(
        ConfigError, match=r"env\.kwargs\.repeat .* use a YAML file of your own, with its `frames`"
    ):
        with_settings(load_benchmark(["atari100k"]), overrides=["env.kwargs.repeat=1"])
    mine = load_benchmark(["my_module:Mine-v1"])
    assert with_settings(mine, overrides=["env.kwargs.repeat=3"]).tasks[0].overrides == {
        "env": {"kwargs": {"repeat": 3}}
    }
