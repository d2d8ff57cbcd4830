"""How layers are normalised and activated: one value that all networks of a model share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamer_agent.config import ModelConfig

Array = jax.Array
ACTIVATIONS = {"silu": nn.silu, "elu": nn.elu, "relu": nn.relu}


class RMSNorm(nn.Module):
    """x / rms(x) over the last axis with a learned scale and no offset (V3), computed in float32.

    With `blocks`, x is `[blocks, ..., D / blocks]`, and the norm is that of all D numbers.
    """

    eps: float = 1e-4
    blocks: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[..., D]` to `[..., D]` of the same type."""
        axes = (0, -1) if self.blocks else (-1,)
        scale = self.param("scale", nn.initializers.ones_init(), (math.prod(x.shape[axis] for axis in axes),))
        if self.blocks:
            scale = scale.reshape(x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])
        wide = x.astype(jnp.float32)
        norm = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axes, keepdims=True) + self.eps)
        return (wide * norm * scale).astype(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / std over the last axis with a learned scale and offset (V2), computed in float32."""

    eps: float = 1e-3

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[..., D]` to `[..., D]` of the same type."""
        return nn.LayerNorm(epsilon=self.eps, dtype=jnp.float32, name="layer")(x).astype(x.dtype)


@dataclass(frozen=True)
class Style:
    """`activation(norm(x))` by their names in the configuration; by default those of V3."""

    activation: str = "silu"
    norm: str = "rms"

    @classmethod
    def of(cls, config: ModelConfig) -> Style:
        """The one that `config` names."""
        return cls(config.activation, config.norm)

    def __call__(self, x: Array, name: str) -> Array:
        """`[..., D]` to `[..., D]`, inside a Linen module, which has the parameters of the norm as `name`."""
        return ACTIVATIONS[self.activation](self._normed(x, name))

    def _normed(self, x: Array, name: str) -> Array:
        if self.norm == "none":
            return x
        return (LayerNorm if self.norm == "layer" else RMSNorm)(name=name)(x)
