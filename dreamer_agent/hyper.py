"""The numbers of a configuration that enter an update as data, and the sum of losses that they weigh."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dreamer_agent.config import Config
from dreamer_agent.specs import Specs, is_mask
from dreamer_agent.world_model import BARLOW, Losses

Array = jax.Array
HYPER = (  # the numbers of a configuration that `AgentState.hyper` is made of: data, not compiled in
    "behaviour.discount_horizon", "behaviour.entropy", "behaviour.lambda_", "behaviour.return_rate",
    "behaviour.slow_critic_rate", "loss.barlow", "loss.cont", "loss.dynamics", "loss.free_nats",
    "loss.policy", "loss.reconstruction", "loss.redundancy", "loss.replay_value", "loss.representation",
    "loss.reward", "loss.value", "optimizer.average", "optimizer.learning_rate", "optimizer.warmup",
)  # fmt: skip


def weighted_sum(losses: Losses, scales: dict[str, Array]) -> Array:
    """The scalar to minimise. The names of losses and scales must be the same."""
    if set(losses) != set(scales):
        raise ValueError(
            f"Every loss needs a scale: without one are {sorted(set(losses) - set(scales))}, "
            f"without a loss {sorted(set(scales) - set(losses))}."
        )
    shapes = {key: value.shape for key, value in losses.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"Every loss should have the shape [B, T]; got {shapes}.")
    return sum(losses[key].mean() * scales[key] for key in losses)  # type: ignore[return-value]


def hyper_parameters(config: Config, obs_specs: Specs) -> dict[str, Any]:
    """The shape-free numbers of `config` as float32 scalars; they enter `update` as data."""
    loss, behaviour, optimizer = config.loss, config.behaviour, config.optimizer
    shown = [key for key in obs_specs if config.model.probe or is_mask(key)]
    scales = {f"rec/{key}": loss.reconstruction for key in shown}
    if config.model.decoder_free:
        scales |= dict(zip(BARLOW, (loss.barlow, loss.barlow * loss.redundancy), strict=True))
    scales["reward"] = loss.reward
    if config.model.continue_head:
        scales["continue"] = loss.cont
    scales |= {"dyn": loss.dynamics, "rep": loss.representation}
    scales |= {"policy": loss.policy, "value": loss.value}
    if behaviour.replay_value_loss:
        scales["repval"] = loss.replay_value
    if config.model.ensemble:
        scales["ensemble"] = 1.0
    if behaviour.explore_steps:
        scales |= {"explorer_policy": loss.policy, "explorer_value": loss.value}
    numbers = {
        "average": optimizer.average,
        "learning_rate": optimizer.learning_rate,
        "warmup": optimizer.warmup,
        "entropy": behaviour.entropy,
        "lambda": behaviour.lambda_,
        "discount_horizon": behaviour.discount_horizon,
        "slow_critic_rate": behaviour.slow_critic_rate,
        "return_rate": behaviour.return_rate,
        "free_nats": loss.free_nats,
        "scales": scales,
    }
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), numbers)
