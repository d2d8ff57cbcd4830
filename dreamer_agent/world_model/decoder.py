"""From latents back to observations: one prediction for each observation key (V3, appendix B)."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamer_agent.config import ModelConfig
from dreamer_agent.distributions import (
    Categorical,
    GaussianPixels,
    GaussianVector,
    PixelError,
    Prediction,
    VectorError,
)
from dreamer_agent.errors import ConfigError
from dreamer_agent.nets import (
    MLP,
    BlockLinear,
    Linear,
    Net,
    Style,
    UpsampledConv,
    from_linen,
    join_blocks,
    split_blocks,
)
from dreamer_agent.specs import Specs, is_mask, split_specs
from dreamer_agent.world_model.encoder import image_groups, image_stages, stage_channels
from dreamer_agent.world_model.latent import Latent
from dreamer_agent.world_model.plain_convs import PlainDecoder, check_sizes, image_style

Array = jax.Array


class ConvDecoder(nn.Module):
    """Images of one size from a latent: a small map from h and z, then upsample → conv for each stage."""

    stages: tuple[tuple[int, int], ...]  # sizes from the image downwards
    channels: tuple[int, ...]  # of the halved maps, from the largest
    out_channels: int
    config: ModelConfig
    dtype: Any

    @nn.compact
    def __call__(self, latent: Latent) -> Array:
        """Latents `[N, ...]` to raw pixels `[N, H, W, C]`."""
        x, style = self._spatial(latent), image_style(self.config)
        for index in reversed(range(len(self.channels) - 1)):
            x = self._double(x, self.channels[index], self.stages[index + 1], f"conv{index}")
            x = style(x, f"norm{index}")
        return self._double(x, self.out_channels, self.stages[0], "image")

    def _spatial(self, latent: Latent) -> Array:
        """The smallest feature map: block-linear in h plus a two-layer map of z."""
        c, (height, width), depth = self.config, self.stages[-1], self.channels[-1]
        size = height * width * depth
        x = BlockLinear(size, c.blocks, self.dtype, name="from_deter")(split_blocks(latent.deter, c.blocks))
        x = join_blocks(x.reshape(c.blocks, -1, height, width, depth // c.blocks))
        z = latent.flat
        z = MLP(1, 2 * c.units, self.dtype, Style.of(c), name="stoch")(z)
        x = x + Linear((height, width, depth), dtype=self.dtype, name="from_stoch")(z)
        return image_style(c)(x, "spatial_norm")

    def _double(self, x: Array, features: int, size: tuple[int, int], name: str) -> Array:
        """Nearest neighbour, cut to `size` where halving had rounded up, then a convolution."""
        return UpsampledConv(features, self.config.kernel, size, self.dtype, name=name)(x)


class DictDecoder(nn.Module):
    """An MLP with one output for each vector, and a CNN for all images of one size."""

    specs: Any
    config: ModelConfig
    dtype: Any

    @nn.compact
    def __call__(self, latent: Latent) -> dict[str, Array]:
        """Latents `[..., ...]` to raw predictions by key; see `reconstruction`."""
        c, raw = self.config, {}
        batch = latent.deter.shape[:-1]
        vectors = split_specs(self.specs)[0]
        if vectors:
            x = MLP(c.decoder_layers, c.units, self.dtype, Style.of(c), name="vector")(latent.features)
        for key in vectors:
            spec = self.specs[key]
            shape = (*spec.shape, spec.classes) if spec.kind == "discrete" else spec.shape
            raw[key] = Linear(shape, dtype=self.dtype, name=f"out_{key}")(x)
        flat = jax.tree.map(lambda x: x.reshape(math.prod(batch), *x.shape[len(batch) :]), latent)
        for index, (size, keys) in enumerate(image_groups(self.specs).items()):
            raw.update(self._images(index, size, keys, flat, batch))
        return raw

    def _images(
        self, index: int, size: tuple[int, int], keys: list[str], latent: Latent, batch: tuple[int, ...]
    ) -> dict[str, Array]:
        """Pixels in [0, 1], which the mean of a Gaussian may leave."""
        widths = [self.specs[key].shape[-1] for key in keys]
        pixels = self._cnn(size, sum(widths), latent, f"image{index}").astype(jnp.float32)
        pixels = nn.sigmoid(pixels) if self.config.reconstruction == "squared" else pixels + 0.5
        pixels = pixels.reshape(*batch, *pixels.shape[1:])
        ends = [sum(widths[: i + 1]) for i in range(len(widths) - 1)]
        return dict(zip(keys, jnp.split(pixels, ends, -1), strict=True))

    def _cnn(self, size: tuple[int, int], channels: int, latent: Latent, name: str) -> Array:
        c = self.config
        if c.convs == "plain":
            return PlainDecoder(c.depth, channels, image_style(c), self.dtype, name=name)(latent.features)
        stages = image_stages(size, c.channel_multipliers)
        widths = tuple(stage_channels(stages, c))
        return ConvDecoder(tuple(stages), widths, channels, c, self.dtype, name=name)(latent)


def make_decoder(specs: Specs, config: ModelConfig, dtype: Any) -> Net:
    """The decoder for these observations. Its smallest feature map is divided among the blocks of h."""
    check_sizes(image_groups(specs), config)
    width = config.depth * config.channel_multipliers[-1]
    if image_groups(specs) and config.convs == "pooled" and width % config.blocks:
        raise ConfigError(
            f"model.depth={config.depth} times the last of model.channel_multipliers gives {width} channels, "
            f"which model.blocks={config.blocks} should divide: change one of them."
        )
    return from_linen(DictDecoder(dict(specs), config, dtype))


def reconstruction(specs: Specs, raw: dict[str, Array], config: ModelConfig) -> dict[str, Prediction]:
    """The decoder's raw output as predictions that can be scored and shown.

    Vectors are in symlog space if `config.symlog`.
    """
    squared = config.reconstruction == "squared"
    pixels, vector = (PixelError, VectorError) if squared else (GaussianPixels, GaussianVector)
    out: dict[str, Prediction] = {}
    for key, spec in specs.items():
        if is_mask(key):
            continue  # predicted by a head of its own
        value, ndim = raw[key].astype(jnp.float32), len(spec.shape)
        if spec.kind == "image":
            out[key] = pixels(value)
        elif spec.kind == "discrete":
            out[key] = Categorical.from_logits(value, ndim)
        else:
            out[key] = vector(value, ndim, config.symlog)
    return out
