"""An ensemble of priors: where they disagree, the model does not know yet what follows.

Sekar et al., "Planning to Explore via Self-Supervised World Models" (arXiv 2005.05960), use the variance of what
an ensemble of networks predicts in place of the expected gain of information, I(z; member | h). For each of the
categoricals of z that gain is at hand: the entropy of the members' mixture less their mean entropy
(Jensen-Shannon). Doubt is its sum over the categoricals, each taken alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamer_agent.distributions import Categorical, Normal
from dreamer_agent.nets import Net, Params, from_linen
from dreamer_agent.world_model.rssm import RSSM, LatentHead

Array = jax.Array
Members = Categorical | Normal  # with a leading axis of M


@dataclass(frozen=True)
class Ensemble:
    """M priors `h [N, D] -> z`, each from a beginning of its own. They learn from the posteriors as the prior
    does, but give the model no gradient.
    """

    net: Net
    rssm: RSSM

    @classmethod
    def create(cls, rssm: RSSM, members: int) -> Ensemble:
        """`members` like the prior of `rssm`."""
        each = nn.vmap(
            LatentHead, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=members
        )
        return cls(from_linen(each(**rssm.head)), rssm)

    def init(self, key: Array) -> Params:
        """Parameters `[M, ...]`."""
        return self.net.init(key, self.rssm.initial(1).deter)

    def predict(self, params: Params, deter: Array) -> Members:
        """What each member expects of z at h `[N, D]`: distributions `[M, N]`."""
        return self.rssm.distribution(self.net.apply(params, deter))

    def loss(self, params: Params, deter: Array, logits: Array) -> Array:
        """KL of the posterior with these `logits` `[N, S, K]` and each member, its mean over members `[N]`."""
        stop = jax.lax.stop_gradient
        posterior = self.rssm.distribution(stop(logits))
        return posterior.kl(self.predict(params, stop(deter))).mean(0)

    def disagreement(self, params: Params, features: Array) -> Array:
        """How much the members disagree about z, in nats, at features `[N, F]`: `[N]`."""
        return gain(self.predict(params, features[..., : self.rssm.config.deter]))


def gain(members: Members) -> Array:
    """The sum of I(part of z; member) over the parts, in nats, for distributions `[M, ...]`: `[...]`.

    At most ln M for each part; what all of them tell together is no more than the sum. Of normals, whose mixture
    has no closed entropy, that of the normal with its mean and variance is taken: more than the mixture's, equal
    where they agree.
    """
    if isinstance(members, Categorical):
        log_probs = jax.nn.logsumexp(members.log_probs, 0) - jnp.log(len(members.log_probs))
        mixture: Members = Categorical(log_probs, members.event_ndim)
    else:
        variance = (members.std**2).mean(0) + members.loc.var(0)
        mixture = Normal(members.loc.mean(0), jnp.sqrt(variance), members.event_ndim)
    return jnp.maximum(mixture.entropy() - members.entropy().mean(0), 0.0)  # rounding may be below
