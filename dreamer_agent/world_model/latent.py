"""The state of the world model, of either kind, and how actions enter it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dreamer_agent.config import ModelConfig
from dreamer_agent.distributions import Categorical, Normal
from dreamer_agent.specs import Specs

Array = jax.Array
Actions = dict[str, Array]


class Latent(NamedTuple):
    """deter h `[..., D]` and stoch z `[..., S, K]`, the latter one-hot over its last axis."""

    deter: Array
    stoch: Array

    @property
    def features(self) -> Array:
        """h and z side by side, `[..., D + S K]`: what every head sees."""
        return jnp.concatenate([self.deter, self.flat], -1)

    @property
    def flat(self) -> Array:
        """z as one vector, `[..., S K]`."""
        return self.stoch.reshape(*self.stoch.shape[:-2], -1)

    def pack(self) -> dict[str, Array]:
        """The stored form: h in compute dtype, z as uint8 class indices `[..., S]`."""
        return {"deter": self.deter, "stoch": self.stoch.argmax(-1).astype(jnp.uint8)}

    @classmethod
    def unpack(cls, stored: dict[str, Array], classes: int, dtype: Any) -> Latent:
        """The inverse of `pack`."""
        stoch = jax.nn.one_hot(stored["stoch"], classes, dtype=dtype)
        return cls(stored["deter"].astype(dtype), stoch)

    def masked(self, keep: Array) -> Latent:
        """This latent where `keep` `[...]` is true, zero elsewhere: a fresh start has no memory."""
        return jax.tree.map(lambda x: x * _expand(keep, x).astype(x.dtype), self)


class GaussianLatent(Latent):
    """deter h `[..., D]` and stoch z `[..., S]`, which are numbers (V1)."""

    __slots__ = ()

    @property
    def flat(self) -> Array:
        """z as it is, `[..., S]`."""
        return self.stoch

    def pack(self) -> dict[str, Array]:
        """The stored form: h and z in compute dtype, since numbers have no indices."""
        return {"deter": self.deter, "stoch": self.stoch}

    @classmethod
    def unpack(cls, stored: dict[str, Array], classes: int, dtype: Any) -> GaussianLatent:
        """The inverse of `pack`; there are no classes."""
        return cls(stored["deter"].astype(dtype), stored["stoch"].astype(dtype))


class LatentKind(Protocol):
    """What z is: how its distribution comes from the output of a head, and z from a random number.

    The heads of prior and posterior give `statistics` `[..., S, outputs]`; noise is `[..., S]`.
    """

    @property
    def outputs(self) -> int:
        """Numbers that a head gives for each of the S parts of z."""

    def initial(self, deter: Array) -> Latent:
        """The latent with this h `[..., D]` and z of zeros."""

    def join(self, deter: Array, stoch: Array) -> Latent:
        """The latent of h and z."""

    def unpack(self, stored: dict[str, Array], dtype: Any) -> Latent:
        """The latent that was packed as `stored`."""

    def noise(self, key: Array, shape: tuple[int, ...]) -> Array:
        """The random numbers that `chosen` takes."""

    def distribution(self, statistics: Array) -> Categorical | Normal:
        """That of z, with its S parts as the event."""

    def chosen(self, noise: Array, statistics: Array, temperature: float = 1.0) -> Array:
        """z, with a gradient by the statistics; at the temperature 1 as it was trained, at 0 the likeliest."""


@dataclass(frozen=True)
class Categoricals:
    """S categoricals, mixed with `unimix` of the uniform one, with straight-through gradient (V2, V3)."""

    stoch: int
    classes: int
    unimix: float

    @property
    def outputs(self) -> int:
        """A logit for each class."""
        return self.classes

    def initial(self, deter: Array) -> Latent:
        """No class is chosen."""
        return Latent(deter, jnp.zeros((*deter.shape[:-1], self.stoch, self.classes), deter.dtype))

    def join(self, deter: Array, stoch: Array) -> Latent:
        """z is `[..., S, K]`."""
        return Latent(deter, stoch)

    def unpack(self, stored: dict[str, Array], dtype: Any) -> Latent:
        """See `Latent.unpack`."""
        return Latent.unpack(stored, self.classes, dtype)

    def noise(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Uniform in [0, 1)."""
        return jax.random.uniform(key, shape)

    def distribution(self, statistics: Array) -> Categorical:
        """From logits `[..., S, K]`."""
        return Categorical.from_logits(statistics, event_ndim=1, unimix=self.unimix)

    def chosen(self, noise: Array, statistics: Array, temperature: float = 1.0) -> Array:
        """One-hot classes `[..., S, K]`."""
        dist = self.distribution(statistics).tempered(temperature)
        # Unimix gives every class a probability, and random numbers are a good part of an imagined step.
        return dist.onehot(dist.quantile(noise))


@dataclass(frozen=True)
class Gaussians:
    """S normal distributions, std softplus + 0.1, whose samples are reparametrised (V1)."""

    stoch: int
    min_std: float = 0.1

    @property
    def outputs(self) -> int:
        """Mean, and std before the softplus."""
        return 2

    def initial(self, deter: Array) -> Latent:
        """Zeros."""
        return GaussianLatent(deter, jnp.zeros((*deter.shape[:-1], self.stoch), deter.dtype))

    def join(self, deter: Array, stoch: Array) -> Latent:
        """z is `[..., S]`."""
        return GaussianLatent(deter, stoch)

    def unpack(self, stored: dict[str, Array], dtype: Any) -> Latent:
        """See `GaussianLatent.unpack`."""
        return GaussianLatent.unpack(stored, 0, dtype)

    def noise(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Standard normal."""
        return jax.random.normal(key, shape)

    def distribution(self, statistics: Array) -> Normal:
        """From mean and raw std `[..., S, 2]`."""
        wide = statistics.astype(jnp.float32)
        return Normal(wide[..., 0], jax.nn.softplus(wide[..., 1]) + self.min_std, event_ndim=1)

    def chosen(self, noise: Array, statistics: Array, temperature: float = 1.0) -> Array:
        """Numbers `[..., S]`."""
        dist = self.distribution(statistics)
        return dist.loc + dist.std * (noise if temperature == 1 else temperature**0.5 * noise)


def latent_kind(config: ModelConfig) -> LatentKind:
    """That of `config.latent`."""
    if config.latent == "gaussian":
        return Gaussians(config.stoch)
    return Categoricals(config.stoch, config.classes, config.unimix)


def _expand(flag: Array, like: Array) -> Array:
    return flag.reshape(flag.shape + (1,) * (like.ndim - flag.ndim))


def encode_actions(specs: Specs, actions: Actions, dtype: Any) -> Array:
    """Actions side by side in the order of their sorted names, integers one-hot: `[..., A]`.

    Choices that are one-hot already stay as they are, with their gradient.
    """
    parts = []
    for key in sorted(specs):
        spec, value = specs[key], actions[key]
        hot = spec.kind == "discrete" and jnp.issubdtype(value.dtype, jnp.floating)
        batch = value.shape[: value.ndim - len(spec.shape) - hot]
        if spec.kind == "discrete" and not hot:
            value = jax.nn.one_hot(value, spec.classes, dtype=dtype)
        parts.append(value.astype(dtype).reshape(*batch, spec.encoded_size))
    return jnp.concatenate(parts, -1)


def zero_actions(specs: Specs, batch: tuple[int, ...]) -> Actions:
    """Placeholder actions `[*batch, ...]` for rows whose action is masked by a reset."""
    return {key: jnp.zeros((*batch, *spec.shape), spec.dtype) for key, spec in specs.items()}
