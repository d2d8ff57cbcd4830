"""Rollouts inside the world model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from dreamer_agent.nets import Params
from dreamer_agent.world_model.latent import Actions, Latent, encode_actions
from dreamer_agent.world_model.model import WorldModel

Array = jax.Array
Policy = Callable[[Array, Array], Actions]  # (key, features [N, F]) -> actions [N, ...]


class Trajectory(NamedTuple):
    """H imagined steps of N rollouts, time first, as the scan writes them: nothing is copied into another order.

    `features` `[H, N, F]` are what the policy saw, the start first, and `actions` `[H, N, ...]` what it did
    there; `last` `[N, F]` is where that led.
    """

    features: Array
    actions: Actions
    last: Array


def imagine(
    model: WorldModel, params: Params, policy: Policy, start: Latent, key: Array, horizon: int
) -> Trajectory:
    """Roll `policy(key, features) -> actions` out for `horizon` steps from `start` `[N, ...]`."""

    def step(latent: Latent, step_key: Array) -> tuple[Latent, tuple[Array, Actions]]:
        action_key, latent_key = jax.random.split(step_key)
        features = latent.features
        action = policy(action_key, features)
        return imagine_step(model, params, latent_key, latent, action), (features, action)

    last, (features, actions) = jax.lax.scan(step, start, jax.random.split(key, horizon))
    return Trajectory(features, actions, last.features)


def imagine_actions(model: WorldModel, params: Params, start: Latent, actions: Actions, key: Array) -> Latent:
    """The latents `[N, H, ...]` that follow `start` `[N, ...]` under given `actions` `[N, H, ...]`."""

    def step(latent: Latent, inputs: tuple[Array, Actions]) -> tuple[Latent, Latent]:
        step_key, action = inputs
        new = imagine_step(model, params, step_key, latent, action)
        return new, new

    over_time = jax.tree.map(lambda x: x.swapaxes(0, 1), actions)
    length = jax.tree.leaves(over_time)[0].shape[0]
    _, latents = jax.lax.scan(step, start, (jax.random.split(key, length), over_time))
    return jax.tree.map(lambda x: x.swapaxes(0, 1), latents)


def imagine_step(
    model: WorldModel, params: Params, key: Array, latent: Latent, action: Actions, temperature: float = 1.0
) -> Latent:
    """One imagined step under a dict of actions; `temperature` as of `RSSM.imagine_step`."""
    encoded = encode_actions(model.act_specs, action, model.dtype)
    return model.rssm.imagine_step(params["rssm"], key, latent, encoded, temperature)
