"""What one array of an observation or an action is, without batch dimensions.

Environments describe themselves in these words, and the networks are sized by them. Nothing here knows
gymnasium or JAX, so that the learner can run where only one of them is installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["continuous", "discrete", "image"]


@dataclass(frozen=True)
class ArraySpec:
    """Shape and meaning of one array.

    `continuous`: float32 numbers. `discrete`: int32 indices below `classes`, one for each element of
    `shape`. `image`: uint8 pixels `[height, width, channels]`.
    """

    kind: Kind
    shape: tuple[int, ...]
    classes: int = 0

    def __post_init__(self) -> None:
        if self.kind == "discrete" and self.classes < 1:
            raise ValueError(f"A discrete array needs at least one class, got {self.classes}.")
        if self.kind == "image" and len(self.shape) != 3:
            raise ValueError(f"An image has the shape [height, width, channels], got {self.shape}.")

    @property
    def dtype(self) -> np.dtype:
        """The type in which the array is stored and handed around."""
        return np.dtype({"continuous": np.float32, "discrete": np.int32, "image": np.uint8}[self.kind])

    @property
    def encoded_size(self) -> int:
        """How many numbers the array has once integers are one-hot."""
        return math.prod(self.shape) * max(self.classes, 1)


Specs = Mapping[str, ArraySpec]

MASK = "action_mask"  # reserved: observations of this name say which actions are legal


def mask_key(action: str) -> str:
    """The name of the observation that masks the discrete action key `action`."""
    return MASK if action == "action" else f"{MASK}/{action}"


def is_mask(key: str) -> bool:
    """Whether an observation of this name masks actions."""
    return key == MASK or key.startswith(f"{MASK}/")


def mask_specs(act_specs: Specs) -> dict[str, ArraySpec]:
    """The masks of all discrete actions, `[*shape, classes]` of zeros and ones, by their names."""
    return {
        mask_key(key): ArraySpec("discrete", (*spec.shape, spec.classes), 2)
        for key, spec in act_specs.items()
        if spec.kind == "discrete"
    }


def masked_actions(obs_specs: Specs, act_specs: Specs) -> list[str]:
    """The sorted action keys for which `obs_specs` holds a mask."""
    return sorted(key for key in act_specs if mask_key(key) in obs_specs)


def split_specs(specs: Specs) -> tuple[list[str], list[str]]:
    """The sorted names of the `(vector, image)` arrays among `specs`."""
    vectors = sorted(key for key, spec in specs.items() if spec.kind != "image")
    images = sorted(key for key, spec in specs.items() if spec.kind == "image")
    return vectors, images


def specs_difference(old: Specs, new: Specs) -> tuple[str, str] | None:
    """The first array in which two sets of specs differ, described in both; None if they are equal."""
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            return describe(key, old.get(key)), describe(key, new.get(key))
    return None


def describe(key: str, spec: ArraySpec | None) -> str:
    """A spec in a few words."""
    if spec is None:
        return f"no '{key}'"
    size = f" of {spec.classes} values" if spec.kind == "discrete" else ""
    return f"'{key}' {spec.kind} {list(spec.shape)}{size}"
