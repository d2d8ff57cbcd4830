"""Pure mathematics of the algorithm: one function per equation, no networks and no state.

V3 stands for Hafner et al., "Mastering Diverse Domains through World Models" (arXiv 2301.04104).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def symlog(x: Array) -> Array:
    """sign(x) ln(1 + |x|): compresses large magnitudes on both sides of zero (V3, eq. 9)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Array) -> Array:
    """sign(x) (exp|x| - 1): the inverse of `symlog` (V3, eq. 9)."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def symexp_bins(count: int = 255, limit: float = 20.0) -> np.ndarray:
    """`count` (odd) bin centres in raw space, exactly symmetric around an exact zero (V3, eq. 10)."""
    if count < 3 or count % 2 == 0:
        raise ValueError(f"Two-hot bins need an odd count of at least 3, so that one is zero; got {count}.")
    half = -np.expm1(np.linspace(limit, 0.0, count // 2 + 1))
    return np.concatenate([half, -half[:-1][::-1]]).astype(np.float32)


def twohot(x: Array, bins: Array | np.ndarray) -> Array:
    """Weights `[..., bins]` on the two neighbours of x whose mean is x; clipped at the outermost bins.

    Each weight is a hat function around its bin: it rises from the neighbour below and falls to the one
    above. That is one fused expression, without a search or a gather.
    """
    bins = np.asarray(bins, np.float32)
    x = jnp.clip(x, bins[0], bins[-1])[..., None]
    width = np.diff(bins)
    rising = (x - np.append(-np.inf, bins[:-1]).astype(np.float32)) / np.append(1, width).astype(np.float32)
    falling = (np.append(bins[1:], np.inf).astype(np.float32) - x) / np.append(width, 1).astype(np.float32)
    return jnp.clip(jnp.minimum(rising, falling), 0.0, 1.0)


def symmetric_mean(logits: Array, bins: np.ndarray) -> Array:
    """Mean of symmetric `bins` under softmax(logits) `[..., bins]`, summed in mirrored pairs.

    A left-to-right sum of a uniform distribution over symmetric bins leaves a rounding error of the size
    of the largest bins; paired, it is exactly zero, so that a zero-initialised head predicts exactly 0.
    """
    middle = len(bins) // 2
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
    pairs = weights[..., middle + 1 :] - weights[..., :middle][..., ::-1]
    return pairs @ jnp.asarray(bins[middle + 1 :]) / weights.sum(-1)


def cumulative(x: Array) -> Array:
    """Sums of `x` `[..., K]` up to and including each entry, as one product with a triangle of ones.

    For the few classes of a latent that is faster than `jnp.cumsum`, whose log K steps are operations each.
    """
    upto = np.triu(np.ones((x.shape[-1],) * 2, np.float32))
    return jnp.matmul(x, upto, precision="highest")


def straight_through(sample: Array, probs: Array) -> Array:
    """The value of `sample` with the gradient of `probs` (V2, arXiv 2010.02193, algorithm 1)."""
    return jax.lax.stop_gradient(sample) + probs - jax.lax.stop_gradient(probs)


def mix_uniform(logits: Array, amount: float) -> Array:
    """Logits of (1 - amount) softmax(logits) + amount / classes (V3's "unimix")."""
    if not amount:
        return jax.nn.log_softmax(logits, -1)
    probs = jax.nn.softmax(logits, -1)
    return jnp.log((1 - amount) * probs + amount / logits.shape[-1])


def lambda_return(reward: Array, discount: Array, value: Array, lambda_: Array | float) -> Array:
    """R_t = r_{t+1} + d_{t+1} ((1 - l_{t+1}) v_{t+1} + l_{t+1} R_{t+1}), with R_T = v_T (V3, eq. 7).

    Every argument holds the times 1..T on its second axis, `[B, T]`; the result holds R_0..R_{T-1},
    `[B, T]`. `lambda_` may be a number or `[B, T]` (zero where an episode is cut). The recursion is a
    composition of affine maps, hence associative: it takes log T steps instead of T.
    """
    lambda_ = jnp.broadcast_to(jnp.asarray(lambda_, reward.dtype), reward.shape)
    lambda_ = lambda_.at[:, -1].set(0.0)
    offset = reward + discount * (1 - lambda_) * value
    factor = discount * lambda_

    def compose(later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
        return earlier[0] + earlier[1] * later[0], earlier[1] * later[1]

    returns, _ = jax.lax.associative_scan(compose, (offset, factor), axis=1, reverse=True)
    return returns


class PercentileRange(NamedTuple):
    """Running 5th and 95th percentile of the returns, both scalars."""

    low: Array
    high: Array

    @classmethod
    def zeros(cls) -> PercentileRange:
        """The range before any return was seen."""
        return cls(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))

    def update(self, x: Array, rate: Array | float) -> PercentileRange:
        """Moving average with the percentiles of `x` (any shape); no bias correction (V3, eq. 11)."""
        low, high = jnp.percentile(jax.lax.stop_gradient(x), jnp.array([5.0, 95.0]))
        return PercentileRange(self.low + rate * (low - self.low), self.high + rate * (high - self.high))

    @property
    def scale(self) -> Array:
        """max(1, high - low): returns are only ever scaled down, so that noise is not blown up."""
        return jnp.maximum(1.0, self.high - self.low)
