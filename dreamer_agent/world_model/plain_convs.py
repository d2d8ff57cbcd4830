"""The convolutions of V1 and V2, for images of 64 x 64: strides of two without padding, to 2 x 2 and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamer_agent.config import ModelConfig
from dreamer_agent.errors import ConfigError
from dreamer_agent.nets import Linear, Style, truncated_normal

Array = jax.Array
SIDE = 64
UP = (5, 5, 6, 6)  # kernels from one pixel to 5, 13, 30 and 64


class PlainEncoder(nn.Module):
    """Four times a 4 x 4 convolution with stride two, depth (1, 2, 4, 8): 64 to 31, 14, 6 and 2 pixels."""

    depth: int
    style: Style
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[N, 64, 64, C]` to `[N, 32 depth]`."""
        for index in range(4):
            x = _conv(nn.Conv, self.depth * 2**index, 4, self.dtype, f"conv{index}")(x)
            x = self.style(x, f"norm{index}")
        return x.reshape(x.shape[0], -1)


class PlainDecoder(nn.Module):
    """One pixel from h and z, then four transposed convolutions with stride two: depth (4, 2, 1), the image."""

    depth: int
    channels: int
    style: Style
    dtype: Any

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """`[N, F]` to raw pixels `[N, 64, 64, channels]`."""
        x = Linear(32 * self.depth, dtype=self.dtype, name="pixel")(features.astype(self.dtype))[:, None, None]
        for index, kernel in enumerate(UP[:-1]):
            x = _conv(nn.ConvTranspose, self.depth * 4 // 2**index, kernel, self.dtype, f"conv{index}")(x)
            x = self.style(x, f"norm{index}")
        return _conv(nn.ConvTranspose, self.channels, UP[-1], self.dtype, "image")(x)


def check_sizes(sizes: Iterable[tuple[int, int]], config: ModelConfig) -> None:
    """`ConfigError` for images that the convolutions of `config` do not fit."""
    for height, width in sizes:
        if config.convs == "plain" and (height, width) != (SIDE, SIDE):
            raise ConfigError(
                f"model.convs=plain, as in the presets v1 and v2, is for images of {SIDE}x{SIDE}, but one has "
                f"{height}x{width}: set model.convs=pooled, which takes any size."
            )


def image_style(config: ModelConfig) -> Style:
    """That of the layers between images."""
    return Style(config.image_activation or config.activation, config.norm)


def _conv(kind: Any, features: int, kernel: int, dtype: Any, name: str) -> Any:
    return kind(
        features, (kernel, kernel), (2, 2), padding="VALID", dtype=dtype, kernel_init=truncated_normal(),
        param_dtype=jnp.float32, name=name,
    )  # fmt: skip
