"""An encoder written in Haiku, `model.encoder=haiku`: layer-normalised MLP and strided convolutions.

It shows how a network of another library enters, and is a cheaper encoder for images (each halving is one
strided 4x4 convolution, as in the first two generations of Dreamer).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dreamer_agent.config import ModelConfig
from dreamer_agent.errors import missing_extra
from dreamer_agent.nets import Net, from_haiku
from dreamer_agent.specs import Specs, split_specs
from dreamer_agent.world_model.encoder import (
    Observation,
    image_groups,
    image_input,
    image_stages,
    stage_channels,
    vector_input,
)

try:
    import haiku as hk
except ImportError as error:
    raise missing_extra("dm-haiku", "haiku") from error


def make_haiku_encoder(specs: Specs, config: ModelConfig, dtype: Any) -> Net:
    """The encoder as a `Net`; float32 parameters, computation in `dtype`."""

    def encode(obs: Observation) -> jax.Array:
        tokens = []
        if split_specs(specs)[0]:
            tokens.append(_mlp(vector_input(specs, obs, jnp.float32, config.symlog), config))
        for index, (size, keys) in enumerate(image_groups(specs).items()):
            stages = image_stages(size, config.channel_multipliers)
            x = image_input(keys, obs, jnp.float32)
            flat = _cnn(x.reshape(-1, *x.shape[-3:]), stage_channels(stages, config), index)
            tokens.append(flat.reshape(*x.shape[:-3], -1))
        return jnp.concatenate(tokens, -1).astype(dtype)

    return from_haiku(encode)


def _mlp(x: jax.Array, config: ModelConfig) -> jax.Array:
    for index in range(config.encoder_layers):
        x = hk.Linear(config.units, name=f"vector_linear{index}")(x)
        x = jax.nn.silu(hk.LayerNorm(-1, True, True, name=f"vector_norm{index}")(x))
    return x


def _cnn(x: jax.Array, channels: list[int], group: int) -> jax.Array:
    for index, width in enumerate(channels):
        x = hk.Conv2D(width, 4, stride=2, name=f"image{group}_conv{index}")(x)
        x = jax.nn.silu(hk.LayerNorm(-1, True, True, name=f"image{group}_norm{index}")(x))
    return x.reshape(x.shape[0], -1)
