"""A distribution over sequences of actions: what sampling planners draw from and fit to the better draws."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dreamer_agent.specs import Specs
from dreamer_agent.world_model import Actions, LegalActions

Array = jax.Array
LEAST = 1e-6  # probability that a class keeps within the iterations of a step
STAYS = 0.5  # share of the last step's probabilities in those that the next one begins with


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

    def sample(self, key: Array, count: int, legal: LegalActions = None) -> Actions:
        """`[B, count, H, ...]`; continuous actions are cut off at -1 and 1, the first ones are `legal`."""
        keys = jax.random.split(key, len(self.center))
        actions = {}
        for own, (name, center) in zip(keys, sorted(self.center.items()), strict=True):
            if name in self.spread:
                shape = (center.shape[0], count, *center.shape[1:])
                noise = self.spread[name][:, None] * jax.random.normal(own, shape)
                actions[name] = jnp.clip(center[:, None] + noise, -1.0, 1.0)
            else:
                shape = (center.shape[0], count, *center.shape[1:-1])
                logits = jnp.log(center + LEAST)
                if legal and name in legal:
                    logits = logits.at[:, 0].set(jnp.where(legal[name], logits[:, 0], -jnp.inf))
                actions[name] = jax.random.categorical(own, logits[:, None], -1, shape=shape)
        return actions

    def fitted(self, actions: Actions, weights: Array, momentum: float, least: float) -> Proposal:
        """To `actions` `[B, n, H, ...]` with `weights` `[B, n]` that sum to 1, or to 0 where nothing is known and
        the old one stays; `momentum` is the share of the old one, `least` the smallest standard deviation.
        """
        center, spread = {}, {}
        known = weights.sum(-1) > 0
        for name, old in self.center.items():
            taken = actions[name]
            if name not in self.spread:
                taken = jax.nn.one_hot(taken, old.shape[-1])
            share = weights.reshape(*weights.shape, *(1,) * (taken.ndim - 2))
            taken = jnp.where(share > 0, taken, 0)
            mean = (share * taken).sum(1)
            keep = known.reshape(-1, *(1,) * (old.ndim - 1))
            center[name] = jnp.where(keep, momentum * old + (1 - momentum) * mean, old)
            if name in self.spread:
                std = jnp.sqrt((share * (taken - mean[:, None]) ** 2).sum(1))
                std = jnp.maximum(momentum * self.spread[name] + (1 - momentum) * std, least)
                spread[name] = jnp.where(keep, std, self.spread[name])
        return Proposal(center, spread)

    def first(self, legal: LegalActions = None) -> Actions:
        """The likeliest actions of the first step, `[B, ...]`, of discrete ones the likeliest `legal` one."""
        chosen = {}
        for name, center in self.center.items():
            now = center[:, 0]
            if name not in self.spread:
                now = (jnp.where(legal[name], now, -1.0) if legal and name in legal else now).argmax(-1)
            chosen[name] = now
        return chosen

    def later(self, wide: Proposal) -> Proposal:
        """One step on, with the last step of `wide` at the end. It is open to change again: spread as `wide` is,
        and probabilities half way back to those.
        """
        ahead = {}
        for name, center in self.center.items():
            moved = jnp.concatenate([center[:, 1:], wide.center[name][:, -1:]], 1)
            ahead[name] = moved if name in self.spread else STAYS * moved + (1 - STAYS) * wide.center[name]
        return Proposal(ahead, wide.spread)


def uniform(specs: Specs, key: Array, batch: int, count: int, horizon: int, legal: LegalActions) -> Actions:
    """Actions `[B, count, H, ...]`, all equally likely; at the first step those that are `legal`."""
    wide = Proposal.wide(specs, batch, horizon, 1.0)
    actions = wide.sample(jax.random.fold_in(key, 1), count, legal)  # of which the discrete ones stay
    for own, name in zip(jax.random.split(key, len(specs)), sorted(wide.spread), strict=False):
        actions[name] = jax.random.uniform(own, actions[name].shape, minval=-1.0, maxval=1.0)
    return actions
