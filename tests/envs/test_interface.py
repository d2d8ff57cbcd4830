"""The spaces of an environment, kept without it: as JSON, and from the specs of JAX-native environments."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import make_env
from dreamer_agent.envs.interface import Interface, interface_of_specs, space_from_json, space_to_json
from dreamer_agent.envs.masks import masks_in_obs
from dreamer_agent.envs.spaces import rescale
from dreamer_agent.errors import RunDirectoryError, SpaceError
from dreamer_agent.specs import ArraySpec, mask_specs


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (2,), np.int32),
        spaces.Box(-np.inf, np.inf, (), np.int64),
        spaces.Box(np.array([-np.inf, -3.0]), np.array([np.inf, 5.0]), dtype=np.int16),
        spaces.Box(np.array([[-np.inf], [0.1]], np.float32), np.array([[1], [np.inf]], np.float32)),
        spaces.Box(0, 2**62, (1,), np.int64),
        spaces.Box(0, np.inf, (3,), np.float64),
    ],
)
def test_what_is_unbounded_stays_so(space: spaces.Box) -> None:
    """Infinite bounds of integers look like finite ones, but actions are not stretched over them."""
    again: Any = space_from_json(json.loads(json.dumps(space_to_json(space))))
    assert again == space
    np.testing.assert_array_equal(again.bounded_below, space.bounded_below)
    np.testing.assert_array_equal(again.bounded_above, space.bounded_above)
    action = np.linspace(-2, 2, 5).reshape(5, *(1,) * len(space.shape)) * np.ones(space.shape)
    np.testing.assert_array_equal(rescale(action, again), rescale(action, space))


def test_a_space_of_another_kind_cannot_be_written() -> None:
    with pytest.raises(SpaceError, match="type Sequence cannot be saved"):
        space_to_json(spaces.Sequence(spaces.Discrete(2)))


def test_an_interface_survives_its_file(tmp_path: Path) -> None:
    observed = spaces.Dict({"x": spaces.Box(0, 255, (8,), np.uint8), "action_mask": spaces.MultiBinary(3)})
    before = Interface(observed, spaces.Discrete(3, start=1), True, {"x": "onehot"})
    before.save(tmp_path / "spaces.json")
    after = Interface.load(tmp_path / "spaces.json")
    assert after == before
    assert after.obs_specs == before.obs_specs
    assert after.obs_specs == {
        "x": ArraySpec("discrete", (8,), 256),
        "action_mask": ArraySpec("discrete", (3,), 2),
    }
    obs = {"x": np.full((2, 8), 7, np.uint8), "action_mask": np.array([[1, 0, 1], [0, 1, 0]], np.int8)}
    encoded = after.encode(obs, 2)
    assert encoded["action_mask"].tolist() == [[1, 0, 1], [0, 1, 0]]
    assert encoded["x"].tolist() == [[7] * 8] * 2
    assert after.actions.decode({"action": np.array([0, 2])}).tolist() == [1, 3]


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[]", '{"observation_space": {"type": "Discrete"}}', '{"observation_space": 3}']
)
def test_a_damaged_file_is_told_in_one_sentence(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "spaces.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RunDirectoryError, match=r"does not hold the spaces of an agent .*: copy it again"):
        Interface.load(path)


ACTIONS = {
    "move": ArraySpec("continuous", (2,)),
    "press": ArraySpec("discrete", (2, 3), 4),
    "go": ArraySpec("discrete", (), 1),
}
SPECS = {
    "number": ArraySpec("continuous", ()),
    "table": ArraySpec("continuous", (2, 3, 4)),
    "deep/word": ArraySpec("discrete", (5,), 300),
    "one": ArraySpec("discrete", (), 10_000),
    "image": ArraySpec("image", (12, 9, 3)),
    "odd_image": ArraySpec("image", (2, 3, 7)),  # by its shape alone, the first axis would be the channels
}


def test_specs_become_spaces_that_give_the_same_specs(tmp_path: Path) -> None:
    before = interface_of_specs({**SPECS, **mask_specs(ACTIONS)}, ACTIONS)
    before.save(tmp_path / "spaces.json")
    for interface in (before, Interface.load(tmp_path / "spaces.json")):
        assert interface.obs_specs == {**SPECS, **mask_specs(ACTIONS)}
        assert interface.act_specs == ACTIONS
        assert interface.masked
        rng = np.random.default_rng(0)
        obs = {
            key: rng.integers(0, spec.classes or 256, (2, *spec.shape)).astype(spec.dtype)
            for key, spec in {**SPECS, **mask_specs(ACTIONS)}.items()
        }
        for key in mask_specs(ACTIONS):
            obs[key][..., 0] = 1
        encoded = interface.encode(obs, 2)
        assert encoded.keys() == obs.keys()
        for key, value in obs.items():
            np.testing.assert_array_equal(encoded[key], value)
        assert len(masks_in_obs(obs) or []) == 2


def test_the_mask_of_a_single_action_needs_no_nesting() -> None:
    actions = {"action": ArraySpec("discrete", (), 3)}
    interface = interface_of_specs({"x": ArraySpec("continuous", (1,)), **mask_specs(actions)}, actions)
    encoded = interface.encode({"x": np.zeros((1, 1), np.float32), "action_mask": np.array([[0, 1, 1]])}, 1)
    assert encoded["action_mask"].tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(
    "masks",
    [
        {"action_mask/go": ArraySpec("discrete", (1,), 2)},  # none for "press"
        {**mask_specs(ACTIONS), "action_mask/press": ArraySpec("discrete", (4,), 2)},
        {**mask_specs(ACTIONS), "action_mask/go": ArraySpec("continuous", (1,))},
        {**mask_specs(ACTIONS), "action_mask/move": ArraySpec("discrete", (2,), 2)},
    ],
)
def test_masks_by_specs_are_for_every_choice_and_of_its_shape(masks: dict[str, ArraySpec]) -> None:
    with pytest.raises(SpaceError, match=r"do not fit the actions: .*'action_mask/press' \[2, 3, 4\]"):
        interface_of_specs({**SPECS, **masks}, ACTIONS)


def test_masks_by_names_that_fit_no_action_are_refused() -> None:
    space = spaces.Dict({"x": spaces.Discrete(2), "action_mask/other": spaces.MultiBinary(2)})
    with pytest.raises(SpaceError, match="'action_mask/other'"):
        _ = Interface(space, spaces.Discrete(2), True).obs_specs


@pytest.mark.parametrize("name", ["CartPole-v1", "toy:catch"])
def test_environments_have_interfaces_that_agree_with_them(name: str, tmp_path: Path) -> None:
    env = make_env(EnvConfig(id=name, num_envs=2))
    env.interface.save(tmp_path / "spaces.json")
    loaded = Interface.load(tmp_path / "spaces.json")
    assert dict(loaded.obs_specs) == dict(env.obs_specs)
    assert dict(loaded.act_specs) == dict(env.act_specs)
    assert dataclasses.replace(loaded) == env.interface
    env.close()
