"""What a person can do: controls for the actions of an environment, and the keys that move them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dreamer_agent.errors import ConfigError
from dreamer_agent.specs import Specs

LEFT, RIGHT, UP, DOWN = "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"  # as browsers name them
DIGITS = "0123456789"
ARROWS = {"LEFT": LEFT, "RIGHT": RIGHT, "UP": UP, "DOWN": DOWN, "FIRE": "f"}  # by what an action means
SMALL = {2: {LEFT: 0, RIGHT: 1}, 3: {LEFT: 0, RIGHT: 2}}  # of so many classes; the middle of three is to stay
TASKS = {  # beginnings of ids whose classes mean something else
    "LunarLander": {LEFT: 1, UP: 2, RIGHT: 3},
    "FrozenLake": {LEFT: 0, DOWN: 1, RIGHT: 2, UP: 3},
    "CliffWalking": {UP: 0, RIGHT: 1, DOWN: 2, LEFT: 3},
    "Taxi": {DOWN: 0, UP: 1, RIGHT: 2, LEFT: 3, "p": 4, "d": 5},
    "minigrid:": {LEFT: 0, RIGHT: 1, UP: 2, "p": 3, "d": 4, "t": 5},
}


@dataclass(frozen=True)
class Control:
    """One number of an action: of the array `key`, the element `index` in flat order.

    A choice of `classes` (called by `labels`, or else numbered), or, where that is None, a number in [-1, 1].
    """

    key: str
    index: int
    classes: int | None
    labels: tuple[str, ...] = ()

    @property
    def idle(self) -> int:
        """What it is when nobody touches it: the middle of three choices, else the first; zero of a number."""
        if self.classes == 3 and not self.labels:
            return 1
        return 0

    def checked(self, value: Any) -> float:
        """`value`, if the control can have it; else `ConfigError`."""
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else np.nan
        if self.classes is None and -1 <= number <= 1:
            return float(number)
        if self.classes is not None and number in range(self.classes):
            return int(number)
        wanted = "a number from -1 to 1" if self.classes is None else f"a whole number below {self.classes}"
        raise ConfigError(f"The action '{self.key}' [{self.index}] was given {value!r}: give {wanted}.")


class Binding(NamedTuple):
    """What a key does while it is held: a control has a value."""

    control: int
    value: float


def controls_of(specs: Specs, labels: Sequence[str] = ()) -> list[Control]:
    """All numbers of the actions `specs`, in order; `labels` are of the classes of the only one there is."""
    found = []
    for key, spec in sorted(specs.items()):
        classes = spec.classes if spec.kind == "discrete" else None
        found += [Control(key, index, classes) for index in range(int(np.prod(spec.shape, dtype=int)))]
    if len(found) == 1 and found[0].classes == len(labels):
        found = [Control(found[0].key, 0, found[0].classes, tuple(labels))]
    return found


def bindings_of(controls: Sequence[Control], task: str = "") -> dict[str, Binding]:
    """What each key does: arrows and digits for the first choice, arrows for the first two numbers."""
    bindings: dict[str, Binding] = {}
    choices = [number for number, control in enumerate(controls) if control.classes is not None]
    numbers = [number for number, control in enumerate(controls) if control.classes is None]
    if choices:
        classes = controls[choices[0]].classes or 0
        keys = {digit: int(digit) for digit in DIGITS[:classes]} | _arrows(controls[choices[0]], task)
        bindings |= {key: Binding(choices[0], value) for key, value in keys.items() if value < classes}
    for number, (low, high) in zip(numbers, ((LEFT, RIGHT), (DOWN, UP)), strict=False):
        if low not in bindings:
            bindings |= {low: Binding(number, -1.0), high: Binding(number, 1.0)}
    return bindings


def _arrows(control: Control, task: str) -> dict[str, int]:
    for beginning, keys in TASKS.items():
        if task.startswith(beginning):
            return keys
    meant = {ARROWS[name]: index for index, name in enumerate(control.labels) if name in ARROWS}
    return meant or SMALL.get(control.classes or 0, {})


def actions_of(controls: Sequence[Control], specs: Specs, values: Sequence[Any]) -> dict[str, np.ndarray]:
    """The actions, without a leading axis, where the controls have `values`; `ConfigError` for wrong ones."""
    if len(values) != len(controls):
        raise ConfigError(f"{len(values)} values were given for {len(controls)} controls: give one for each.")
    out = {key: np.zeros(int(np.prod(spec.shape, dtype=int)), spec.dtype) for key, spec in specs.items()}
    for control, value in zip(controls, values, strict=True):
        out[control.key][control.index] = control.checked(value)
    return {key: out[key].reshape(spec.shape) for key, spec in specs.items()}


def values_of(controls: Sequence[Control], actions: Mapping[str, np.ndarray]) -> list[float]:
    """The inverse: plain numbers, in the order of the controls."""
    return [np.ravel(actions[control.key])[control.index].item() for control in controls]
