"""What heads predict: small distributions over the last axes of an array.

All share one vocabulary: `mode()` the most likely value, `mean()` the expected one where it differs,
`sample(key)`, `log_prob(x)`, `loss(target)`, `entropy()`, `kl(other)`. Results sum over the event's axes
(`event_ndim` of them), so that a head over `[B, T, ...]` gives `[B, T]`. All numbers are float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent import ops

Array = jax.Array


ILLEGAL = -1e9  # logit of a class that must not occur; finite, so that 0 x log 0 is 0


def sum_event(x: Array, ndim: int) -> Array:
    """Sum over the last `ndim` axes."""
    return x.sum(tuple(range(-ndim, 0))) if ndim else x


class Prediction(Protocol):
    """What every head can do: name a value and be scored against a target."""

    def mode(self) -> Array:
        """The value to show or to act on."""

    def loss(self, target: Array) -> Array:
        """Score of `target`, to be minimised, without the event's axes."""


@dataclass(frozen=True)
class Categorical:
    """Integers; `log_probs` `[..., *event, classes]` are normalised."""

    log_probs: Array
    event_ndim: int = 0

    @classmethod
    def from_logits(
        cls, logits: Array, event_ndim: int = 0, unimix: float = 0.0, legal: Array | None = None
    ) -> Categorical:
        """From unnormalised logits, mixed with `unimix` of the uniform distribution.

        Where `legal` `[..., *event, classes]` is false, the probability is zero, and the rest is normalised
        again; one must be true.
        """
        log_probs = ops.mix_uniform(logits.astype(jnp.float32), unimix)
        if legal is not None:
            log_probs = jax.nn.log_softmax(jnp.where(legal, log_probs, ILLEGAL), -1)
        return cls(log_probs, event_ndim)

    def mode(self) -> Array:
        """The most likely index, `[..., *event]`."""
        return self.log_probs.argmax(-1)

    def sample(self, key: Array) -> Array:
        """One index for each element, `[..., *event]`; never one of probability zero."""
        return jax.random.categorical(key, self.log_probs, axis=-1)

    def quantile(self, level: Array) -> Array:
        """The first index up to which the probabilities sum to more than `level` `[..., *event]` in [0, 1).

        Where `level` is uniform this is a sample, for one random number where the Gumbel trick of `sample` takes
        one for each class. Rounding may hit a class of probability zero, if there is one.
        """
        upto = ops.cumulative(jnp.exp(jax.lax.stop_gradient(self.log_probs)))
        return (upto <= level[..., None] * upto[..., -1:]).sum(-1)

    def tempered(self, temperature: float) -> Categorical:
        """The probabilities to the power of 1 / `temperature`: itself at 1, its mode alone at 0."""
        if temperature == 1:
            return self
        if temperature == 0:
            likeliest = jax.nn.one_hot(self.mode(), self.log_probs.shape[-1], dtype=bool)
            return Categorical(jnp.where(likeliest, 0.0, ILLEGAL), self.event_ndim)
        return Categorical(jax.nn.log_softmax(self.log_probs / temperature, -1), self.event_ndim)

    def noisy(self, key: Array, index: Array, share: float) -> Array:
        """`index`, a `share` of it replaced by others of those that may occur, all equally likely."""
        which, other = jax.random.split(key)
        possible = jnp.where(self.log_probs > ILLEGAL / 2, 0.0, ILLEGAL)
        drawn = jax.random.categorical(other, possible, axis=-1)
        return jnp.where(jax.random.bernoulli(which, share, index.shape), drawn, index)

    def log_prob(self, index: Array) -> Array:
        """Log-probability of `index` `[..., *event]`."""
        picked = jnp.take_along_axis(self.log_probs, index[..., None].astype(jnp.int32), -1)[..., 0]
        return sum_event(picked, self.event_ndim)

    def loss(self, target: Array) -> Array:
        """Cross-entropy against indices."""
        return -self.log_prob(target)

    def entropy(self) -> Array:
        """Entropy in nats."""
        return sum_event(-(jnp.exp(self.log_probs) * self.log_probs).sum(-1), self.event_ndim)

    def kl(self, other: Categorical) -> Array:
        """KL(self || other) in nats."""
        gap = jnp.exp(self.log_probs) * (self.log_probs - other.log_probs)
        return sum_event(gap.sum(-1), self.event_ndim)

    def onehot(self, index: Array) -> Array:
        """`index` as one-hot `[..., *event, classes]` with the straight-through gradient of the probabilities."""
        hot = jax.nn.one_hot(index, self.log_probs.shape[-1], dtype=jnp.float32)
        return ops.straight_through(hot, jnp.exp(self.log_probs))


@dataclass(frozen=True)
class Normal:
    """Independent normals with `mean` and `std` of shape `[..., *event]`."""

    loc: Array
    std: Array
    event_ndim: int = 0

    @classmethod
    def bounded(cls, mean: Array, std: Array, event_ndim: int, low: float = 0.1, high: float = 1.0) -> Normal:
        """Mean tanh(mean), std between `low` and `high` by a sigmoid shifted by 2 (V3's actor)."""
        mean, std = mean.astype(jnp.float32), std.astype(jnp.float32)
        return cls(jnp.tanh(mean), (high - low) * jax.nn.sigmoid(std + 2.0) + low, event_ndim)

    def mode(self) -> Array:
        """The mean."""
        return self.loc

    def sample(self, key: Array) -> Array:
        """One value, `[..., *event]`."""
        return self.loc + self.std * jax.random.normal(key, self.loc.shape, jnp.float32)

    def noisy(self, key: Array, x: Array, std: float) -> Array:
        """`x` and normal noise, within [-1, 1] (V1)."""
        return added_noise(key, x, std)

    def log_prob(self, x: Array) -> Array:
        """Log-density of `x`."""
        z = (x - self.loc) / self.std
        return sum_event(-0.5 * z**2 - jnp.log(self.std) - 0.5 * jnp.log(2 * jnp.pi), self.event_ndim)

    def entropy(self) -> Array:
        """Differential entropy in nats."""
        return sum_event(jnp.log(self.std) + 0.5 * jnp.log(2 * jnp.pi * jnp.e), self.event_ndim)

    def kl(self, other: Normal) -> Array:
        """KL(self || other) in nats."""
        ratio, gap = self.std / other.std, (self.loc - other.loc) / other.std
        return sum_event(0.5 * (ratio**2 + gap**2 - 1.0) - jnp.log(ratio), self.event_ndim)


@dataclass(frozen=True)
class TanhNormal:
    """tanh of independent normals (V1, arXiv 1912.01603, appendix A)."""

    base: Normal

    @classmethod
    def from_raw(cls, mean: Array, std: Array, event_ndim: int, init_std: float = 5.0) -> TanhNormal:
        """Mean 5 tanh(mean / 5) and std softplus + 1e-4, which is `init_std` for a raw output of zero."""
        mean, std = mean.astype(jnp.float32), std.astype(jnp.float32)
        shift = float(np.log(np.expm1(init_std)))
        return cls(Normal(5.0 * jnp.tanh(mean / 5.0), jax.nn.softplus(std + shift) + 1e-4, event_ndim))

    def mode(self) -> Array:
        """tanh of the mean, which is the median."""
        return jnp.tanh(self.base.loc)

    def sample(self, key: Array) -> Array:
        """One value in [-1, 1], `[..., *event]`."""
        return jnp.tanh(self.base.sample(key))

    def noisy(self, key: Array, x: Array, std: float) -> Array:
        """`x` and normal noise, within [-1, 1]."""
        return added_noise(key, x, std)

    def log_prob(self, x: Array) -> Array:
        """Log-density of `x`; where it is rounded to -1 or 1, that of the nearest number inside."""
        y = jnp.arctanh(jnp.clip(x, -1 + 1e-6, 1 - 1e-6))
        return self.base.log_prob(y) - sum_event(self._log_slope(y), self.base.event_ndim)

    def entropy(self) -> Array:
        """Entropy of the normal and the mean log-slope of the tanh, by a Gauss-Hermite sum over 32 points."""
        points, weights = np.polynomial.hermite_e.hermegauss(32)
        y = self.base.loc[..., None] + self.base.std[..., None] * points.astype(np.float32)
        slope = self._log_slope(y) @ jnp.asarray(weights / weights.sum(), jnp.float32)
        return self.base.entropy() + sum_event(slope, self.base.event_ndim)

    @staticmethod
    def _log_slope(y: Array) -> Array:
        """ln(1 - tanh(y)^2)."""
        return 2.0 * (jnp.log(2.0) - y - jax.nn.softplus(-2.0 * y))


@dataclass(frozen=True)
class TruncatedNormal:
    """Independent normals cut at -1 and 1, with `loc` between them and `std` of shape `[..., *event]` (V2)."""

    loc: Array
    std: Array
    event_ndim: int = 0

    @classmethod
    def from_raw(cls, mean: Array, std: Array, event_ndim: int) -> TruncatedNormal:
        """Mean tanh(mean), std 2 sigmoid(std / 2) + 0.1."""
        mean, std = mean.astype(jnp.float32), std.astype(jnp.float32)
        return cls(jnp.tanh(mean), 2.0 * jax.nn.sigmoid(std / 2.0) + 0.1, event_ndim)

    def mode(self) -> Array:
        """The mean before the cut."""
        return self.loc

    def sample(self, key: Array) -> Array:
        """One value in [-1, 1], `[..., *event]`, by the inverse of the distribution: with gradient."""
        below, mass, *_ = self._cut()
        level = below + mass * jax.random.uniform(key, self.loc.shape)
        # No further out than float32 can tell the levels apart.
        level = jnp.clip(level, 1e-6, 1 - 1e-6)
        return jnp.clip(self.loc + self.std * np.sqrt(2.0) * jax.lax.erf_inv(2.0 * level - 1.0), -1.0, 1.0)

    def noisy(self, key: Array, x: Array, std: float) -> Array:
        """`x` and normal noise, within [-1, 1]."""
        return added_noise(key, x, std)

    def log_prob(self, x: Array) -> Array:
        """Log-density of `x` in [-1, 1]."""
        z, mass = (x - self.loc) / self.std, self._cut()[1]
        density = -0.5 * z**2 - jnp.log(self.std) - 0.5 * jnp.log(2 * jnp.pi) - jnp.log(mass)
        return sum_event(density, self.event_ndim)

    def entropy(self) -> Array:
        """Differential entropy in nats."""
        _, mass, low, high = self._cut()
        edges = (low * jax.scipy.stats.norm.pdf(low) - high * jax.scipy.stats.norm.pdf(high)) / (2 * mass)
        whole = jnp.log(self.std) + 0.5 * jnp.log(2 * jnp.pi * jnp.e)
        return sum_event(whole + jnp.log(mass) + edges, self.event_ndim)

    def _cut(self) -> tuple[Array, Array, Array, Array]:
        """Probability below -1, that between -1 and 1, and where these lie in units of the std."""
        low, high = (-1.0 - self.loc) / self.std, (1.0 - self.loc) / self.std
        below = jax.scipy.special.ndtr(low)
        return below, jax.scipy.special.ndtr(high) - below, low, high


def added_noise(key: Array, x: Array, std: float) -> Array:
    """`x` and normal noise, within [-1, 1]: how V1 explores."""
    return jnp.clip(x + std * jax.random.normal(key, x.shape, jnp.float32), -1.0, 1.0)


@dataclass(frozen=True)
class Bernoulli:
    """Probabilities of one, `logit` `[..., *event]`."""

    logit: Array
    event_ndim: int = 0

    def prob(self) -> Array:
        """Probability of one."""
        return jax.nn.sigmoid(self.logit)

    def mode(self) -> Array:
        """True where one is the likelier."""
        return self.logit > 0

    def loss(self, target: Array) -> Array:
        """Cross-entropy against `target`, which may lie between 0 and 1."""
        loss = -(target * jax.nn.log_sigmoid(self.logit) + (1 - target) * jax.nn.log_sigmoid(-self.logit))
        return sum_event(loss, self.event_ndim)


@dataclass(frozen=True)
class Certain:
    """A probability that nobody predicts, `value` `[...]`."""

    value: Array

    def prob(self) -> Array:
        """It."""
        return self.value


@dataclass(frozen=True)
class TwoHot:
    """A number as a distribution over bins in raw space; `logits` `[..., bins]` (V3, eq. 10)."""

    logits: Array
    bins: np.ndarray

    def detached(self) -> TwoHot:
        """The same prediction, through which no gradient flows."""
        return TwoHot(jax.lax.stop_gradient(self.logits), self.bins)

    def mean(self) -> Array:
        """The expected value, exactly zero for zero logits."""
        return ops.symmetric_mean(self.logits, self.bins)

    def mode(self) -> Array:
        """The expected value: the point estimate of a two-hot head."""
        return self.mean()

    def loss(self, target: Array) -> Array:
        """Cross-entropy against the two-hot encoding of `target` `[...]`."""
        weights = ops.twohot(jax.lax.stop_gradient(target), self.bins)
        return jax.nn.logsumexp(self.logits, -1) - (weights * self.logits).sum(-1)


@dataclass(frozen=True)
class Number:
    """A number predicted by itself, in symlog space if `symlog`; `prediction` `[...]` (V3, eq. 1)."""

    prediction: Array
    symlog: bool

    def detached(self) -> Number:
        """The same prediction, through which no gradient flows."""
        return Number(jax.lax.stop_gradient(self.prediction), self.symlog)

    def mean(self) -> Array:
        """The number, exactly zero for a prediction of zero."""
        return ops.symexp(self.prediction) if self.symlog else self.prediction

    def mode(self) -> Array:
        """The number."""
        return self.mean()

    def loss(self, target: Array) -> Array:
        """Half the squared distance to `target` `[...]`, or to its symlog."""
        target = jax.lax.stop_gradient(target)
        return 0.5 * jnp.square(self.prediction - (ops.symlog(target) if self.symlog else target))


def number(raw: Array, bins: np.ndarray | None, symlog: bool) -> TwoHot | Number:
    """The output `[..., outputs]` of a head as a number: over `bins`, or where there are none its one output."""
    return Number(raw[..., 0], symlog) if bins is None else TwoHot(raw, bins)


@dataclass(frozen=True)
class VectorError:
    """A vector predicted in symlog space, if `symlog`; `prediction` `[..., *event]`, squared error summed."""

    prediction: Array
    event_ndim: int
    symlog: bool = True

    def mode(self) -> Array:
        """The prediction in the units of the observation."""
        return ops.symexp(self.prediction) if self.symlog else self.prediction

    def loss(self, target: Array) -> Array:
        """Squared distance to symlog(target), or to the target."""
        target = ops.symlog(target) if self.symlog else target
        return sum_event(jnp.square(self.prediction - target), self.event_ndim)


@dataclass(frozen=True)
class GaussianVector(VectorError):
    """The mean of a normal distribution with unit variance, whose loss leaves out what is constant (V1, V2)."""

    def loss(self, target: Array) -> Array:
        """Half the squared distance."""
        return 0.5 * VectorError.loss(self, target)


@dataclass(frozen=True)
class PixelError:
    """An image with values in [0, 1], `prediction` `[..., height, width, channels]`."""

    prediction: Array

    def mode(self) -> Array:
        """The image as uint8."""
        return jnp.round(self.prediction * 255).astype(jnp.uint8)

    def loss(self, target: Array) -> Array:
        """Squared error against uint8 pixels / 255, summed over the image."""
        return sum_event(jnp.square(self.prediction - target.astype(jnp.float32) / 255), 3)


@dataclass(frozen=True)
class GaussianPixels(PixelError):
    """The mean of a normal distribution with unit variance, which may leave [0, 1] (V1, V2)."""

    def mode(self) -> Array:
        """The image as uint8."""
        return jnp.round(jnp.clip(self.prediction, 0, 1) * 255).astype(jnp.uint8)

    def loss(self, target: Array) -> Array:
        """Half the squared error, summed over the image."""
        return 0.5 * PixelError.loss(self, target)
