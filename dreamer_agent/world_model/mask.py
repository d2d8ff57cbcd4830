"""Which actions are legal: as observed for acting, as predicted for imagination.

The masks of an environment (`specs.MASK`) are observations with a head of their own instead of the decoder, since
every imagined step needs them. Sampling, log-probability and entropy of the policy use the same masks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dreamer_agent.distributions import Bernoulli, Prediction
from dreamer_agent.nets import Head, Net, Params, from_linen
from dreamer_agent.specs import Specs, mask_key, masked_actions

Array = jax.Array
LegalActions = dict[str, Array] | None  # booleans [..., *shape, classes] by action key; None: all are


@dataclass(frozen=True)
class MaskPredictor:
    """Predicts the masks of all discrete actions from features."""

    net: Net
    act_specs: Specs

    @classmethod
    def create(cls, act_specs: Specs, head: dict[str, Any]) -> MaskPredictor:
        """The head for the discrete ones among `act_specs`; `head` has its layers, units and type."""
        discrete = {key: spec for key, spec in sorted(act_specs.items()) if spec.kind == "discrete"}
        size = sum(math.prod(spec.shape) * spec.classes for spec in discrete.values())
        return cls(from_linen(Head(features=size, **head)), discrete)

    def predict(self, params: Params, features: Array) -> dict[str, Prediction]:
        """The probability of every choice to be legal, by the masks' names."""
        raw, start = self.net.apply(params, features), 0
        out: dict[str, Prediction] = {}
        for key, spec in self.act_specs.items():
            shape = (*spec.shape, spec.classes)
            part = raw[..., start : start + math.prod(shape)]
            out[mask_key(key)] = Bernoulli(part.reshape(*raw.shape[:-1], *shape), len(shape))
            start += math.prod(shape)
        return out

    def legal(self, params: Params, features: Array) -> LegalActions:
        """Choices that are more likely legal than not; where none is, the likeliest one alone."""
        predicted = self.predict(params, features)
        out = {}
        for key in self.act_specs:
            logit = predicted[mask_key(key)].logit  # type: ignore[attr-defined]
            likeliest = jax.nn.one_hot(logit.argmax(-1), logit.shape[-1], dtype=bool)
            out[key] = jnp.where((logit > 0).any(-1, keepdims=True), logit > 0, likeliest)
        return out


def observed_legal(obs_specs: Specs, act_specs: Specs, obs: dict[str, Array]) -> LegalActions:
    """The legal actions that an observation `[..., ...]` tells; None where it tells none.

    After the last step of an episode nothing may be legal: there everything counts as such.
    """
    out = {}
    for key in masked_actions(obs_specs, act_specs):
        legal = obs[mask_key(key)].astype(bool)
        out[key] = legal | ~legal.any(-1, keepdims=True)
    return out or None


def with_taken(legal: LegalActions, actions: dict[str, Array]) -> LegalActions:
    """`legal` and what was chosen: a second prediction may round a choice at the edge to the other side."""
    if legal is None:
        return None
    return {key: on | jax.nn.one_hot(actions[key], on.shape[-1], dtype=bool) for key, on in legal.items()}
