"""Recurrent state-space model: one step of the latent, and the scan over observed time.

V3 = arXiv 2301.04104. Modules hold one step; the same two step functions serve training, acting,
imagination and planning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamer_agent.config import ModelConfig
from dreamer_agent.distributions import Categorical
from dreamer_agent.nets import (
    MLP,
    Activated,
    BlockLinear,
    Linear,
    Net,
    Params,
    RMSNorm,
    from_linen,
    join_blocks,
    split_blocks,
)
from dreamer_agent.world_model.latent import Latent

Array = jax.Array


class BlockGRU(nn.Module):
    """h' from h `[..., D]`, z `[..., S K]` and an encoded action `[..., A]` (V3, appendix B).

    Every block of h sees itself and the same embeddings of h, z and a. Between the two block products everything
    stays `[blocks, ..., D / blocks]`, so that only h' is brought into another order.
    """

    hidden: int
    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, deter: Array, stoch: Array, action: Array) -> Array:
        """The next h, `[..., D]`."""
        width = deter.shape[-1]
        action = action / jax.lax.stop_gradient(jnp.maximum(1.0, jnp.abs(action))).astype(action.dtype)
        inputs = {"deter": deter, "stoch": stoch, "action": action}
        shared = jnp.concatenate(
            [Activated(self.hidden, self.dtype, name=f"embed_{k}")(v) for k, v in inputs.items()], -1
        )
        blocks = split_blocks(deter, self.blocks)
        x = BlockLinear(width, self.blocks, self.dtype, name="mix")(blocks, shared)
        x = nn.silu(RMSNorm(blocks=True, name="mix_norm")(x))
        gates = BlockLinear(3 * width, self.blocks, self.dtype, name="gates")(x)
        # Each block holds its three gates side by side.
        reset, candidate, update = jnp.split(gates, 3, -1)
        candidate = jnp.tanh(nn.sigmoid(reset) * candidate)
        update = nn.sigmoid(update - 1.0)  # biased towards keeping h
        return join_blocks(update * candidate + (1 - update) * blocks)


class LatentHead(nn.Module):
    """Logits `[..., S, K]` of the stochastic latent from whatever is known."""

    layers: int
    hidden: int
    stoch: int
    classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        """Inputs `[..., D_i]` are put side by side."""
        x = jnp.concatenate([x.astype(self.dtype) for x in inputs], -1)
        x = MLP(self.layers, self.hidden, self.dtype, name="mlp")(x)
        return Linear((self.stoch, self.classes), dtype=self.dtype, name="logits")(x)


@dataclass(frozen=True)
class RSSM:
    """`cell` (h, z, a) → h', `prior` h' → logits of z, `posterior` (h', token) → logits of z."""

    cell: Net
    prior: Net
    posterior: Net
    config: ModelConfig
    dtype: Any

    @classmethod
    def create(cls, config: ModelConfig, dtype: Any) -> RSSM:
        """The V3 model of the given sizes: one posterior layer, two prior layers."""
        head = dict(hidden=config.hidden, stoch=config.stoch, classes=config.classes, dtype=dtype)
        return cls(
            from_linen(BlockGRU(config.hidden, config.blocks, dtype)),
            from_linen(LatentHead(layers=2, **head)),
            from_linen(LatentHead(layers=1, **head)),
            config,
            dtype,
        )

    def init(self, key: Array, action: Array, token: Array) -> Params:
        """Parameters, given an encoded action `[1, A]` and a token `[1, E]`."""
        cell_key, prior_key, posterior_key = jax.random.split(key, 3)
        latent = self.initial(1)
        flat = latent.stoch.reshape(1, -1)
        return {
            "cell": self.cell.init(cell_key, latent.deter, flat, action),
            "prior": self.prior.init(prior_key, latent.deter),
            "posterior": self.posterior.init(posterior_key, latent.deter, token),
        }

    def initial(self, *batch: int) -> Latent:
        """The latent before anything was seen: zeros `[*batch, ...]`, not learned."""
        c = self.config
        return Latent(
            jnp.zeros((*batch, c.deter), self.dtype), jnp.zeros((*batch, c.stoch, c.classes), self.dtype)
        )

    def distribution(self, logits: Array) -> Categorical:
        """The categoricals of z `[..., S]`, mixed with the uniform one."""
        return Categorical.from_logits(logits, event_ndim=1, unimix=self.config.unimix)

    def sample(self, key: Array, logits: Array, temperature: float = 1.0) -> Array:
        """z `[..., S, K]` with straight-through gradient."""
        return self._chosen(jax.random.uniform(key, logits.shape[:-1]), logits, temperature)

    def _chosen(self, uniform: Array, logits: Array, temperature: float = 1.0) -> Array:
        """`sample` with the random numbers `[..., S]` given."""
        dist = self.distribution(logits).tempered(temperature)
        # Unimix gives every class a probability, and random numbers are a good part of an imagined step.
        return dist.onehot(dist.quantile(uniform)).astype(self.dtype)

    def advance(self, params: Params, latent: Latent, action: Array) -> Array:
        """h' after `action` `[..., A]`."""
        flat = latent.stoch.reshape(*latent.stoch.shape[:-2], -1)
        return self.cell.apply(params["cell"], latent.deter, flat, action)

    def observe_step(
        self, params: Params, key: Array, latent: Latent, action: Array, token: Array, is_first: Array
    ) -> tuple[Latent, Array]:
        """One step with an observation: the posterior latent and its logits `[..., S, K]`.

        `action` `[..., A]` is the one that led here; where `is_first` it and `latent` are forgotten.
        """
        uniform = jax.random.uniform(key, (*is_first.shape, self.config.stoch))
        return self._observed(params, uniform, latent, action, token, is_first)

    def _observed(
        self, params: Params, uniform: Array, latent: Latent, action: Array, token: Array, is_first: Array
    ) -> tuple[Latent, Array]:
        """`observe_step` with the random numbers `[..., S]` given."""
        keep = ~is_first
        action = action * keep[..., None].astype(action.dtype)
        deter = self.advance(params, latent.masked(keep), action)
        logits = self.posterior.apply(params["posterior"], deter, token)
        return Latent(deter, self._chosen(uniform, logits)), logits

    def imagine_step(
        self, params: Params, key: Array, latent: Latent, action: Array, temperature: float = 1.0
    ) -> Latent:
        """One step without an observation: z comes from the prior, at 1 as it was trained, at 0 its mode."""
        deter = self.advance(params, latent, action)
        return Latent(deter, self.sample(key, self.prior.apply(params["prior"], deter), temperature))

    def observe(
        self, params: Params, key: Array, latent: Latent, actions: Array, tokens: Array, is_first: Array,
        parts: int = 1,
    ) -> tuple[Latent, Array]:  # fmt: skip
        """`observe_step` over time: `[B, T, ...]` in, posterior latents and logits `[B, T, ...]` out.

        Where B is divided among `parts` devices, each has parameters of its own here, which are the same: their
        gradients are summed over time first and over the devices once. Else XLA does the latter at every step.
        """
        batch, length = is_first.shape
        over_time = jax.tree.map(lambda x: x.swapaxes(0, 1), (actions, tokens, is_first))
        each: Callable[..., tuple[Latent, Array]] = self._observed
        if parts > 1:
            each = jax.vmap(each)
            params = jax.tree.map(lambda x: jnp.broadcast_to(x, (parts, *x.shape)), params)
            latent, over_time = divide(latent, parts), divide(over_time, parts, axis=1)

        def step(carry: Latent, inputs: tuple[Array, ...]) -> tuple[Latent, tuple[Latent, Array]]:
            step_key, *given = inputs
            uniform = jax.random.uniform(step_key, (batch, self.config.stoch))
            new, logits = each(params, divide(uniform, parts) if parts > 1 else uniform, carry, *given)
            return new, (new, logits)

        # Kept for the way back are the products alone: for so few rows, what lies between them costs less to
        # compute again than to write and read.
        step = jax.checkpoint(step, prevent_cse=False, policy=jax.checkpoint_policies.dots_saveable)
        _, out = jax.lax.scan(step, latent, (jax.random.split(key, length), *over_time))
        if parts > 1:
            out = jax.tree.map(lambda x: x.reshape(length, batch, *x.shape[3:]), out)
        return jax.tree.map(lambda x: x.swapaxes(0, 1), out)


def divide(tree: Any, parts: int, axis: int = 0) -> Any:
    """Arrays whose `axis` of B rows becomes two, `[parts, B / parts]`."""

    def divided(x: Array) -> Array:
        return x.reshape(*x.shape[:axis], parts, -1, *x.shape[axis + 1 :])

    return jax.tree.map(divided, tree)
