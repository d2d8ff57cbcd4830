"""Hand-worked values of what single predictions are scored by."""

from __future__ import annotations

import numpy as np
import pytest

from dreamer_agent.distributions import Bernoulli, Categorical, PixelError, VectorError
from dreamer_agent.dreams import scores
from dreamer_agent.dreams.numbers import Scale, expected, numbers, squared_error
from dreamer_agent.specs import ArraySpec


def flat(level: int, size: int = 16) -> np.ndarray:
    return np.full((1, size, size, 3), level, np.uint8)


def test_images_are_compared_as_their_papers_say() -> None:
    pytest.importorskip("dm_pix")
    # 51 / 255 = 0.2: -10 log10(0.04)
    np.testing.assert_allclose(scores.psnr(flat(0), flat(51)), [13.9794], rtol=1e-5)
    np.testing.assert_allclose(scores.psnr(flat(7), flat(7)), [10 * np.log10(12 * 255**2)], rtol=1e-6)
    # Nothing varies inside: the comparison of means alone, c1 / (0.04 + c1) with c1 = 0.01^2.
    np.testing.assert_allclose(scores.ssim(flat(0), flat(51)), [1e-4 / 0.0401], rtol=1e-3)
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, 6, 6, 1)).astype(np.uint8)  # smaller than a window
    np.testing.assert_allclose(scores.ssim(noise, noise), np.ones((2, 3)), rtol=1e-5)
    assert (scores.ssim(noise, 255 - noise) < 0).all()
    mixed = np.concatenate([flat(0), flat(51)])
    np.testing.assert_allclose(scores.psnr(mixed, mixed[::-1]), [13.9794] * 2, rtol=1e-5)


def test_terminations_are_counted_up_to_a_horizon_and_to_the_end() -> None:
    terminal = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
    goes_on = np.array([[1.0, 0.2, 0.4, 0.1], [0.9, 0.6, 0.1, 0.1], [1.0, 1.0, 1.0, 0.49]])
    valid = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]], bool)
    flags = scores.flags_up_to(terminal, goes_on, valid, (1, 3, 4))
    assert flags.hit.tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert flags.false.tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 1]]
    assert flags.missed.tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_errors_are_in_units_of_what_varies() -> None:
    values = np.array([[0.0, 5.0, 10.0], [2.0, 5.0, 30.0]])  # deviations 1 and 10; the middle one never changes
    scale = Scale.of([values[:1], values[1:]])
    assert scale.varies.tolist() == [True, False, True]
    np.testing.assert_allclose(scale.std[scale.varies], [1, 10])
    told = values + np.array([1.0, 100.0, -20.0])
    error = squared_error(scale.standardised(values), scale.standardised(told))
    np.testing.assert_allclose(error, [(1 + 4) / 2] * 2)
    mean = squared_error(scale.standardised(values), scale.standardised(np.broadcast_to(scale.mean, (2, 3))))
    np.testing.assert_allclose(mean.mean(), 1.0)
    large = Scale.of([1e6 + values.astype(np.float32)])
    np.testing.assert_allclose(large.std, [1, 0, 10], rtol=1e-3)


def test_predictions_and_truth_are_the_same_numbers() -> None:
    kind = ArraySpec("discrete", (2,), 3)
    assert numbers("kind", kind, np.array([[2, 0]])).tolist() == [[0, 0, 1, 1, 0, 0]]
    sure = Categorical.from_logits(np.array([[[0.0, 0, 50], [50, 0, 0]]]), 1)
    np.testing.assert_allclose(expected(kind, sure), [[0, 0, 1, 1, 0, 0]], atol=1e-6)
    mask = ArraySpec("discrete", (1, 2), 2)
    assert numbers("action_mask", mask, np.array([[[1, 0]]])).tolist() == [[1, 0]]
    np.testing.assert_allclose(expected(mask, Bernoulli(np.array([[[0.0, -50.0]]]), 2)), [[0.5, 0]], atol=1e-6)
    line = ArraySpec("continuous", (2, 2))
    np.testing.assert_allclose(expected(line, VectorError(np.ones((5, 2, 2)), 2, False)), np.ones((5, 4)))
    image = ArraySpec("image", (1, 1, 3))
    told = expected(image, PixelError(np.full((4, 1, 1, 3), 0.2)))
    assert told.dtype == np.uint8 and told.tolist() == [[51, 51, 51]] * 4
