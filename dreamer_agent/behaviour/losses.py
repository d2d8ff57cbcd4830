"""What actor and critic learn from: imagined returns, and the replay value loss (V3, eqs. 6 to 12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dreamer_agent import ops
from dreamer_agent.behaviour.policy import ActionDistribution, ActorCritic, indices
from dreamer_agent.behaviour.rules import V3, Objective, Rules, reinforce
from dreamer_agent.distributions import Number, TwoHot
from dreamer_agent.nets import Params
from dreamer_agent.world_model import Batch, Latent, Losses, Trajectory, WorldModel, with_taken

Array = jax.Array
stop = jax.lax.stop_gradient


Reward = Callable[[Array], Array]  # of features [N, F]: what is received on arriving there, [N]


class Imagined(NamedTuple):
    """What the heads say along imagined trajectories, `[H, N]` each; nothing here carries a gradient."""

    returns: Array
    values: Array
    weights: Array


def evaluate_trajectory(
    model: WorldModel, params: Params, trajectory: Trajectory, values: Array, last_value: Array, lambda_: Array,
    parts: int = 1, reward: Reward | None = None,
) -> Imagined:  # fmt: skip
    """Rewards and discounts along `trajectory`, and the lambda-returns that they give with the critic's `values`.

    `values` `[H, N]` belong to the features and `last_value` `[N]` to the last ones. The predicted continue holds
    the discount. A state counts as much as it is likely to be reached: w_t is the product of the continues up to
    and including t. `parts` as of `flatten_rows`; with `reward`, that is earned instead of the predicted one.
    """
    return along_trajectory(model, *stop((params, trajectory, values, last_value)), lambda_, parts, reward)


def along_trajectory(
    model: WorldModel, params: Params, trajectory: Trajectory, values: Array, last_value: Array, lambda_: Array,
    parts: int = 1, reward: Reward | None = None,
) -> Imagined:  # fmt: skip
    """`evaluate_trajectory` with every gradient there is."""
    rows = flatten_rows(trajectory.features, parts)

    def along(head: Callable[[Array], Array]) -> Array:  # [H + 1, N]
        return jnp.concatenate([unflatten_rows(head(rows), len(values), parts), head(trajectory.last)[None]])

    received = along(reward or (lambda x: model.predict_reward(params, x).mean()))
    discount = along(lambda x: model.predict_continue(params, x).prob())
    following = jnp.concatenate([values[1:], last_value[None]])
    returns = ops.lambda_return(received[1:].T, discount[1:].T, following.T, lambda_).T
    return Imagined(returns, values, jnp.cumprod(discount, 0)[:-1])


def returns_of_actions(
    model: WorldModel, nets: ActorCritic, params: Params, critic: Params, trajectory: Trajectory, lambda_: Array,
    parts: int = 1, reward: Reward | None = None,
) -> Array:  # fmt: skip
    """Lambda-returns `[H, N]` with their gradient by the actions that led there, by nothing else (V1, eq. 7)."""
    params, critic = stop((params, critic))
    values = nets.value(critic, flatten_rows(trajectory.features, parts)).mean()
    values = unflatten_rows(values, len(trajectory.features), parts)
    last_value = nets.value(critic, trajectory.last).mean()
    return along_trajectory(model, params, trajectory, values, last_value, lambda_, parts, reward).returns


def actor_loss(
    policy: ActionDistribution, imagined: Imagined, actions: dict[str, Array], scale: Array, entropy: Array,
    parts: int = 1, objective: Objective = reinforce, returns: Array | None = None,
) -> tuple[Array, dict[str, Array]]:  # fmt: skip
    """-w (log pi(a) sg((R - V) / S) + eta H(pi)), `[H, N]`: REINFORCE for every kind of action (V3, eq. 11).

    `policy` and `actions` `[H * N, ...]` belong to the flattened features; `parts` as of `flatten_rows`. With
    another `objective` its first term is another one, of `returns` `[H, N]` that have a gradient by the actions.
    """
    horizon = len(imagined.returns)
    advantage = (imagined.returns - imagined.values) / scale
    log_prob = unflatten_rows(policy.log_prob(stop(actions)), horizon, parts)
    bonus = unflatten_rows(policy.entropy(), horizon, parts)
    scaled = None if returns is None else returns / scale
    loss = -imagined.weights * (objective(log_prob, advantage, scaled) + entropy * bonus)
    metrics = {
        "behaviour/entropy": bonus.mean(),
        "behaviour/advantage": advantage.mean(),
        "behaviour/advantage_std": advantage.std(),
    }
    return loss, metrics


def critic_loss(value: TwoHot | Number, slow: TwoHot | Number, target: Array, rules: Rules = V3) -> Array:
    """Loss of `value` against `target` `[...]` plus that against the slow critic's mean (V3, eq. 8).

    Only where that is what the slow critic is for.
    """
    return value.loss(target) + value.loss(slow.mean()) if rules.drawn else value.loss(target)


def replay_value_loss(
    nets: ActorCritic, params: Params, slow_critic: Params, latents: Latent, batch: Batch,
    bootstrap: Array, gamma: Array, lambda_: Array, rules: Rules = V3,
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
    rows = flatten_rows(latents.features)
    value, slow = nets.value(params["critic"], rows), nets.value(slow_critic, stop(rows))
    targets = jnp.pad(returns, ((0, 0), (0, 1)))  # the last column's counts for nothing
    loss = critic_loss(value, slow, stop(targets).ravel(), rules).reshape(targets.shape)
    valid = (1.0 - batch["is_last"]).at[:, -1].set(0.0)
    return loss * valid * (length / (length - 1))


def behaviour_losses(
    model: WorldModel, nets: ActorCritic, params: Params, slow_critic: Params, norm: ops.PercentileRange,
    trajectory: Trajectory, hyper: dict[str, Array], normalised: bool = True, parts: int = 1, rules: Rules = V3,
    reward: Reward | None = None,
) -> tuple[Losses, Array, ops.PercentileRange, dict[str, Array]]:  # fmt: skip
    """Actor and critic losses `[N]` (mean over the horizon), R_0 `[N]`, the new return range, metrics.

    Advantages are divided by that range if `normalised`. `parts` as of `flatten_rows`. With other `rules` than
    those of V3, the slow critic may judge, and `trajectory` may have a gradient by the actor. `reward` as of
    `evaluate_trajectory`.
    """
    horizon = len(trajectory.features)
    rows, last = stop((flatten_rows(trajectory.features, parts), trajectory.last))
    taken = indices(trajectory.actions, nets.act_specs)
    actions = jax.tree.map(lambda x: flatten_rows(x, parts), taken)

    value, slow = nets.value(params["critic"], rows), nets.value(slow_critic, rows)
    judge, judged = (slow_critic, slow) if rules.slow_judges else (params["critic"], value)
    last_value = nets.value(judge, last).mean()
    values = unflatten_rows(judged.detached().mean(), horizon, parts)
    imagined = evaluate_trajectory(model, params, trajectory, values, last_value, hyper["lambda"], parts, reward)
    norm = norm.update(imagined.returns, hyper["return_rate"])

    legal = with_taken(model.imagined_legal(stop(params), rows), actions)
    policy = nets.policy(params["actor"], rows, legal)
    scale = norm.scale if normalised else jnp.ones(())
    returns = None
    if rules.differentiable:
        returns = returns_of_actions(model, nets, params, judge, trajectory, hyper["lambda"], parts, reward)
    policy_loss, metrics = actor_loss(
        policy, imagined, actions, scale, hyper["entropy"], parts, rules.objective, returns
    )
    loss = critic_loss(value, slow, flatten_rows(imagined.returns, parts), rules)
    value_loss = imagined.weights * unflatten_rows(loss, horizon, parts)
    metrics |= {
        "behaviour/return": imagined.returns.mean(),
        "behaviour/value": imagined.values.mean(),
        "behaviour/return_scale": norm.scale,
        "behaviour/weight": imagined.weights.mean(),
    }
    losses = {"policy": policy_loss.mean(0), "value": value_loss.mean(0)}
    return losses, imagined.returns[0], norm, metrics


def flatten_rows(x: Array, parts: int = 1) -> Array:
    """`[A, B, ...]` to `[A * B, ...]`.

    Heads run on plain matrices: with two leading axes, XLA's CPU backend transposes whole tensors for the
    gradients of their products (a 255-bin output on 15 x 1024 rows took three times as long, jax 0.10.2).

    Where B is divided among `parts` devices, the rows of one device follow those of another, so that each has its
    own as they lie; in any other order XLA would gather them all and every device would compute all rows.
    """
    rest = x.shape[2:]
    if parts > 1:
        x = x.reshape(len(x), parts, -1, *rest).swapaxes(0, 1)
    return x.reshape(-1, *rest)


def unflatten_rows(x: Array, length: int, parts: int = 1) -> Array:
    """The inverse of `flatten_rows`, for A = `length`."""
    rest = x.shape[1:]
    if parts > 1:
        x = x.reshape(parts, length, -1, *rest).swapaxes(0, 1)
    return x.reshape(length, -1, *rest)
