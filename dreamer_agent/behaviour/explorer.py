"""Plan2Explore: a second actor and critic that learn, in imagination, to go where the model is in doubt.

Sekar et al., arXiv 2005.05960. The task's actor and critic learn beside it as ever, from the same model.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dreamer_agent.behaviour.losses import behaviour_losses
from dreamer_agent.behaviour.policy import ActorCritic
from dreamer_agent.behaviour.rules import Rules, imagined_policy
from dreamer_agent.config import BehaviourConfig
from dreamer_agent.nets import Params
from dreamer_agent.ops import PercentileRange
from dreamer_agent.world_model import Latent, Losses, WorldModel, imagine

Array = jax.Array
NETS = {"actor": "explorer_actor", "critic": "explorer_critic"}  # what the parameters of its own are called
LEAST = 1e-3  # nats of mean doubt that count as one: what is less is near the rounding of entropies


class ExplorerState(NamedTuple):
    """What changes with updates beside the parameters: as of the task, and the mean `level` of doubt (nats)."""

    slow_critic: Params
    norm: PercentileRange
    level: Array

    @classmethod
    def begin(cls, params: Params) -> ExplorerState:
        """Before the first update."""
        slow = jax.tree.map(jnp.copy, params[NETS["critic"]])
        return cls(slow, PercentileRange.zeros(), jnp.zeros((), jnp.float32))

    def following(self, params: Params, rate: Array) -> ExplorerState:
        """With its slow critic by `rate` nearer to the critic in all `params`."""
        slow = optax.incremental_update(params[NETS["critic"]], self.slow_critic, rate)
        return self._replace(slow_critic=slow)


def init_explorer(nets: ActorCritic, key: Array, features: Array) -> Params:
    """Parameters of both networks, given features `[1, F]`."""
    fresh = nets.init(key, features)
    return {own: fresh[name] for name, own in NETS.items()}


def as_explorer(params: Params) -> Params:
    """`params` with the explorer's actor and critic in the place of the task's, as far as they are there."""
    return params | {name: params[own] for name, own in NETS.items() if own in params}


def explorer_losses(
    model: WorldModel, nets: ActorCritic, params: Params, state: ExplorerState, starts: Latent, key: Array,
    hyper: dict[str, Array], config: BehaviourConfig, parts: int, rules: Rules,
) -> tuple[Losses, ExplorerState, dict[str, Array]]:  # fmt: skip
    """Losses `[N]` by name, the new state but for its slow critic, and metrics, from `starts` `[N, ...]`.

    The reward of a state is its doubt in units of the mean over replayed states, which both fall while the model
    learns, and `explore_reward` times the predicted reward.
    """
    params = as_explorer(params)
    frozen = jax.lax.stop_gradient(params)
    doubt = model.doubt(frozen, starts.features).mean()
    level = jnp.where(state.level > 0, state.level + hyper["return_rate"] * (doubt - state.level), doubt)

    def reward(features: Array) -> Array:
        new = model.doubt(frozen, features) / jnp.maximum(level, LEAST)
        share = config.explore_reward
        return new + share * model.predict_reward(frozen, features).mean() if share else new

    policy = imagined_policy(model, nets, params, rules.differentiable)
    trajectory = imagine(model, frozen, policy, starts, key, config.imagination_horizon)
    losses, _, norm, metrics = behaviour_losses(
        model, nets, params, state.slow_critic, state.norm, trajectory, hyper, config.return_norm, parts, rules,
        reward,
    )  # fmt: skip
    metrics = {name.replace("behaviour/", "explorer/"): value for name, value in metrics.items()}
    return (
        {f"explorer_{name}": value for name, value in losses.items()},
        state._replace(norm=norm, level=level),
        metrics | {"explorer/doubt": doubt},
    )
