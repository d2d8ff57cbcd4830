"""What actor and critic of one generation learn by: which gradient, and what the slow critic is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from dreamer_agent.behaviour.policy import ActorCritic
from dreamer_agent.config import BehaviourConfig
from dreamer_agent.nets import Params
from dreamer_agent.specs import Specs
from dreamer_agent.world_model import Actions, WorldModel

Array = jax.Array
stop = jax.lax.stop_gradient
Objective = Callable[[Array, Array, Any], Array]  # (log pi(a), advantage, returns) [H, N] -> what to raise [H, N]


def reinforce(log_prob: Array, advantage: Array, returns: Any) -> Array:
    """log pi(a) A: the score function (V3, eq. 11; V2, eq. 6, its first term)."""
    return log_prob * advantage


def dynamics(log_prob: Array, advantage: Array, returns: Any) -> Array:
    """R, whose gradient comes through the model (V1, eq. 7)."""
    return returns


def mix(share: float, log_prob: Array, advantage: Array, returns: Any) -> Array:
    """`share` of `dynamics` and the rest of `reinforce` (V2, eq. 6)."""
    return share * returns + (1.0 - share) * log_prob * advantage


@dataclass(frozen=True)
class Rules:
    """`objective` of the actor, and whether it needs the gradient of returns by actions (`differentiable`).

    `drawn`: the critic is drawn to the slow one; `slow_judges`: the slow one makes returns and baselines.
    """

    objective: Objective = reinforce
    differentiable: bool = False
    drawn: bool = True
    slow_judges: bool = False

    @classmethod
    def of(cls, config: BehaviourConfig, act_specs: Specs) -> Rules:
        """Those of `config`; "auto" is REINFORCE where one of the actions is a choice, else the dynamics (V2)."""
        kind = config.actor_gradient
        if kind == "auto":
            discrete = any(spec.kind == "discrete" for spec in act_specs.values())
            kind = "reinforce" if discrete else "dynamics"
        objectives: dict[str, Objective] = {
            "reinforce": reinforce, "dynamics": dynamics, "mix": partial(mix, config.actor_mix)
        }  # fmt: skip
        return cls(
            objective=objectives[kind],
            differentiable=kind != "reinforce",
            drawn=config.slow_critic == "regularizer",
            slow_judges=config.slow_critic == "target",
        )


V3 = Rules()


def imagined_policy(
    model: WorldModel, nets: ActorCritic, params: Params, differentiable: bool
) -> Callable[[Array, Array], Actions]:
    """What to do in imagination: `(key, features [N, F]) -> actions`, with all parameters of an agent.

    Where it is `differentiable`, actions have a gradient by the actor's parameters, but by no features: what led
    to a state is not improved by how it is acted on there.
    """
    frozen = stop(params)
    actor = params["actor"] if differentiable else frozen["actor"]

    def policy(key: Array, features: Array) -> Actions:
        features = stop(features)
        dist = nets.policy(actor, features, model.imagined_legal(frozen, features))
        actions = dist.sample(key)
        return dist.straight_through(actions) if differentiable else actions

    return policy
