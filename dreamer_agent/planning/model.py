"""What every planner works on: one step of a model, and the score of whole action sequences under it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dreamer_agent import ops
from dreamer_agent.behaviour import ActionDistribution
from dreamer_agent.errors import ConfigError
from dreamer_agent.nets import Params
from dreamer_agent.specs import Specs
from dreamer_agent.world_model import Actions

Array = jax.Array
State = Any  # a pytree of arrays [N, ...]: a latent, or the state of an exact model
RewardFn = Callable[[State, Actions, State], Array]  # state, actions, the next state: rewards [N]


class Outcome(NamedTuple):
    """What a step leads to, `[N]` each: the reward received on arriving, gamma times the probability that the
    episode goes on, and the return expected from there.
    """

    reward: Array
    discount: Array
    value: Array


@dataclass(frozen=True)
class Model:
    """Pure functions over states `[N, ...]`.

    `step(params, key, actions, state)` gives `(Outcome, next state)`: mctx's `recurrent_fn`, but for the policy.
    `policy(params, state, legal)` are the actions that a trained policy would take, which planners may start
    from; `legal`, where it is given, tells which are allowed. `value(params, state)` is the return that it would
    have, `[N]`. `doubt(params, state)` `[N]`, where there is one, says how little to trust the model there.
    """

    specs: Specs
    step: Callable[[Params, Array, Actions, State], tuple[Outcome, State]]
    policy: Callable[..., ActionDistribution]
    value: Callable[[Params, State], Array]
    doubt: Callable[[Params, State], Array] | None = None

    def rewarded(self, reward: RewardFn) -> Model:
        """This model with other rewards, and without values, which belong to the old ones.

        The policy stays: guides of CEM and MPPI, and the prior of a tree search, still go after the old rewards.
        Doubt is to be taken off afterwards (`model.rewarded(...).doubted(...)`).
        """

        def step(params: Params, key: Array, actions: Actions, state: State) -> tuple[Outcome, State]:
            outcome, new = self.step(params, key, actions, state)
            swapped = reward(state, actions, new).astype(jnp.float32)
            return Outcome(swapped, outcome.discount, jnp.zeros_like(swapped)), new

        return dataclasses.replace(self, step=step, value=lambda params, state: jnp.zeros(_rows(state)))

    def doubted(self, penalty: float) -> Model:
        """This model with `penalty` times its doubt of the next state taken off every reward."""
        if self.doubt is None:
            raise ConfigError(
                "There is no measure of doubt in this model: train one with model.ensemble=8, or give a model of "
                "yours a doubt, Model(..., doubt=...)."
            )
        doubt = self.doubt

        def step(params: Params, key: Array, actions: Actions, state: State) -> tuple[Outcome, State]:
            outcome, new = self.step(params, key, actions, state)
            return outcome._replace(reward=outcome.reward - penalty * doubt(params, new)), new

        return dataclasses.replace(self, step=step)


@dataclass(frozen=True)
class Score:
    """How good a sequence of actions is: its lambda-return (V3, eq. 7).

    With `lambda_` = 1 the discounted sum of rewards and, if `terminal`, the value where it ends; with less, the
    values on the way count as well (Dyna-MPC, arXiv 2209.12016). Each sequence is followed once.
    """

    lambda_: float = 1.0
    terminal: bool = True

    def __call__(self, model: Model, params: Params, key: Array, state: State, actions: Actions) -> Array:
        """Of actions `[N, H, ...]` from `state` `[N, ...]`: `[N]`."""
        over_time = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), actions)
        length = len(jax.tree.leaves(over_time)[0])

        def step(state: State, given: tuple[Array, Actions]) -> tuple[State, Outcome]:
            outcome, state = model.step(params, given[0], given[1], state)
            return state, outcome

        _, (reward, discount, value) = jax.lax.scan(step, state, (jax.random.split(key, length), over_time))
        if not self.terminal:
            value = value.at[-1].set(0.0)
        return ops.lambda_return(reward.T.astype(jnp.float32), discount.T, value.T, self.lambda_)[:, 0]


def follow(model: Model, params: Params, key: Array, state: State, horizon: int) -> Actions:
    """The actions `[N, H, ...]` that the policy samples along its own way from `state` `[N, ...]`."""

    def step(state: State, key: Array) -> tuple[State, Actions]:
        action_key, step_key = jax.random.split(key)
        actions = in_range(model.specs, model.policy(params, state).sample(action_key))
        return model.step(params, step_key, actions, state)[1], actions

    _, actions = jax.lax.scan(step, state, jax.random.split(key, horizon))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), actions)


def in_range(specs: Specs, actions: Actions) -> Actions:
    """Continuous actions cut off at -1 and 1, as environments do."""
    return {name: x if specs[name].kind == "discrete" else jnp.clip(x, -1.0, 1.0) for name, x in actions.items()}


def explored(specs: Specs, key: Array, actions: Actions, policy: ActionDistribution, noise: Array) -> Actions:
    """`actions` `[N, ...]` of a planner, varied to learn from: continuous ones with normal noise of the standard
    deviation `noise` (PlaNet, arXiv 1811.04551, has 0.3), of discrete ones that share sampled by the policy.
    """
    policy_key, key = jax.random.split(key)
    sampled, varied = policy.sample(policy_key), {}
    for own, (name, action) in zip(jax.random.split(key, len(actions)), sorted(actions.items()), strict=True):
        if specs[name].kind == "discrete":
            varied[name] = jnp.where(jax.random.uniform(own, action.shape) < noise, sampled[name], action)
        else:
            varied[name] = action + noise * jax.random.normal(own, action.shape)
    return in_range(specs, varied)


def restarted(plan: Any, begun: Any, is_first: Array) -> Any:
    """`plan` `[N, ...]`, but as it was `begun` where an episode starts, `is_first` `[N]`."""
    return jax.tree.map(lambda a, b: jnp.where(is_first.reshape(-1, *(1,) * (a.ndim - 1)), b, a), plan, begun)


def at_least(planner: Any, **least: float) -> None:
    """Raise `ConfigError` where a setting of `planner` is below its least."""
    for name, number in least.items():
        given = getattr(planner, name)
        if not given >= number:
            raise ConfigError(f"{type(planner).__name__}({name}={given}) was asked for: give at least {number}.")


def repeated(state: State, count: int) -> State:
    """Every row `count` times, `[N * count, ...]`."""
    return jax.tree.map(lambda x: jnp.repeat(x, count, 0), state)


def picked(tree: Any, index: Array) -> Any:
    """Of arrays `[N, K, ...]`, in each row that at `index` `[N]`: `[N, ...]`."""
    return jax.tree.map(lambda x: jax.vmap(lambda row, i: row[i])(x, index), tree)


def _rows(state: State) -> int:
    return len(jax.tree.leaves(state)[0])
