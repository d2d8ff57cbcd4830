"""Recurrent state-space model: one step of the latent, and the scan over observed time.

V3 = arXiv 2301.04104. Modules hold one step; the same two step functions serve training, acting,
imagination and planning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamer_agent.config import ModelConfig
from dreamer_agent.nets import MLP, Linear, Net, Params, Style, from_linen
from dreamer_agent.world_model.cells import make_cell
from dreamer_agent.world_model.latent import Latent, LatentKind, latent_kind

Array = jax.Array


class LatentHead(nn.Module):
    """Logits `[..., S, K]` (or what else its kind needs) of the stochastic latent from whatever is known."""

    layers: int
    hidden: int
    stoch: int
    outputs: int
    dtype: Any = jnp.float32
    style: Style = Style()

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        """Inputs `[..., D_i]` are put side by side."""
        x = jnp.concatenate([x.astype(self.dtype) for x in inputs], -1)
        x = MLP(self.layers, self.hidden, self.dtype, self.style, name="mlp")(x)
        return Linear((self.stoch, self.outputs), dtype=self.dtype, name="logits")(x)


@dataclass(frozen=True)
class RSSM:
    """`cell` (h, z, a) → h', `prior` h' → logits of z, `posterior` (h', token) → logits of z.

    "Logits" `[..., S, K]` stands for the statistics of z of whatever `kind`.
    """

    cell: Net
    prior: Net
    posterior: Net
    kind: LatentKind
    config: ModelConfig
    dtype: Any
    head: Mapping[str, Any]  # what a `LatentHead` like the prior is made of

    @classmethod
    def create(cls, config: ModelConfig, dtype: Any) -> RSSM:
        """The model of the given sizes, with one layer to the posterior."""
        kind, style = latent_kind(config), Style.of(config)
        head: dict[str, Any] = dict(
            layers=config.prior_layers, hidden=config.hidden, stoch=config.stoch, outputs=kind.outputs,
            dtype=dtype, style=style,
        )  # fmt: skip
        return cls(
            make_cell(config, dtype),
            from_linen(LatentHead(**head)),
            from_linen(LatentHead(**head | {"layers": 1})),
            kind,
            config,
            dtype,
            head,
        )

    def init(self, key: Array, action: Array, token: Array) -> Params:
        """Parameters, given an encoded action `[1, A]` and a token `[1, E]`."""
        cell_key, prior_key, posterior_key = jax.random.split(key, 3)
        latent = self.initial(1)
        return {
            "cell": self.cell.init(cell_key, latent.deter, latent.flat, action),
            "prior": self.prior.init(prior_key, latent.deter),
            "posterior": self.posterior.init(posterior_key, latent.deter, token),
        }

    def initial(self, *batch: int) -> Latent:
        """The latent before anything was seen: zeros `[*batch, ...]`, not learned."""
        return self.kind.initial(jnp.zeros((*batch, self.config.deter), self.dtype))

    def distribution(self, logits: Array) -> Any:
        """That of z `[..., S]`: with `kl(other)` of the same kind, and `entropy()`."""
        return self.kind.distribution(logits)

    def sample(self, key: Array, logits: Array, temperature: float = 1.0) -> Array:
        """z `[..., S, K]` with a gradient by the logits."""
        return self._chosen(self.kind.noise(key, logits.shape[:-1]), logits, temperature)

    def _chosen(self, noise: Array, logits: Array, temperature: float = 1.0) -> Array:
        """`sample` with the random numbers `[..., S]` given."""
        return self.kind.chosen(noise, logits, temperature).astype(self.dtype)

    def advance(self, params: Params, latent: Latent, action: Array) -> Array:
        """h' after `action` `[..., A]`."""
        return self.cell.apply(params["cell"], latent.deter, latent.flat, action)

    def observe_step(
        self, params: Params, key: Array, latent: Latent, action: Array, token: Array, is_first: Array
    ) -> tuple[Latent, Array]:
        """One step with an observation: the posterior latent and its logits `[..., S, K]`.

        `action` `[..., A]` is the one that led here; where `is_first` it and `latent` are forgotten.
        """
        noise = self.kind.noise(key, (*is_first.shape, self.config.stoch))
        return self._observed(params, noise, latent, action, token, is_first)

    def _observed(
        self, params: Params, noise: Array, latent: Latent, action: Array, token: Array, is_first: Array
    ) -> tuple[Latent, Array]:
        """`observe_step` with the random numbers `[..., S]` given."""
        keep = ~is_first
        action = action * keep[..., None].astype(action.dtype)
        deter = self.advance(params, latent.masked(keep), action)
        logits = self.posterior.apply(params["posterior"], deter, token)
        return self.kind.join(deter, self._chosen(noise, logits)), logits

    def imagine_step(
        self, params: Params, key: Array, latent: Latent, action: Array, temperature: float = 1.0
    ) -> Latent:
        """One step without an observation: z comes from the prior, at 1 as it was trained, at 0 its mode."""
        deter = self.advance(params, latent, action)
        return self.kind.join(deter, self.sample(key, self.prior.apply(params["prior"], deter), temperature))

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
            noise = self.kind.noise(step_key, (batch, self.config.stoch))
            new, logits = each(params, divide(noise, parts) if parts > 1 else noise, carry, *given)
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
