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


def split_specs(specs: Specs) -> tuple[list[str], list[str]]:
    """The sorted names of the `(vector, image)` arrays among `specs`."""
    vectors = sorted(key for key, spec in specs.items() if spec.kind != "image")
    images = sorted(key for key, spec in specs.items() if spec.kind == "image")
    return vectors, images
