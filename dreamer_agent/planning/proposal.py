"""A distribution over sequences of actions: what sampling planners draw from and fit to the better draws."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dreamer_agent.specs import Specs
from dreamer_agent.world_model import Actions

Array = jax.Array
LEAST = 1e-6  # probability that a class keeps


class Proposal(NamedTuple):
    """Independent for every step and number, `[B, H, ...]`, by key: `center` the mean of a continuous action, in
    [-1, 1], or the probabilities of each class of a discrete one; `spread` the standard deviation of the former.
    """

    center: Actions
    spread: Actions

    @classmethod
    def wide(cls, specs: Specs, batch: int, horizon: int, std: float) -> Proposal:
        """Around zero with `std`; all classes alike."""
        center, spread = {}, {}
        for key, spec in specs.items():
            lead = (batch, horizon, *spec.shape)
            if spec.kind == "discrete":
                center[key] = jnp.full((*lead, spec.classes), 1 / spec.classes, jnp.float32)
            else:
                center[key], spread[key] = jnp.zeros(lead), jnp.full(lead, std, jnp.float32)
        return cls(center, spread)

    def sample(self, key: Array, count: int) -> Actions:
        """`[B, count, H, ...]`; continuous actions are cut off at -1 and 1."""
        keys = jax.random.split(key, len(self.center))
        actions = {}
        for own, (name, center) in zip(keys, sorted(self.center.items()), strict=True):
            if name in self.spread:
                shape = (center.shape[0], count, *center.shape[1:])
                noise = self.spread[name][:, None] * jax.random.normal(own, shape)
                actions[name] = jnp.clip(center[:, None] + noise, -1.0, 1.0)
            else:
                shape = (center.shape[0], count, *center.shape[1:-1])
                actions[name] = jax.random.categorical(own, jnp.log(center + LEAST)[:, None], -1, shape=shape)
        return actions

    def fitted(self, actions: Actions, weights: Array, momentum: float, least: float) -> Proposal:
        """To `actions` `[B, n, H, ...]` with `weights` `[B, n]` that sum to 1; `momentum` is the share of the old
        one that stays, `least` the smallest standard deviation.
        """
        center, spread = {}, {}
        for name, old in self.center.items():
            taken = actions[name]
            if name not in self.spread:
                taken = jax.nn.one_hot(taken, old.shape[-1])
            share = weights.reshape(*weights.shape, *(1,) * (taken.ndim - 2))
            mean = (share * taken).sum(1)
            center[name] = momentum * old + (1 - momentum) * mean
            if name in self.spread:
                std = jnp.sqrt((share * (taken - mean[:, None]) ** 2).sum(1))
                spread[name] = jnp.maximum(momentum * self.spread[name] + (1 - momentum) * std, least)
        return Proposal(center, spread)

    def first(self) -> Actions:
        """The likeliest actions of the first step, `[B, ...]`."""
        return {
            name: center[:, 0] if name in self.spread else center[:, 0].argmax(-1)
            for name, center in self.center.items()
        }

    def later(self, wide: Proposal) -> Proposal:
        """One step on, with the last step of `wide` at the end, and spread as that is."""
        ahead = {
            name: jnp.concatenate([center[:, 1:], wide.center[name][:, -1:]], 1)
            for name, center in self.center.items()
        }
        return Proposal(ahead, wide.spread)
