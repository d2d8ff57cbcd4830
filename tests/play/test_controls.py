"""Controls, keys and pictures of a game."""

from __future__ import annotations

import numpy as np
import pytest

from dreamer_agent.errors import ConfigError
from dreamer_agent.play.controls import actions_of, bindings_of, controls_of, values_of
from dreamer_agent.play.pictures import SIDE, bars, painter_of, picture
from dreamer_agent.plots.frames import GAP
from dreamer_agent.plots.style import IMAGINED
from dreamer_agent.specs import ArraySpec

MIXED = {
    "push": ArraySpec("continuous", (2,)),
    "gear": ArraySpec("discrete", (), 3),
    "fire": ArraySpec("discrete", (2,), 2),
}


def test_every_number_of_an_action_has_a_control() -> None:
    controls = controls_of(MIXED)
    assert [(c.key, c.index, c.classes) for c in controls] == [
        ("fire", 0, 2), ("fire", 1, 2), ("gear", 0, 3), ("push", 0, None), ("push", 1, None),
    ]  # fmt: skip
    actions = actions_of(controls, MIXED, [1, 0, 2, -0.5, 1])
    assert actions["gear"].shape == () and actions["gear"] == 2
    np.testing.assert_array_equal(actions["fire"], [1, 0])
    np.testing.assert_array_equal(actions["push"], np.array([-0.5, 1.0], np.float32))
    assert {name: x.dtype for name, x in actions.items()} == {name: spec.dtype for name, spec in MIXED.items()}
    assert values_of(controls, actions) == [1, 0, 2, -0.5, 1.0]
    assert [control.idle for control in controls] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 0, 3, 0, 0], r"'gear' \[0\] was given 3: give a whole number below 3"),
        ([0, 0, 0.5, 0, 0], "give a whole number below 3"),
        ([0, 0, 0, 1.5, 0], r"'push' \[0\] was given 1.5: give a number from -1 to 1"),
        ([0, 0, 0, float("nan"), 0], "a number from -1 to 1"),
        ([0, 0, 0, "left", 0], "given 'left'"),
        ([0, 0, True, 0, 0], "given True"),
        ([0, 0], "2 values were given for 5 controls"),
    ],
)
def test_what_no_control_can_have_is_refused(values: list, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        actions_of(controls_of(MIXED), MIXED, values)


def test_keys_move_what_people_expect() -> None:
    def keys(task: str = "", labels: tuple[str, ...] = (), **specs: ArraySpec) -> dict:
        bound = bindings_of(controls_of(specs, labels), task)
        return {key: tuple(binding) for key, binding in bound.items() if not key.isdigit()}

    two, three = ArraySpec("discrete", (), 2), ArraySpec("discrete", (), 3)
    assert keys(a=two) == {"ArrowLeft": (0, 0), "ArrowRight": (0, 1)}
    assert keys(a=three) == {"ArrowLeft": (0, 0), "ArrowRight": (0, 2)}
    assert keys(a=ArraySpec("continuous", (3,))) == {
        "ArrowLeft": (0, -1), "ArrowRight": (0, 1), "ArrowDown": (1, -1), "ArrowUp": (1, 1),
    }  # fmt: skip
    assert keys("LunarLander-v3", a=ArraySpec("discrete", (), 4)) == {
        "ArrowLeft": (0, 1), "ArrowUp": (0, 2), "ArrowRight": (0, 3),
    }  # fmt: skip
    atari = ("NOOP", "FIRE", "RIGHT", "LEFT")
    assert keys(labels=atari, a=ArraySpec("discrete", (), 4)) == {
        "f": (0, 1), "ArrowRight": (0, 2), "ArrowLeft": (0, 3),
    }  # fmt: skip
    both = bindings_of(controls_of({"a": three, "b": ArraySpec("continuous", (1,))}))
    assert both["ArrowLeft"].control == 0  # the choice has the arrows
    assert {
        key for key in bindings_of(controls_of({"a": ArraySpec("discrete", (), 12)})) if key.isdigit()
    } == set("0123456789")


def test_an_image_is_shown_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    shown = picture({"image": image, "speed": np.ones(2)}, {"image": ArraySpec("image", (16, 16, 3))})
    assert shown.shape == (SIDE, SIDE, 3)
    np.testing.assert_array_equal(shown[:: SIDE // 16, :: SIDE // 16], image)


def test_a_task_draws_its_own_state() -> None:
    paint = painter_of("CartPole-v1")
    if paint is None:
        pytest.skip("nothing can be drawn here")
    specs = {"obs": ArraySpec("continuous", (4,))}
    left, right = (picture({"obs": np.array([x, 0, 0, 0])}, specs, paint) for x in (-1.5, 1.5))
    cart = [np.argwhere((frame == 0).all(-1))[:, 1] for frame in (left, right)]
    assert np.median(cart[0]) < left.shape[1] / 2 < np.median(cart[1])
    assert painter_of("Nobody-v0") is None


def test_other_numbers_are_bars() -> None:
    red = np.array([int(IMAGINED[index : index + 2], 16) for index in (1, 3, 5)])

    def reach(number: float) -> tuple[int, int]:
        columns = np.flatnonzero((bars({"x": np.array([number])}) == red).all(-1).any(0))
        return int(columns.min()), int(columns.max())

    middle = SIDE // 2
    assert reach(2.0)[0] == reach(0.5)[0] == middle + 1 and reach(2.0)[1] > reach(0.5)[1] > middle + 1
    assert reach(-2.0)[0] == 2 * middle - reach(2.0)[1]
    assert reach(1e9)[1] == middle + SIDE // 2 - GAP
