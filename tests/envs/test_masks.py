"""Legal actions as environments tell them: every form, every autoreset mode, never another one's row."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import source_of
from dreamer_agent.envs.gymnasium_adapter import CheckedEnv, GymnasiumEnv, make_vector
from dreamer_agent.envs.masks import MaskCodec, masks_in_info, masks_in_obs
from dreamer_agent.envs.spaces import ActionCodec
from dreamer_agent.errors import ConfigError, EnvironmentFault, SpaceError
from dreamer_agent.specs import ArraySpec
from tests.envs.masked_envs import Picky

MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]


def bits(*values: int) -> np.ndarray:
    return np.array(values, np.int8)


def encode(space: gym.Space, *masks: Any, last: Any = None) -> dict[str, list]:
    encoded = MaskCodec(ActionCodec(space)).encode(list(masks), last)
    assert all(value.dtype == np.int32 for value in encoded.values())
    return {key: value.tolist() for key, value in encoded.items()}


def test_the_mask_of_a_discrete_action_counts_from_its_start() -> None:
    space = spaces.Discrete(3, start=-1)
    codec = MaskCodec(ActionCodec(space))
    assert codec.specs == {"action_mask": ArraySpec("discrete", (3,), 2)}
    assert encode(space, bits(1, 0, 1), [True, True, False], None) == {
        "action_mask": [[1, 0, 1], [1, 1, 0], [1, 1, 1]]
    }


UNEVEN, EVEN = spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([3, 3], start=[5, 6])
TABLE = spaces.MultiDiscrete(np.array([[2, 2], [2, 2]]))
UNEVEN_TABLE = spaces.MultiDiscrete(np.array([[1, 2], [3, 2]]))


@pytest.mark.parametrize(
    "raw",
    [(bits(1, 0), bits(0, 1, 1)), [[1, 0], [0, 1, 1]], bits(1, 0, 0, 1, 1), [1, 0, 0, 1, 1]],
    ids=["tuple", "lists", "flat", "flat_list"],
)
def test_masks_of_unequal_entries(raw: Any) -> None:
    assert encode(UNEVEN, raw) == {"action_mask/0": [[1, 0]], "action_mask/1": [[0, 1, 1]]}


@pytest.mark.parametrize(
    "raw",
    [(bits(1, 0, 0), bits(0, 1, 1)), np.array([[1, 0, 0], [0, 1, 1]]), bits(1, 0, 0, 0, 1, 1)],
    ids=["tuple", "table", "flat"],
)
def test_masks_of_equal_entries(raw: Any) -> None:
    assert encode(EVEN, raw) == {"action_mask": [[[1, 0, 0], [0, 1, 1]]]}


def test_masks_of_tables_are_nested_like_them() -> None:
    rows = ((bits(1, 0), bits(0, 1)), (bits(1, 1), bits(1, 0)))
    expected = {"action_mask": [[[[1, 0], [0, 1]], [[1, 1], [1, 0]]]]}
    assert (
        encode(TABLE, rows)
        == encode(TABLE, np.array(rows))
        == encode(TABLE, bits(1, 0, 0, 1, 1, 1, 1, 0))
        == expected
    )
    uneven = ((bits(1), bits(0, 1)), (bits(1, 0, 0), bits(1, 0)))
    assert encode(UNEVEN_TABLE, uneven) == encode(UNEVEN_TABLE, bits(1, 0, 1, 1, 0, 0, 1, 0)) == {
        "action_mask/0/0": [[1]], "action_mask/0/1": [[0, 1]],
        "action_mask/1/0": [[1, 0, 0]], "action_mask/1/1": [[1, 0]],
    }  # fmt: skip


def test_masks_of_multi_binary_in_both_forms() -> None:
    expected = {"action_mask": [[[1, 0], [0, 1], [1, 1]]]}
    assert encode(spaces.MultiBinary(3), bits(0, 1, 2)) == expected
    assert encode(spaces.MultiBinary(3), np.array([[1, 0], [0, 1], [1, 1]])) == expected


NESTED = spaces.Dict(
    {
        "left": spaces.Discrete(2),
        "right": spaces.Tuple([UNEVEN, spaces.Box(-1, 1, (2,)), spaces.Discrete(3)]),
    }
)


def test_masks_of_nested_actions_are_nested_like_them_and_members_may_be_left_out() -> None:
    names = ["action_mask/left", "action_mask/right/0/0", "action_mask/right/0/1", "action_mask/right/2"]
    assert list(MaskCodec(ActionCodec(NESTED)).specs) == names
    whole = {"left": bits(0, 1), "right": ((bits(1, 0), bits(0, 0, 1)), None, bits(0, 1, 0))}
    assert encode(NESTED, whole, {"left": bits(1, 0)}, {}, None) == dict(
        zip(
            names,
            [
                [[0, 1], [1, 0], [1, 1], [1, 1]],
                [[1, 0], [1, 1], [1, 1], [1, 1]],
                [[0, 0, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]],
                [[0, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]],
            ],
            strict=True,
        )
    )


@pytest.mark.parametrize(
    ("space", "raw"),
    [
        (spaces.Discrete(3), bits(1, 0)), (spaces.Discrete(3), bits(2, 0, 1)), (spaces.Discrete(3), "101"),
        (spaces.Discrete(3), 1), (spaces.Discrete(2), np.array([0.5, 1])), (UNEVEN, (bits(1, 0), bits(1, 1))),
        (UNEVEN, [[1, 0], 1]), (EVEN, (bits(1, 1, 1),)), (TABLE, (bits(1, 0), bits(0, 1))), (NESTED, {"left": 1}),
        (NESTED, {"right": bits(1, 0)}), (NESTED, bits(1, 0)), (spaces.MultiBinary(2), bits(3, 0)),
        (spaces.Discrete(2), np.array([[1, 0]])), (UNEVEN, [np.array([1, 0]), np.array([0, np.nan, 1])]),
    ],
)  # fmt: skip
def test_a_mask_of_another_form_is_told_in_one_sentence(space: gym.Space, raw: Any) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        encode(space, raw)
    message = str(caught.value)
    assert message.startswith("The ") and "mask" in message
    assert "\n" not in message and message.endswith(".")


def test_without_a_legal_action_the_episode_must_be_over() -> None:
    assert encode(spaces.Discrete(2), bits(0, 0), last=[True]) == {"action_mask": [[0, 0]]}
    for last in (None, [False]):
        with pytest.raises(
            EnvironmentFault, match="'action_mask' leaves no legal action although the episode goes on"
        ):
            encode(spaces.Discrete(2), bits(0, 0), last=last)
    with pytest.raises(EnvironmentFault, match="'action_mask/0' leaves no legal action"):
        encode(UNEVEN, (bits(0, 0), bits(1, 1, 1)))
    with pytest.raises(EnvironmentFault, match="leaves no legal action"):  # one entry without a choice is enough
        encode(EVEN, (bits(1, 1, 1), bits(0, 0, 0)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 2**16))
def test_what_gymnasium_samples_under_a_mask_is_legal_under_ours(counts: list[int], seed: int) -> None:
    space = spaces.Dict({"many": spaces.MultiDiscrete(counts), "one": spaces.Discrete(4, start=3)})
    space.seed(seed)
    rng = np.random.default_rng(seed)

    def draw(n: int) -> np.ndarray:
        mask = rng.integers(0, 2, n).astype(np.int8)
        mask[rng.integers(n)] = 1
        return mask

    mask = {"many": tuple(map(draw, counts)), "one": draw(4)}
    codec = ActionCodec(space)
    legal = {key[len("action_mask/") :]: value[0] for key, value in MaskCodec(codec).encode([mask]).items()}
    sample = space.sample(mask)
    assert legal["one"][sample["one"] - 3] == 1
    for entry, value in enumerate(sample["many"]):
        assert (legal[f"many/{entry}"][value] if len(set(counts)) > 1 else legal["many"][entry, value]) == 1


def test_masks_in_observations_are_taken_apart_by_environment() -> None:
    assert masks_in_obs(np.zeros(3)) is None
    assert masks_in_obs({"x": np.zeros(3)}) is None
    plain = masks_in_obs({"x": np.zeros(2), "action_mask": np.array([[1, 0], [0, 1]])})
    assert plain is not None
    assert [row.tolist() for row in plain] == [[1, 0], [0, 1]]
    nested = masks_in_obs({"action_mask": {"a": np.array([[1], [0]]), "b": (np.array([2, 3]), np.array([4, 5]))}})
    assert nested == [{"a": [1], "b": (2, 4)}, {"a": [0], "b": (3, 5)}]


def test_masks_in_infos_are_none_where_an_environment_gave_none() -> None:
    assert masks_in_info({}, 2) is None
    info = {"action_mask": np.array([[0, 0], [0, 1]]), "_action_mask": np.array([False, True])}
    first, second = masks_in_info(info, 2) or []
    assert first is None
    assert second.tolist() == [0, 1]
    assert masks_in_info({"action_mask": {}}, 2) == [None, None]


# Whole environments


def picky(kind: str, where: str, mode: AutoresetMode, lengths: tuple[int, ...] = (1, 3, 4)) -> GymnasiumEnv:
    makers = [lambda n=n, i=i: CheckedEnv(Picky(kind, where, n, i)) for i, n in enumerate(lengths)]
    return GymnasiumEnv(SyncVectorEnv(makers, autoreset_mode=mode))


@pytest.mark.parametrize("where", ["info", "obs"])
@pytest.mark.parametrize("kind", ["discrete", "uneven", "dict"])
@pytest.mark.parametrize("mode", MODES)
def test_rows_have_the_masks_of_their_own_step(mode: AutoresetMode, kind: str, where: str) -> None:
    env = picky(kind, where, mode)
    rng = np.random.default_rng(0)
    rows_of = {key: spec for key, spec in env.obs_specs.items() if key.startswith("action_mask")}
    assert rows_of.keys() == {
        f"action_mask{'' if key == 'action' else '/' + key}" for key in env.act_specs if "box" not in key
    }
    actions = {key: np.zeros((3, *spec.shape), spec.dtype) for key, spec in env.act_specs.items()}
    pending, seen = env.reset(0), 0
    for _ in range(25):
        for rows in pending:
            present = np.ones(3, bool) if rows.mask is None else rows.mask
            for index in np.flatnonzero(present):
                state = int(rows.obs["state" if where == "obs" else "obs"][index])
                named = MaskCodec(env.interface.actions).encode([Picky.legal(kind, state)])
                for key, value in named.items():
                    np.testing.assert_array_equal(rows.obs[key][index], value[0])
                    action = key.partition("/")[2] or "action"
                    actions[action][index] = (value[0] * rng.random(value[0].shape)).argmax(-1)
                seen += 1
        pending = env.step(actions)  # Picky asserts that every action is legal
    assert seen >= 75
    assert all(maker.unwrapped.steps_made > 5 for maker in env.env.envs)  # type: ignore[attr-defined]


@pytest.mark.parametrize("where", ["info", "obs"])
def test_a_mask_without_a_legal_action_in_the_middle_is_a_fault(where: str) -> None:
    class Stuck(Picky):
        def mask_of(self, state: int) -> Any:
            return super().mask_of(state) * (self.steps < 2)

    env = make_vector([lambda: Stuck("discrete", where, 5, 0)], 1)
    (rows,) = env.reset(0)
    for _ in range(1):
        (rows,) = env.step({"action": rows.obs["action_mask"].argmax(-1)})
    with pytest.raises(EnvironmentFault, match="leaves no legal action although the episode goes on"):
        env.step({"action": rows.obs["action_mask"].argmax(-1)})


def test_masked_actions_are_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"repeated 2 times may not stay so: set env\.action_repeat=1"):
        make_vector([lambda: Picky("discrete", "info", 5, 0)], 2)
    source = source_of(Picky("discrete", "obs", 5, 0))
    with pytest.raises(ConfigError, match="repeated 3 times"):
        source.make(EnvConfig(action_repeat=3), 1)


def test_a_mask_without_choices_is_refused() -> None:
    class Continuous(Picky):
        def __init__(self) -> None:
            super().__init__("discrete", "obs", 5, 0)
            self.action_space = spaces.Box(-1, 1, (2,))

    with pytest.raises(SpaceError, match=r"masks its actions, but Box.* has none to choose from"):
        make_vector([Continuous], 1)
