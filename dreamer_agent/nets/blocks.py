"""Linen layers that the world model and the heads are built from.

Parameters are float32; computation runs in `dtype` (bfloat16 on accelerators), normalisation in float32.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamer_agent.nets.style import Style

Array = jax.Array
DType = Any


def truncated_normal(scale: float = 1.0, fan_in: int | None = None) -> nn.initializers.Initializer:
    """Truncated normal (±2 std) whose resulting std is `scale` / sqrt(fan_in); zeros where scale is 0.

    `fan_in` defaults to that of the kernel. `BlockLinear` hands in the whole width of its input, as the
    official implementation does, which makes its weights sqrt(blocks) smaller than the rule says.
    """
    if scale == 0:
        return nn.initializers.zeros_init()
    if fan_in is None:
        return nn.initializers.variance_scaling(scale**2, "fan_in", "truncated_normal")
    # 0.8796 is the std of a unit normal cut at ±2.
    return nn.initializers.truncated_normal(scale / math.sqrt(fan_in) / 0.87962566103423978)


class Linear(nn.Module):
    """x W + b to an output of shape `[..., *features]`; `scale` multiplies the initial weights."""

    features: int | tuple[int, ...]
    scale: float = 1.0
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[..., D]` to `[..., *features]`."""
        shape = (self.features,) if isinstance(self.features, int) else self.features
        init = truncated_normal(self.scale)
        y = nn.Dense(math.prod(shape), dtype=self.dtype, kernel_init=init, name="dense")(x)
        return y.reshape(*x.shape[:-1], *shape)


class Activated(nn.Module):
    """activation(norm(x W + b)), the layer that is used everywhere: by default silu and RMSNorm, as in V3."""

    features: int
    dtype: DType = jnp.float32
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[..., D]` to `[..., features]`."""
        x = Linear(self.features, dtype=self.dtype, name="linear")(x)
        return self.style(x, "norm")


class MLP(nn.Module):
    """`layers` times `Activated`."""

    layers: int
    features: int
    dtype: DType = jnp.float32
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[..., D]` to `[..., features]`."""
        x = x.astype(self.dtype)
        for index in range(self.layers):
            x = Activated(self.features, self.dtype, self.style, name=f"layer{index}")(x)
        return x


class BlockLinear(nn.Module):
    """A linear map with a block-diagonal matrix: block k of the output sees block k of the input only.

    `shared` `[..., S]`, where given, is seen by every block, as if it were appended to each. The kernel
    `[blocks, in/blocks + S, out/blocks]` then acts as one batched product on the blocks and one ordinary
    product on the shared part, so that the shared part is never copied `blocks` times.
    """

    features: int
    blocks: int
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Array, shared: Array | None = None) -> Array:
        """`[blocks, ..., D / blocks]` (and `[..., S]`) to `[blocks, ..., features / blocks]`.

        See `split_blocks` and `join_blocks`. The blocks come first: XLA's CPU backend was three times slower
        where it had to bring them there itself for the batched product (jax 0.10.2, 1024 rows, D = 512).
        """
        g, width = self.blocks, x.shape[-1]
        extra = 0 if shared is None else shared.shape[-1]
        out = self.features // g
        init = truncated_normal(fan_in=g * (width + extra))
        kernel = self.param("kernel", init, (g, width + extra, out)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,)).astype(self.dtype)
        y = jnp.einsum("g...i,gio->g...o", x.astype(self.dtype), kernel[:, :width])
        if shared is not None:
            dense = kernel[:, width:].swapaxes(0, 1).reshape(extra, self.features)
            y = y + split_blocks(shared.astype(self.dtype) @ dense, g)
        return y + bias.reshape(g, *(1,) * (x.ndim - 2), out)


def split_blocks(x: Array, blocks: int) -> Array:
    """`[..., D]` to `[blocks, ..., D / blocks]`."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], blocks, x.shape[-1] // blocks), -2, 0)


def join_blocks(x: Array) -> Array:
    """The inverse of `split_blocks`."""
    x = jnp.moveaxis(x, 0, -2)
    return x.reshape(*x.shape[:-2], -1)
