"""The sequence cells of the three generations: h' from h, z and an encoded action, one step each."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamer_agent.config import ModelConfig
from dreamer_agent.nets import (
    Activated,
    BlockLinear,
    LayerNorm,
    Linear,
    Net,
    RMSNorm,
    Style,
    from_linen,
    join_blocks,
    split_blocks,
    truncated_normal,
)

Array = jax.Array


class BlockGRU(nn.Module):
    """h' from h `[..., D]`, z `[..., S K]` and an encoded action `[..., A]` (V3, appendix B).

    Every block of h sees itself and the same embeddings of h, z and a. Between the two block products everything
    stays `[blocks, ..., D / blocks]`, so that only h' is brought into another order.
    """

    hidden: int
    blocks: int
    dtype: Any = jnp.float32
    style: Style = Style()  # of the embeddings

    @nn.compact
    def __call__(self, deter: Array, stoch: Array, action: Array) -> Array:
        """The next h, `[..., D]`."""
        width = deter.shape[-1]
        action = action / jax.lax.stop_gradient(jnp.maximum(1.0, jnp.abs(action))).astype(action.dtype)
        inputs = {"deter": deter, "stoch": stoch, "action": action}
        shared = jnp.concatenate(
            [Activated(self.hidden, self.dtype, self.style, name=f"embed_{k}")(v) for k, v in inputs.items()], -1
        )
        blocks = split_blocks(deter, self.blocks)
        x = BlockLinear(width, self.blocks, self.dtype, name="mix")(blocks, shared)
        x = nn.silu(RMSNorm(blocks=True, name="mix_norm")(x))
        gates = BlockLinear(3 * width, self.blocks, self.dtype, name="gates")(x)
        return join_blocks(gated(gates, blocks))  # each block holds its three gates side by side


class NormGRU(nn.Module):
    """A layer over z and a, then a GRU whose three gates are normalised together (V2, arXiv 2010.02193)."""

    hidden: int
    dtype: Any = jnp.float32
    style: Style = Style()  # of the layer

    @nn.compact
    def __call__(self, deter: Array, stoch: Array, action: Array) -> Array:
        """The next h, `[..., D]`, from h `[..., D]`, z `[..., Z]` and an encoded action `[..., A]`."""
        x = Activated(self.hidden, self.dtype, self.style, name="embed")(jnp.concatenate([stoch, action], -1))
        both = jnp.concatenate([x, deter], -1)
        gates = LayerNorm(name="gates_norm")(Linear(3 * deter.shape[-1], dtype=self.dtype, name="gates")(both))
        return gated(gates, deter)


class GRU(nn.Module):
    """A layer over z and a, then Flax's GRU (V1, arXiv 1912.01603)."""

    hidden: int
    dtype: Any = jnp.float32
    style: Style = Style()  # of the layer

    @nn.compact
    def __call__(self, deter: Array, stoch: Array, action: Array) -> Array:
        """The next h, `[..., D]`, from h `[..., D]`, z `[..., Z]` and an encoded action `[..., A]`."""
        x = Activated(self.hidden, self.dtype, self.style, name="embed")(jnp.concatenate([stoch, action], -1))
        cell = nn.GRUCell(deter.shape[-1], kernel_init=truncated_normal(), dtype=self.dtype, name="cell")
        return cell(deter, x)[0]


def gated(gates: Array, deter: Array) -> Array:
    """h' from h `[..., D]` and its gates `[..., 3 D]`: reset, candidate and update (V2, V3)."""
    reset, candidate, update = jnp.split(gates, 3, -1)
    candidate = jnp.tanh(nn.sigmoid(reset) * candidate)
    update = nn.sigmoid(update - 1.0)  # biased towards keeping h
    return update * candidate + (1 - update) * deter


def make_cell(config: ModelConfig, dtype: Any) -> Net:
    """The cell that `config.cell` names."""
    style = Style.of(config)
    if config.cell == "block_gru":
        return from_linen(BlockGRU(config.hidden, config.blocks, dtype, style))
    return from_linen({"norm_gru": NormGRU, "gru": GRU}[config.cell](config.hidden, dtype, style))
