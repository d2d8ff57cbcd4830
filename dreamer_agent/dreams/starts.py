"""Where dreams begin: latents of what was observed, kept packed, `[S, ...]`."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.agent import Agent
from dreamer_agent.errors import ConfigError
from dreamer_agent.nets import Params
from dreamer_agent.replay import HostReplay
from dreamer_agent.world_model import CONTEXT, Batch, Latent, zero_actions

Array = jax.Array
Starts = dict[str, Any]  # `Latent.pack` of S latents
PICKED = 4  # starts from each window of the replay
TOGETHER = 128  # first observations that are encoded at once
PATIENCE = 100  # batches without a step to begin from


def replayed_starts(agent: Agent, params: Params, replay: HostReplay, key: Array, count: int) -> Starts:
    """Posterior latents of about `count` steps drawn from `replay`, last steps of episodes left out.

    Windows are observed with `params` from the latents that are stored before them.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    found: list[Starts] = []
    for number in range(PATIENCE + -(-count // PICKED)):
        batch, _ = replay.sample()
        latents = jax.device_get(_observed(agent, params, batch, jax.random.fold_in(key, number)))
        for row, last in enumerate(batch["is_last"][:, CONTEXT:]):
            steps = rng.permutation(np.flatnonzero(~last))[:PICKED]
            found.append({name: value[row, steps] for name, value in latents.items()})
        if sum(len(each["stoch"]) for each in found) >= count:
            return joined(found, count)
    if not any(len(each["stoch"]) for each in found):
        raise ConfigError("The replay holds no step to begin a dream from: let dreams start from resets.")
    return joined(found, count)


def first_starts(agent: Agent, params: Params, obs: dict[str, np.ndarray], key: Array) -> Starts:
    """Latents after the first observations `[S, ...]` of episodes, by name as encoded."""
    total = len(next(iter(obs.values())))
    found = []
    for begin in range(0, total, TOGETHER):
        some = {name: value[begin : begin + TOGETHER] for name, value in obs.items()}
        own = jax.random.fold_in(key, begin)
        found.append(jax.device_get(_first(agent, params, some, own)))
    return joined(found, total)


def joined(parts: list[Starts], count: int) -> Starts:
    """The first `count` of all."""
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


@partial(jax.jit, static_argnums=0)
def _observed(agent: Agent, params: Params, batch: Batch, key: Array) -> Starts:
    """Packed posterior latents `[B, T, ...]` of a batch `[B, C + T, ...]`."""
    return agent.model.observe(params, batch, key)[0].pack()


@partial(jax.jit, static_argnums=0)
def _first(agent: Agent, params: Params, obs: dict[str, Array], key: Array) -> Starts:
    model, rows = agent.model, len(next(iter(obs.values())))
    blank: Latent = model.rssm.initial(rows)
    actions = zero_actions(model.act_specs, (rows,))
    return model.observe_step(params, key, blank, actions, obs, jnp.ones(rows, bool)).pack()
