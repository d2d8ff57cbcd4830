"""Actor and critic networks over latent features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent import ops
from dreamer_agent.config import ModelConfig
from dreamer_agent.distributions import (
    Categorical,
    Normal,
    Number,
    TanhNormal,
    TruncatedNormal,
    TwoHot,
    number,
)
from dreamer_agent.nets import ActionHead, Head, Net, Params, Style, from_linen
from dreamer_agent.specs import Specs
from dreamer_agent.world_model import Actions, LegalActions

Array = jax.Array
Part = Categorical | Normal | TanhNormal | TruncatedNormal
CONTINUOUS: dict[str, Callable[[Array, Array, int], Part]] = {
    "bounded_normal": Normal.bounded,
    "truncated_normal": TruncatedNormal.from_raw,
    "tanh_normal": TanhNormal.from_raw,
}


@dataclass(frozen=True)
class ActionDistribution:
    """Independent distributions for all action keys; log-probabilities and entropies are summed over them."""

    parts: Mapping[str, Part]

    def mode(self) -> Actions:
        """The likeliest action."""
        return {key: part.mode() for key, part in self.parts.items()}

    def sample(self, key: Array) -> Actions:
        """A random action."""
        keys = jax.random.split(key, len(self.parts))
        return {name: part.sample(k) for k, (name, part) in zip(keys, self.parts.items(), strict=True)}

    def explore(self, key: Array, noise: float) -> Actions:
        """A random action with noise of this std; this share of choices is drawn anew, uniformly (V1)."""
        if not noise:
            return self.sample(key)
        sample_key, noise_key = jax.random.split(key)
        actions, keys = self.sample(sample_key), jax.random.split(noise_key, len(self.parts))
        return {
            name: part.noisy(k, actions[name], noise)
            for k, (name, part) in zip(keys, self.parts.items(), strict=True)
        }

    def straight_through(self, actions: Actions) -> Actions:
        """`actions` with choices as one-hot `[..., classes]`, which have the gradient of their probabilities."""
        return {
            name: part.onehot(actions[name]) if isinstance(part, Categorical) else actions[name]
            for name, part in self.parts.items()
        }

    def log_prob(self, actions: Actions) -> Array:
        """Joint log-probability, without the event's axes."""
        return sum(part.log_prob(actions[key]) for key, part in self.parts.items())  # type: ignore[return-value]

    def entropy(self) -> Array:
        """Joint entropy in nats."""
        return sum(part.entropy() for part in self.parts.values())  # type: ignore[return-value]


@dataclass(frozen=True)
class ActorCritic:
    """The two networks that learn from imagined latents."""

    actor: Net
    critic: Net
    act_specs: Specs
    bins: np.ndarray | None
    _: KW_ONLY
    symlog: bool = True
    unimix: float = 0.0
    continuous: str = "bounded_normal"  # a key of CONTINUOUS

    @classmethod
    def create(cls, act_specs: Specs, config: ModelConfig, dtype: Any) -> ActorCritic:
        """V3's heads: nearly uniform actions and a value of exactly zero at the start."""
        size: dict[str, Any] = dict(units=config.units, dtype=dtype, style=Style.of(config))
        outputs, layers = config.bins if config.twohot else 1, config.critic_layers or config.policy_layers
        return cls(
            actor=from_linen(ActionHead(layers=config.policy_layers, specs=dict(act_specs), **size)),
            critic=from_linen(Head(layers=layers, features=outputs, scale=0.0, **size)),
            act_specs=act_specs,
            bins=ops.symexp_bins(config.bins) if config.twohot else None,
            symlog=config.symlog,
            unimix=config.policy_unimix,
            continuous=config.action_distribution,
        )

    def init(self, key: Array, features: Array) -> Params:
        """Parameters of both, given features `[1, F]`."""
        actor_key, critic_key = jax.random.split(key)
        return {
            "actor": self.actor.init(actor_key, features),
            "critic": self.critic.init(critic_key, features),
        }

    def policy(self, params: Params, features: Array, legal: LegalActions = None) -> ActionDistribution:
        """Distributions over actions at `features` `[..., F]`; `params` of the actor.

        What is not `legal` has probability zero, in samples, log-probabilities and entropies alike.
        """
        raw = self.actor.apply(params, features)
        parts: dict[str, Part] = {}
        for key, spec in sorted(self.act_specs.items()):
            ndim = len(spec.shape)
            if spec.kind == "discrete":
                mask = None if legal is None else legal.get(key)
                parts[key] = Categorical.from_logits(raw[key]["logits"], ndim, self.unimix, mask)
            else:
                parts[key] = CONTINUOUS[self.continuous](raw[key]["mean"], raw[key]["std"], ndim)
        return ActionDistribution(parts)

    def value(self, params: Params, features: Array) -> TwoHot | Number:
        """The return expected from `features` `[..., F]`; `params` of a critic."""
        return number(self.critic.apply(params, features), self.bins, self.symlog)


def indices(actions: Actions, act_specs: Specs) -> Actions:
    """`actions` with choices as integers, also those that `ActionDistribution.straight_through` made one-hot."""
    return {
        name: x.argmax(-1) if act_specs[name].kind == "discrete" and jnp.issubdtype(x.dtype, jnp.floating) else x
        for name, x in actions.items()
    }
