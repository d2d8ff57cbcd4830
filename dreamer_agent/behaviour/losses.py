"""What actor and critic learn from: imagined returns, and the replay value loss (V3, eqs. 6 to 12)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dreamer_agent import ops
from dreamer_agent.behaviour.policy import ActorCritic
from dreamer_agent.nets import Params
from dreamer_agent.world_model import Batch, Latent, LegalActions, Losses, Trajectory, WorldModel, with_taken

Array = jax.Array
stop = jax.lax.stop_gradient


class Imagined(NamedTuple):
    """An imagined trajectory seen by the heads; nothing here carries a gradient.

    `features` `[N, H + 1, F]`, `returns` `[N, H]`, `values` `[N, H]`, `weights` `[N, H]`.
    """

    features: Array
    returns: Array
    values: Array
    weights: Array


def evaluate_trajectory(
    model: WorldModel, nets: ActorCritic, params: Params, trajectory: Trajectory, lambda_: Array
) -> Imagined:
    """Rewards, discounts and values along `trajectory`, and the lambda-returns they give.

    The predicted continue holds the discount. A state counts as much as it is likely to be reached:
    w_t is the product of the continues up to and including t.
    """
    params, features = stop((params, trajectory.latents.features))
    reward = model.predict_reward(params, features).mean()
    discount = model.predict_continue(params, features).prob()
    value = nets.value(params["critic"], features).mean()
    returns = ops.lambda_return(reward[:, 1:], discount[:, 1:], value[:, 1:], lambda_)
    weights = jnp.cumprod(discount, 1)[:, :-1]
    return Imagined(features, returns, value[:, :-1], weights)


def actor_loss(
    nets: ActorCritic, params: Params, imagined: Imagined, actions: dict[str, Array], scale: Array,
    entropy: Array, legal: LegalActions = None,
) -> tuple[Array, dict[str, Array]]:  # fmt: skip
    """-w (log pi(a) sg((R - V) / S) + eta H(pi)), `[N, H]`: REINFORCE for every kind of action (V3, eq. 11).

    `legal` are the actions that the policy could choose from when it chose `actions`.
    """
    policy = nets.policy(params["actor"], imagined.features[:, :-1], legal)
    advantage = (imagined.returns - imagined.values) / scale
    bonus = policy.entropy()
    loss = -imagined.weights * (policy.log_prob(stop(actions)) * advantage + entropy * bonus)
    metrics = {
        "behaviour/entropy": bonus.mean(),
        "behaviour/advantage": advantage.mean(),
        "behaviour/advantage_std": advantage.std(),
    }
    return loss, metrics


def critic_loss(nets: ActorCritic, params: Params, slow_critic: Params, features: Array, target: Array) -> Array:
    """Cross-entropy to `target` `[...]` plus cross-entropy to the slow critic's mean (V3, eq. 8)."""
    value = nets.value(params["critic"], features)
    slow_mean = nets.value(slow_critic, stop(features)).mean()
    return value.loss(target) + value.loss(slow_mean)


def replay_value_loss(
    nets: ActorCritic, params: Params, slow_critic: Params, latents: Latent, batch: Batch,
    bootstrap: Array, gamma: Array, lambda_: Array,
) -> Array:  # fmt: skip
    """The critic on replayed rewards, bootstrapped by imagined returns of the same states; `[B, T]`.

    `bootstrap` `[B, T]` holds the imagined R_0 of every state. An episode that is cut (`is_last`)
    bootstraps there, one that ends (`is_terminal`) has no value left. The last step of an episode has no
    successor in the sequence and the last column none in the batch: the former is masked, the latter is zero
    and the rest carries T / (T - 1), so that the mean over `[B, T]` is that of the T - 1 valid columns.
    The gradient flows through the latents into the world model.
    """
    length = batch["reward"].shape[1]
    live = (1.0 - batch["is_terminal"][:, 1:]) * gamma
    going_on = (1.0 - batch["is_last"][:, 1:]) * lambda_
    returns = ops.lambda_return(batch["reward"][:, 1:], live, bootstrap[:, 1:], going_on)
    loss = critic_loss(nets, params, slow_critic, latents.features[:, :-1], stop(returns))
    loss = loss * (1.0 - batch["is_last"][:, :-1]) * (length / (length - 1))
    return jnp.pad(loss, ((0, 0), (0, 1)))


def behaviour_losses(
    model: WorldModel, nets: ActorCritic, params: Params, slow_critic: Params, norm: ops.PercentileRange,
    trajectory: Trajectory, hyper: dict[str, Array],
) -> tuple[Losses, Array, ops.PercentileRange, dict[str, Array]]:  # fmt: skip
    """Actor and critic losses `[N]` (mean over the horizon), R_0 `[N]`, the new return range, metrics."""
    imagined = evaluate_trajectory(model, nets, params, trajectory, hyper["lambda"])
    norm = norm.update(imagined.returns, hyper["return_rate"])
    legal = with_taken(model.imagined_legal(stop(params), imagined.features[:, :-1]), trajectory.actions)
    policy, metrics = actor_loss(nets, params, imagined, trajectory.actions, norm.scale, hyper["entropy"], legal)
    value = imagined.weights * critic_loss(nets, params, slow_critic, imagined.features[:, :-1], imagined.returns)
    metrics |= {
        "behaviour/return": imagined.returns.mean(),
        "behaviour/value": imagined.values.mean(),
        "behaviour/return_scale": norm.scale,
        "behaviour/weight": imagined.weights.mean(),
    }
    losses = {"policy": policy.mean(1), "value": value.mean(1)}
    return losses, imagined.returns[:, 0], norm, metrics
