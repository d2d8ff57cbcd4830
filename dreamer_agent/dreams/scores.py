"""What single predictions are scored by, each a pure function of arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from dreamer_agent.errors import missing_extra

ROUNDING = 1 / (12 * 255**2)  # mean squared error that rounding to 8 bits makes, of pixels in [0, 1]
BEST_PSNR = float(-10 * np.log10(ROUNDING))  # 58.9 dB
WINDOW = 11  # pixels of a side over which SSIM compares


class Flags(NamedTuple):
    """Counts of terminations that were foreseen, made up and missed, `[..., K]`."""

    hit: np.ndarray
    false: np.ndarray
    missed: np.ndarray


def load_pix() -> Any:
    """The library that compares images; raises `MissingExtraError` where it is not installed."""
    try:
        import dm_pix
    except ImportError as error:
        raise missing_extra("dm-pix", "report") from error
    return dm_pix


def psnr(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of images uint8 `[..., height, width, channels]`, `[...]`.

    -10 log10 of the mean squared error of pixels in [0, 1]; at most that of rounding to 8 bits (58.9 dB), which
    equal images have, too: without it they would be infinitely good, and so would every mean.
    """
    return np.minimum(_compared(load_pix().psnr, truth, prediction), BEST_PSNR)


def ssim(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) of images uint8 `[..., height, width, channels]`, `[...]`.

    1 for equal images. Over Gaussian windows of 11 pixels, fewer in smaller images; the mean over channels.
    """
    size, pix = min(WINDOW, *truth.shape[-3:-1]), load_pix()
    return _compared(lambda a, b: pix.ssim(a, b, filter_size=size), truth, prediction)


def _compared(metric: Any, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    def scored(pair: tuple[np.ndarray, np.ndarray]) -> jax.Array:
        return metric(*(x.astype(np.float32) / 255 for x in pair))

    flat = [np.asarray(x).reshape(-1, *x.shape[-3:]) for x in (truth, prediction)]
    # One image after the other: many large ones at once would take much memory.
    return np.asarray(jax.jit(lambda pair: jax.lax.map(scored, pair))(tuple(flat))).reshape(truth.shape[:-3])


def flags_up_to(terminal: np.ndarray, goes_on: np.ndarray, valid: np.ndarray, horizons: tuple[int, ...]) -> Flags:
    """Terminations among the `valid` steps 1 to h of each window, for h in `horizons`: counts `[W, K]`.

    `terminal` `[W, H]` is the truth; one is predicted where the probability `goes_on` `[W, H]` is below one half.
    """
    truth, said = terminal.astype(bool), goes_on < 0.5
    last = np.array(horizons) - 1
    pairs = (truth & said, ~truth & said, truth & ~said)
    return Flags(*(np.cumsum(pair & valid, 1)[:, last] for pair in pairs))
