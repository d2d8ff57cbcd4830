"""Configuration: presets, overrides, and what is said when something is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from dreamer_agent.config import (
    Config,
    all_keys,
    find_preset,
    load_config,
    preset_names,
    presets_folder,
    read_config,
    read_yaml,
    save_config,
)
from dreamer_agent.errors import ConfigError
from dreamer_agent.values import parse_override, to_dict


def error_of(run: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        run()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def preset(folder: Path, name: str, content: Any) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def test_nothing_given_is_the_default() -> None:
    assert load_config() == Config()


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_loads(name: str) -> None:
    content = yaml.safe_load(find_preset(name).read_text())
    config = to_dict(load_config([name]))
    flat = [(group, key) for group, values in content.items() if isinstance(values, dict) for key in values]
    assert flat
    for group, key in flat:
        assert config[group][key] == content[group][key]


def test_every_yaml_file_of_the_folder_is_a_preset() -> None:
    benchmarks = presets_folder() / "bench"  # they name presets and are none
    files = {path.resolve() for path in presets_folder().rglob("*.y*ml") if path.parent != benchmarks}
    assert {find_preset(name).resolve() for name in preset_names()} == files


SIZES = {  # the paper's table of model sizes, and two small ones of our own
    "nano": (128, 32, 8), "tiny": (256, 64, 8), "1m": (512, 64, 4), "12m": (2048, 256, 16),
    "25m": (3072, 384, 24), "50m": (4096, 512, 32), "100m": (6144, 768, 48),
    "200m": (8192, 1024, 64), "400m": (12288, 1536, 96),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_those_of_the_paper(size: str) -> None:
    model = load_config([f"size/{size}"]).model
    assert (model.deter, model.hidden, model.classes) == SIZES[size]
    assert model.units == model.hidden


def test_presets_stack_and_later_ones_win(tmp_path: Path) -> None:
    first = preset(tmp_path, "first", {"replay": {"ratio": 8, "batch_size": 3}, "seed": 5})
    second = preset(tmp_path, "second", {"replay": {"ratio": 9}})
    config = load_config([first, second])
    assert (config.replay.ratio, config.replay.batch_size, config.seed) == (9.0, 3, 5)
    assert load_config([second, first]).replay.ratio == 8.0
    assert config.replay.batch_length == Config().replay.batch_length
    assert load_config(["classic", "size/1m"]).model.deter == 512
    assert load_config(["size/1m", "classic"]).model.deter == 128


@pytest.mark.parametrize("override", ["model.policy_unimix=1", "model.unimix=-0.1"])
def test_a_share_that_is_none_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="at least 0 and less than 1"):
        load_config(overrides=[override])


def test_overrides_come_after_presets_and_later_ones_win() -> None:
    config = load_config(["classic"], ["replay.ratio=3", "replay.ratio=4", "env.id=Pendulum-v1"])
    assert config.replay.ratio == 4.0
    assert config.env.id == "Pendulum-v1"
    assert config.replay.batch_size == load_config(["classic"]).replay.batch_size


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("optimizer.learning_rate=1e-4", ("optimizer", "learning_rate"), 1e-4),
        ("optimizer.learning_rate=1", ("optimizer", "learning_rate"), 1.0),
        ("train.steps=1e6", ("train", "steps"), 1_000_000),
        ("train.steps=20_000", ("train", "steps"), 20_000),
        ("replay.online=false", ("replay", "online"), False),
        ("model.channel_multipliers=[1, 2]", ("model", "channel_multipliers"), (1, 2)),
        ("env.kwargs={size: 5, deep: {a: [1, x]}}", ("env", "kwargs"), {"size": 5, "deep": {"a": [1, "x"]}}),
        ("env.kwargs.size=5", ("env", "kwargs"), {"size": 5}),
        ("env.id=minigrid:MiniGrid-Empty-5x5-v0", ("env", "id"), "minigrid:MiniGrid-Empty-5x5-v0"),
        ("env.id=a=b", ("env", "id"), "a=b"),
        ("precision=bfloat16", ("precision",), "bfloat16"),
    ],
)
def test_overrides_are_read_as_the_type_of_their_field(override: str, path: tuple[str, ...], value: Any) -> None:
    found: Any = load_config(overrides=[override])
    for part in path:
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "neighbour"),
    [
        ("replay.ratoi=1", "replay.ratio"),
        ("ratio=1", "replay.ratio"),
        ("train.ratio=1", "replay.ratio"),
        ("modle.deter=8", "model"),
        ("optimizer.lr=1", "optimizer."),
        ("learning_rate=1", "optimizer.learning_rate"),
        ("sead=1", "seed"),
        ("env.isolate=true", "env.processes"),
    ],
)
def test_an_unknown_key_names_its_neighbours(override: str, neighbour: str) -> None:
    message = error_of(lambda: load_config(overrides=[override]))
    key = override.partition("=")[0]
    assert key.split(".")[0] in message
    assert message.startswith("Unknown configuration key '")
    assert neighbour in message.partition("did you mean" if "did you mean" in message else "known are")[2]


def test_an_unknown_key_of_a_preset_names_its_neighbours(tmp_path: Path) -> None:
    path = preset(tmp_path, "wrong", {"model": {"deterr": 3}})
    assert "'model.deterr': did you mean model.deter" in error_of(lambda: load_config([path]))


def test_an_unknown_preset_names_its_neighbours() -> None:
    assert error_of(lambda: load_config(["clasic"])) == "Unknown preset 'clasic': did you mean classic?"
    assert "size/12m" in error_of(lambda: load_config(["size/12"]))
    message = error_of(lambda: load_config(["xyzzy"]))
    assert all(name in message for name in preset_names())
    assert "no preset file 'nowhere.yaml'" in error_of(lambda: load_config(["nowhere.yaml"]))
    assert "Unknown preset '../configs/classic'" in error_of(lambda: load_config(["../configs/classic"]))


@pytest.mark.parametrize(
    ("override", "type_"),
    [
        ("model.deter=big", "int"),
        ("model.deter=1.5", "int"),
        ("model.deter=true", "int"),
        ("seed=", "int"),
        ("seed=nan", "int"),
        ("seed=.inf", "int"),
        ("seed=[1]", "int"),
        ("replay.ratio=fast", "float"),
        ("replay.ratio=true", "float"),
        ("replay.ratio={a: 1}", "float"),
        ("replay.online=1", "bool"),
        ("replay.online=maybe", "bool"),
        ("env.id=5", "str"),
        ("env.kwargs=5", "Mapping"),
        ("model.channel_multipliers=3", "tuple"),
        ("model.channel_multipliers=[a]", "int"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_what_was_expected(override: str, type_: str) -> None:
    message = error_of(lambda: load_config(overrides=[override]))
    assert message.startswith(f"'{override.partition('=')[0]}' takes a value of type {type_}")


def test_a_choice_names_its_values() -> None:
    message = error_of(lambda: load_config(overrides=["precision=float64"]))
    assert message == "'precision' takes one of auto, float32, bfloat16; got 'float64'."


@pytest.mark.parametrize("text", ["replay.ratio", "=3", ""])
def test_an_override_has_a_key_and_a_value(text: str) -> None:
    assert "form key=value" in error_of(lambda: parse_override(text))


def test_a_group_takes_no_value() -> None:
    assert "'replay' is a group of values, got 3" in error_of(lambda: load_config(overrides=["replay=3"]))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("env.num_envs=0", "env.num_envs"),
        ("env.action_repeat=-1", "env.action_repeat"),
        ("env.timeout=0", "env.timeout"),
        ("env.max_faults=-1", "env.max_faults"),
        (
            "env.processes=-1",
            "env.processes=-1 should be how many processes the environments are spread over: set",
        ),
        ("replay.batch_size=0", "replay.batch_size"),
        ("replay.batch_length=1", "replay.batch_length"),
        ("behaviour.discount_horizon=1", "behaviour.discount_horizon"),
        ("train.steps=0", "train.steps"),
        ("train.eval_episodes=0", "train.eval_episodes"),
        ("model.deter=100", "model.deter=100 should be a multiple of model.blocks=8"),
        ("model.classes=257", "model.classes=257 should lie between 2 and 256"),
        ("model.classes=1", "model.classes=1 should lie between 2 and 256"),
        ("replay.capacity=263", "raise it to at least 264"),
    ],
)
def test_values_that_do_not_fit_are_refused(override: str, told: str) -> None:
    assert told in error_of(lambda: load_config(overrides=[override]))


@pytest.mark.parametrize(
    ("older", "processes"),
    [({"isolate": False}, 0), ({"isolate": True, "num_envs": 7}, 7), ({"isolate": True}, 4)],
)
def test_a_run_that_isolated_its_environments_reads_as_processes(
    tmp_path: Path, older: dict[str, Any], processes: int
) -> None:
    config = read_config(Path(preset(tmp_path, "config", {"env": {"id": "CartPole-v1", **older}})))
    assert config.env.processes == processes and config.env.num_envs == older.get("num_envs", 4)


def test_the_smallest_capacity_that_the_error_names_is_accepted() -> None:
    assert load_config(overrides=["replay.capacity=264"]).replay.capacity == 4 * (64 + 2)


def test_a_saved_configuration_reads_back_the_same(tmp_path: Path) -> None:
    overrides = ["env.kwargs={a: [1, {b: null}]}", "model.channel_multipliers=[5, 6]", "optimizer.eps=1e-30"]
    config = load_config(["classic", "size/tiny"], [*overrides, "seed=3", "env.id='5'", "replay.online=false"])
    save_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config
    assert load_config([str(tmp_path / "config.yaml")]) == config
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == to_dict(config)


HOSTILE = [
    "!!python/object/apply:os.system ['touch {file}']",
    "seed: !!python/object/apply:os.system ['touch {file}']",
    "env: {{kwargs: {{a: !!python/object/apply:builtins.open ['{file}', w]}}}}",
    "env: {{id: !!python/name:os.system }}",
    "env: {{id: !!python/module:antigravity }}",
    "? !!python/object/new:os.system ['touch {file}']\n: 1",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_yaml_is_refused_and_not_executed(tmp_path: Path, text: str) -> None:
    witness = tmp_path / "executed"
    path = preset(tmp_path, "hostile", text.format(file=witness))
    assert "is not valid YAML" in error_of(lambda: load_config([path]))
    assert "is not valid YAML" in error_of(lambda: read_config(Path(path)))
    assert not witness.exists()


@pytest.mark.parametrize("text", ["env.kwargs={a: [1", "seed=!!python/name:os.system"])
def test_an_override_that_is_no_yaml_is_refused(text: str) -> None:
    assert "\n" not in error_of(lambda: load_config(overrides=[text]))


def test_overrides_of_single_keyword_arguments_add_up() -> None:
    config = load_config(overrides=["env.kwargs.a=1", "env.kwargs.b=2"])
    assert config.env.kwargs == {"a": 1, "b": 2}


def test_hostile_overrides_are_not_executed(tmp_path: Path) -> None:
    witness = tmp_path / "executed"
    with pytest.raises(ConfigError):
        load_config(overrides=[f"seed=!!python/object/apply:os.system ['touch {witness}']"])
    assert not witness.exists()


@pytest.mark.parametrize(
    ("text", "told"), [("- 1\n- 2", "got list"), ("just words", "got str"), ("a: [1", "not valid")]
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, told: str) -> None:
    assert told in error_of(lambda: load_config([preset(tmp_path, "odd", text)]))


def test_an_empty_preset_changes_nothing(tmp_path: Path) -> None:
    assert read_yaml(Path(preset(tmp_path, "empty", "# nothing yet\n"))) == {}
    assert load_config([preset(tmp_path, "empty", "")]) == Config()


def test_configurations_are_frozen() -> None:
    config: Any = load_config()
    for part, name in [(config, "seed"), (config.replay, "ratio"), (config.env, "id"), (config.model, "deter")]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, name, 1)


def test_loading_leaves_the_default_alone() -> None:
    load_config(["classic"], ["env.kwargs={a: 1}", "seed=9"])
    assert Config().env.kwargs == {}
    assert Config().seed == 0


def test_all_keys_are_known_and_can_be_set() -> None:
    keys = all_keys()
    assert len(keys) == len(set(keys)) > 50
    flat = to_dict(Config())
    for key in keys:
        value: Any = flat
        for part in key.split("."):
            value = value[part]
        assert load_config(overrides=[f"{key}={yaml.safe_dump(value, default_flow_style=True)}"]) == Config()


def test_updates_per_env_step() -> None:
    assert load_config(overrides=["replay.ratio=512"]).updates_per_env_step == 512 / (16 * 64)
