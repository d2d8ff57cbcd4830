"""MLP heads over features: numbers as two-hot bins, probabilities, and actions of any kind."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamer_agent.nets.blocks import MLP, Linear
from dreamer_agent.nets.style import Style

Array = jax.Array


class Head(nn.Module):
    """`layers` hidden layers and a linear output of shape `[..., *features]` in float32."""

    layers: int
    units: int
    features: int | tuple[int, ...]
    scale: float = 1.0
    dtype: Any = jnp.float32
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Features `[..., F]` to `[..., *features]`."""
        x = MLP(self.layers, self.units, self.dtype, self.style, name="mlp")(x)
        return Linear(self.features, self.scale, self.dtype, name="out")(x).astype(jnp.float32)


class ActionHead(nn.Module):
    """Parameters of one distribution for each action key: logits, or mean and std."""

    layers: int
    units: int
    specs: Any
    scale: float = 0.01
    dtype: Any = jnp.float32
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Array) -> dict[str, dict[str, Array]]:
        """Features `[..., F]` to raw outputs in float32, by action key."""
        x = MLP(self.layers, self.units, self.dtype, self.style, name="mlp")(x)
        out = {}
        for key in sorted(self.specs):
            spec = self.specs[key]
            discrete = spec.kind == "discrete"
            shape = (*spec.shape, spec.classes) if discrete else spec.shape
            names = ("logits",) if discrete else ("mean", "std")
            out[key] = {
                name: Linear(shape, self.scale, self.dtype, name=f"{name}_{key}")(x).astype(jnp.float32)
                for name in names
            }
        return out
