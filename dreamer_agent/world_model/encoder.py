"""From a dict of observations to one token vector, and the registry of encoders.

An encoder is a `Net` whose `apply(params, obs)` takes a dict of arrays `[..., *shape]` with any leading axes
and gives tokens `[..., E]`. `register_encoder` adds one from outside the package.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamer_agent import ops
from dreamer_agent.config import ModelConfig
from dreamer_agent.nets import MLP, Net, PooledConv, Style, from_linen, truncated_normal
from dreamer_agent.registry import Registry
from dreamer_agent.specs import Specs, split_specs
from dreamer_agent.world_model.plain_convs import PlainEncoder, check_sizes, image_style

Array = jax.Array
Observation = dict[str, Array]
EncoderFactory = Callable[[Specs, ModelConfig, Any], Net]

ENCODERS: Registry[EncoderFactory] = Registry("encoder")


def register_encoder(name: str, *, replace: bool = False) -> Callable[[EncoderFactory], EncoderFactory]:
    """Register `factory(obs_specs, model_config, dtype) -> Net` under `name`, for `model.encoder=name`.

    Raises `ConfigError` where another encoder has the name, unless `replace` is set.
    """
    return ENCODERS.register(name, replace=replace)


def make_encoder(specs: Specs, config: ModelConfig, dtype: Any) -> Net:
    """The encoder that `config.encoder` names; raises `ConfigError` where there is none."""
    return ENCODERS.get(config.encoder)(specs, config, dtype)


def vector_input(specs: Specs, obs: Observation, dtype: Any, symlog: bool = True) -> Array:
    """All vectors side by side, floats in symlog space (if `symlog`) and integers one-hot: `[..., size]`."""
    parts = []
    for key in split_specs(specs)[0]:
        spec, value = specs[key], obs[key]
        batch = value.shape[: value.ndim - len(spec.shape)]
        if spec.kind == "discrete":
            value = jax.nn.one_hot(value, spec.classes)
        else:
            value = value.astype(jnp.float32)
            value = ops.symlog(value) if symlog else value
        parts.append(value.reshape(*batch, spec.encoded_size))
    return jnp.concatenate(parts, -1).astype(dtype)


def image_groups(specs: Specs) -> dict[tuple[int, int], list[str]]:
    """Image keys by (height, width): those of one size are stacked on channels."""
    groups: dict[tuple[int, int], list[str]] = {}
    for key in split_specs(specs)[1]:
        height, width, _ = specs[key].shape
        groups.setdefault((height, width), []).append(key)
    return dict(sorted(groups.items()))


def image_input(keys: list[str], obs: Observation, dtype: Any) -> Array:
    """Images of one size stacked on channels with values in [-0.5, 0.5], `[..., H, W, C]`."""
    return jnp.concatenate([obs[key].astype(dtype) / 255 - 0.5 for key in keys], -1)


def image_stages(size: tuple[int, int], multipliers: tuple[int, ...]) -> list[tuple[int, int]]:
    """Sizes of the feature maps from the image downwards, halved (rounding up) until about 4 remain.

    64 gives 64, 32, 16, 8, 4, as in V3; smaller images are halved less often, larger ones never more than
    there are multipliers.
    """
    halvings = round(math.log2(max(min(size) / 4, 1)))
    sizes = [size]
    for _ in range(min(max(halvings, 1), len(multipliers))):
        sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
    return sizes


def stage_channels(stages: list[tuple[int, int]], config: ModelConfig) -> list[int]:
    """Channels of each halved feature map; small images use the last (wider) multipliers."""
    return [config.depth * m for m in config.channel_multipliers[-(len(stages) - 1) :]]


class ConvEncoder(nn.Module):
    """Conv → halve → norm → activation for each stage, flattened."""

    channels: tuple[int, ...]
    kernel: int
    strided: bool
    dtype: Any
    style: Style

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[N, H, W, C]` to `[N, E]`."""
        for index, channels in enumerate(self.channels):
            x = self.style(self._halve(x, channels, f"conv{index}"), f"norm{index}")
        return x.reshape(x.shape[0], -1)

    def _halve(self, x: Array, channels: int, name: str) -> Array:
        if not self.strided:
            return PooledConv(channels, self.kernel, self.dtype, name=name)(x)
        kernel = (self.kernel,) * 2
        return nn.Conv(channels, kernel, 2, dtype=self.dtype, kernel_init=truncated_normal(), name=name)(x)


class DictEncoder(nn.Module):
    """An MLP over all vectors and a CNN over all images of one size; their outputs side by side (V3)."""

    specs: Any
    config: ModelConfig
    dtype: Any

    @nn.compact
    def __call__(self, obs: Observation) -> Array:
        """A dict of `[..., *shape]` to tokens `[..., E]`."""
        c, tokens = self.config, []
        if split_specs(self.specs)[0]:
            x = vector_input(self.specs, obs, self.dtype, self.config.symlog)
            tokens.append(MLP(c.encoder_layers, c.units, self.dtype, Style.of(c), name="vector")(x))
        for index, (size, keys) in enumerate(image_groups(self.specs).items()):
            x = image_input(keys, obs, self.dtype)
            cnn = self._cnn(size, f"image{index}")
            tokens.append(cnn(x.reshape(-1, *x.shape[-3:])).reshape(*x.shape[:-3], -1))
        return jnp.concatenate(tokens, -1)

    def _cnn(self, size: tuple[int, int], name: str) -> nn.Module:
        c, style = self.config, image_style(self.config)
        if c.convs == "plain":
            return PlainEncoder(c.depth, style, self.dtype, name=name)
        channels = tuple(stage_channels(image_stages(size, c.channel_multipliers), c))
        return ConvEncoder(channels, c.kernel, c.strided, self.dtype, style, name=name)


@register_encoder("linen")
def linen_encoder(specs: Specs, config: ModelConfig, dtype: Any) -> Net:
    """The encoder in Flax Linen, by default that of V3."""
    check_sizes(image_groups(specs), config)
    return from_linen(DictEncoder(nn.FrozenDict(specs), config, dtype))


@register_encoder("haiku")
def haiku_encoder(specs: Specs, config: ModelConfig, dtype: Any) -> Net:
    """A Haiku encoder through the same seam."""
    from dreamer_agent.world_model.haiku_encoder import make_haiku_encoder

    return make_haiku_encoder(specs, config, dtype)
