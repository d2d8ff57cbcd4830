"""HarmonyDream (Ma et al., arXiv 2310.00344): observation, reward and dynamics losses at scales that are learned.

Each loss L becomes L / sigma + log(1 + sigma), with sigma = exp(s) and a learned s that starts at zero. For a
constant L the best sigma is (L + sqrt(L^2 + 4 L)) / 2: large losses count about 1, small ones less.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from dreamer_agent.world_model.barlow import BARLOW

Array = jax.Array
HARMONY = ("observation", "reward", "dynamics")


def fresh_scales() -> dict[str, Array]:
    """s of each of `HARMONY`, at zero: sigma is 1."""
    return {name: jnp.zeros(()) for name in HARMONY}


def sigmas(learned: Mapping[str, Array]) -> dict[str, Array]:
    """sigma = exp(s) by metric."""
    return {f"harmony/{name}": jnp.exp(s) for name, s in learned.items()}


def harmonised(scales: Mapping[str, Array], learned: Mapping[str, Array]) -> dict[str, Array]:
    """`scales` of losses, over the sigma of the group that each is part of; others stay as they are.

    The losses of the observation are those that the model learns it by: reconstructions, or `BARLOW` where there
    are any. The two KLs share one sigma, and their scales are taken as shares of one.
    """
    observation = BARLOW if BARLOW[0] in scales else [name for name in scales if name.startswith("rec/")]
    over = {name: jnp.exp(learned["observation"]) for name in observation}
    over["reward"] = jnp.exp(learned["reward"])
    both = scales["dyn"] + scales["rep"]
    both = jnp.where(both > 0, both, 1.0)
    over |= dict.fromkeys(("dyn", "rep"), jnp.exp(learned["dynamics"]) * both)
    return {name: scale / over[name] if name in over else scale for name, scale in scales.items()}


def price(learned: Mapping[str, Array]) -> Array:
    """sum log(1 + sigma): what keeps every sigma from growing without end."""
    return sum(jax.nn.softplus(s) for s in learned.values())  # type: ignore[return-value]
