"""The state of the world model, and how actions enter it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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
        flat = self.stoch.reshape(*self.stoch.shape[:-2], -1)
        return jnp.concatenate([self.deter, flat], -1)

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


def _expand(flag: Array, like: Array) -> Array:
    return flag.reshape(flag.shape + (1,) * (like.ndim - flag.ndim))


def encode_actions(specs: Specs, actions: Actions, dtype: Any) -> Array:
    """Actions side by side in the order of their sorted names, integers one-hot: `[..., A]`."""
    parts = []
    for key in sorted(specs):
        spec, value = specs[key], actions[key]
        batch = value.shape[: value.ndim - len(spec.shape)]
        if spec.kind == "discrete":
            value = jax.nn.one_hot(value, spec.classes, dtype=dtype)
        parts.append(value.astype(dtype).reshape(*batch, spec.encoded_size))
    return jnp.concatenate(parts, -1)


def zero_actions(specs: Specs, batch: tuple[int, ...]) -> Actions:
    """Placeholder actions `[*batch, ...]` for rows whose action is masked by a reset."""
    return {key: jnp.zeros((*batch, *spec.shape), spec.dtype) for key, spec in specs.items()}
