"""Learning without a decoder: latents that tell the encoder's tokens, one number of them each.

R2-Dreamer (Morihira et al., arXiv 2603.18202; NM512/r2dreamer), with the loss of Barlow Twins (arXiv 2103.03230).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamer_agent.nets import truncated_normal

Array = jax.Array
BARLOW = ("invariance", "redundancy")  # the losses
EPS = 1e-8  # of variances: numbers that are all the same have a gradient, too


class Projector(nn.Module):
    """One matrix, without bias, from features to as many numbers as a token has."""

    dtype: Any

    @nn.compact
    def __call__(self, features: Array, tokens: Array) -> Array:
        """`[N, F]` and `[N, E]`, of which only the size counts, to `[N, E]`."""
        return nn.Dense(
            tokens.shape[-1], use_bias=False, dtype=self.dtype, kernel_init=truncated_normal(), name="matrix"
        )(features)


def standardised(x: Array) -> Array:
    """`[N, E]` with mean 0 and variance 1 of each column, over all rows of the batch."""
    x = x.astype(jnp.float32)
    return (x - x.mean(0)) * jax.lax.rsqrt(x.var(0) + EPS)


def barlow_losses(told: Array, tokens: Array) -> tuple[Array, Array]:
    """Invariance sum_i (1 - C_ii)^2 and redundancy sum_{i != j} C_ij^2, two scalars.

    C `[E, E]` is the correlation of what the latents tell `[N, E]` with the tokens `[N, E]`, which get no
    gradient here: the encoder learns by what the posterior makes of its tokens.
    """
    told, tokens = standardised(told), standardised(jax.lax.stop_gradient(tokens))
    correlation = told.T @ tokens / len(told)
    own = jnp.diagonal(correlation)
    # Not the square of all less that of the diagonal: the gradient of a difference of large numbers is noise.
    other = correlation * (1 - jnp.eye(len(own)))
    return jnp.square(1 - own).sum(), jnp.square(other).sum()
