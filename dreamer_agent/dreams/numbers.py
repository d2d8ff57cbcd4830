"""Observations as standardised numbers, so that errors of all keys and environments can be read alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.distributions import Bernoulli, Categorical, Prediction
from dreamer_agent.specs import ArraySpec, is_mask

Array = Any  # of JAX or NumPy
LEAST = 1e-6  # a standard deviation, relative to 1 + |mean|, below which an element does not vary


def numbers(key: str, spec: ArraySpec, values: Array) -> np.ndarray:
    """Values `[..., *shape]` as numbers `[..., D]`: integers one-hot, masks and pixels as they are."""
    values = np.asarray(values)
    batch = values.shape[: values.ndim - len(spec.shape)]
    if spec.kind == "discrete" and not is_mask(key):
        values = np.eye(spec.classes, dtype=np.float32)[values]
    return values.reshape(*batch, -1)


def expected(spec: ArraySpec, prediction: Prediction) -> jax.Array:
    """What is predicted of each of these numbers, `[..., D]`: of integers and masks the probabilities."""
    if isinstance(prediction, Categorical):
        values = jnp.exp(prediction.log_probs)
        return values.reshape(*values.shape[: values.ndim - len(spec.shape) - 1], -1)
    values = prediction.prob() if isinstance(prediction, Bernoulli) else prediction.mode()
    return values.reshape(*values.shape[: values.ndim - len(spec.shape)], -1)


class Scale(NamedTuple):
    """Mean and standard deviation of each number of a key, `[D]`, and which of them vary at all."""

    mean: np.ndarray
    std: np.ndarray
    varies: np.ndarray

    @classmethod
    def of(cls, pieces: Iterable[np.ndarray]) -> Scale:
        """Over all rows of `pieces`, `[T, D]` each."""
        count, total, squares = 0, np.zeros(()), np.zeros(())
        pieces = list(pieces)
        for piece in pieces:
            count, total = count + len(piece), total + piece.sum(0, dtype=np.float64)
        mean = total / count
        for piece in pieces:  # around the mean: large numbers that vary little keep their digits
            gap = piece - mean.astype(np.float32)
            squares = squares + np.square(gap).sum(0, dtype=np.float64)
        std = np.sqrt(squares / count)
        return cls(mean, std, std > LEAST * (1 + np.abs(mean)))

    def standardised(self, values: Array) -> np.ndarray:
        """Values `[..., D]` around the mean over the standard deviation, without those that do not vary."""
        gap = np.asarray(values, np.float64)[..., self.varies] - self.mean[self.varies]
        return gap / self.std[self.varies]


def squared_error(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Mean over the numbers of `[..., D]` of the squared difference, `[...]`."""
    return np.square(truth - prediction).mean(-1)
