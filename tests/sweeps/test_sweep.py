"""A sweep's file, and the runs that it comes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamer_agent.config import load_config
from dreamer_agent.errors import ConfigError
from dreamer_agent.sweeps.sweep import Sweep, identity_of, load_sweep

WHOLE = """
title: Two environments
about: What it is for.
base: classic
values: {train.steps: 2000, loss: {free_nats: 0.5}}
axes:
  - grid: {env.id: [CartPole-v1, Acrobot-v1], replay.ratio: [32, 64]}
seeds: 2
exclude: [{env.id: Acrobot-v1, replay.ratio: [64, 128]}]
budget: {env_steps: 1e6}
"""

EXPERIMENTS = Path(__file__).parent.parent.parent / "experiments"


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_a_file_becomes_runs(tmp_path: Path) -> None:
    sweep = load_sweep(written(tmp_path, WHOLE), ["train.log_every=50"])
    runs = sweep.settings()
    assert [(run.config.env.id, run.config.replay.ratio, run.seed) for run in runs] == [
        ("CartPole-v1", 32, 0), ("CartPole-v1", 64, 0), ("Acrobot-v1", 32, 0),
        ("CartPole-v1", 32, 1), ("CartPole-v1", 64, 1), ("Acrobot-v1", 32, 1),
    ]  # fmt: skip
    config = runs[0].config
    assert (config.train.steps, config.loss.free_nats, config.train.log_every) == (2000, 0.5, 50)
    assert config.model == load_config(["classic"]).model
    assert runs[0].name.startswith("CartPole-v1-ratio=32-0-") and len({run.name for run in runs}) == 6
    assert sweep.name == "mine" and sweep.varied() == ["env.id", "replay.ratio"]
    assert sweep.budget == {"env_steps": 1e6} and sweep.title == "Two environments"


def test_names_of_runs_stay_when_the_sweep_grows() -> None:
    few = Sweep("s", base=("classic",), axes=({"grid": {"replay.ratio": [32]}},)).settings()
    many = Sweep(
        "other", base=("classic",), axes=({"grid": {"replay.ratio": [64, 32]}},), seeds=(0, 1)
    ).settings()
    assert few[0].name in {run.name for run in many}


def test_what_a_run_goes_on_with_is_no_part_of_its_identity() -> None:
    config = load_config(["classic"])
    for same in ("train.steps=7000", "train.log_every=3", "train.loop=device", "train.eval_episodes=9"):
        assert identity_of(load_config(["classic"], [same])) == identity_of(config)
    for other in ("seed=1", "replay.ratio=8", "env.id=Acrobot-v1", "train.max_skipped=3"):
        assert identity_of(load_config(["classic"], [other])) != identity_of(config)


def test_presets_and_sizes_are_axes_too() -> None:
    axes = ({"zip": {"preset": ["classic", ["pendulum"]], "env.id": ["CartPole-v1", "Pendulum-v1"]}},
            {"grid": {"size": ["nano", "tiny"]}})  # fmt: skip
    runs = Sweep("s", axes=axes, only=({"size": "tiny"}, {"preset": "classic"})).settings()
    assert [(run.config.env.id, run.config.model.deter) for run in runs] == [
        ("CartPole-v1", 128), ("CartPole-v1", 256), ("Pendulum-v1", 256),
    ]  # fmt: skip
    assert runs[2].config.env.action_repeat == 2


def test_equal_points_are_one_run() -> None:
    ratio = load_config(["classic"]).replay.ratio
    axes = ({"list": [{}, {"replay.ratio": ratio}, {"replay.ratio": 1}]},)
    assert len(Sweep("s", base=("classic",), axes=axes).settings()) == 2


def test_a_template_names_runs() -> None:
    axes = ({"grid": {"optimizer.learning_rate": [1.23456e-4]}},)
    sweep = Sweep("s", axes=axes, template="{env.id} lr {optimizer.learning_rate}/s{seed}", seeds=(3,))
    assert sweep.settings()[0].name.startswith("CartPole-v1_lr_0.0001235_s3-")
    with pytest.raises(ConfigError, match=r"has \{lr\}: known are"):
        Sweep("s", template="{lr}").settings()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("axis: []", "unknown field 'axis': known are name, title"),
        ("template: x", "unknown field 'template'"),
        ("axes: {grid: {}}", "axes is .*: write a list"),
        ("seeds: 0", "seeds is 0: give a number of seeds"),
        ("seeds: [a]", "give a number of seeds, or a list"),
        ("only: [3]", "only holds 3"),
        ("values: 3", "values are 3"),
        ("values: {seed: 3}", "the seed is no value: give `seeds`"),
        ("values: {size: nano}", "the size is no value: write `size: nano` beside the values"),
        ("values: {preset: classic}", "the preset is no value: write `base: classic`"),
        ("base: 3", "base has the preset 3: give a name"),
        ("slurm: 3", "slurm is 3: write submitit's parameters"),
        ("ray: 3", "ray is 3: write what a run takes"),
        ("budget: {minutes: 3}", "it may limit runs, env_steps, gb"),
        ("budget: {gb: 0}", "gb=0: give a number above 0"),
        ("budget: {gb: many}", "give numbers"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_sweep(written(tmp_path, text))


@pytest.mark.parametrize(
    ("sweep", "sentence"),
    [
        (Sweep("s", axes=({"grid": {"replay.ration": [1]}},)), "did you mean replay.ratio"),
        (Sweep("s", base=("clasic",)), "did you mean classic"),
        (Sweep("s", exclude=({"env.id": "CartPole-v1"},)), "has no runs: its filters leave out all"),
        (Sweep("s", only=({"ratio": 3},)), "asks for 'ratio', which is no key"),
        (Sweep("s", exclude=({"env.id": "none", "ratio": 3},)), "asks for 'ratio', which is no key"),
        (Sweep("s", exclude=({"replay.ratio": "many"},)), "takes a value of type float"),
        (Sweep("s", axes=({"grid": {"seed": [0, 1]}},)), "axes of the sweep 's' set the seed: give `seeds`"),
        (Sweep("s", axes=({"grid": {"train.steps": [9, 8]}},)), r"differ in train\.steps \(9 and 8\) only"),
        (Sweep("s", axes=({"list": [{"preset": 3}]},)), "An axis has the preset 3"),
        (Sweep("s", axes=({"grid": {3: [1]}},)), "Unknown configuration key '3'"),
        (Sweep("s", axes=({"grid": {"replay.ratio": ["many"]}},)), "takes a value of type float"),
    ],
)
def test_what_is_wrong_in_its_runs_is_told(sweep: Sweep, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        sweep.settings()


def test_an_override_that_the_axes_would_hide_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE)
    with pytest.raises(ConfigError, match=r"replay\.ratio was given for all runs, but the axes of .* set it"):
        load_sweep(path, ["replay.ratio=3"])
    some = written(tmp_path, "axes: [{list: [{}, {replay.ratio: 64}]}]")
    assert [run.config.replay.ratio for run in load_sweep(some, ["replay.ratio=3"]).settings()] == [3, 64]


def test_empty_fields_are_as_if_left_out(tmp_path: Path) -> None:
    sweep = load_sweep(written(tmp_path, "title:\nabout:\nname:\nsize:\nbase:\naxes:\nvalues:\nbudget:\n"))
    assert sweep == Sweep("mine")


def test_filters_have_the_types_of_the_configuration() -> None:
    rates = ({"grid": {"optimizer.learning_rate": ["1e-4", 1e-3]}},)  # YAML reads 1e-4 as text
    for same in ("1e-4", 1e-4, {"learning_rate": "1e-4"}):
        filter_ = {"optimizer": same} if isinstance(same, dict) else {"optimizer.learning_rate": same}
        (run,) = Sweep("s", axes=rates, exclude=(filter_,)).settings()
        assert run.config.optimizer.learning_rate == 1e-3
    sizes = ({"list": [{}, {"size": "tiny"}]},)
    (run,) = Sweep("s", size="nano", axes=sizes, only=({"size": "nano"},)).settings()
    assert run.config.model.deter == 128 and run.point["size"] == "nano"


def test_what_an_environment_is_handed_may_be_an_axis() -> None:
    axes = ({"list": [{}, {"env.kwargs": {"a": 1}}, {"env.kwargs.a": None}, {"env": {"kwargs": {"a": 1}}}]},)
    sweep = Sweep("s", axes=axes, exclude=({"env.kwargs.a": 7},), template="a{env.kwargs.a}")
    runs = sweep.settings()
    assert [dict(run.config.env.kwargs) for run in runs] == [{}, {"a": 1}, {"a": None}]
    assert sweep.varied() == ["env.kwargs.a"] and runs[1].name.startswith("a1-")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no sweep file"):
        load_sweep(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_sweeps_that_come_with_us_are_what_they_say(path: Path) -> None:
    sweep = load_sweep(path)
    settings = sweep.settings()
    assert len(settings) == sweep.budget["runs"] == len({setting.identity for setting in settings})
    assert sum(setting.config.train.steps for setting in settings) <= sweep.budget["env_steps"]
    assert sweep.title and sweep.about
