"""Planners that draw sequences of actions, score them under a model, and draw again near the better ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from dreamer_agent.errors import ConfigError
from dreamer_agent.nets import Params
from dreamer_agent.planning.model import Model, Score, State, at_least, follow, picked, repeated
from dreamer_agent.planning.proposal import Proposal, uniform
from dreamer_agent.world_model import Actions, LegalActions

Array = jax.Array


class Planner(Protocol):
    """Plans for B environments at once; pure, so that it can be jitted with `model` held fixed.

    `begin` gives the plan before the first step, `plan` the actions to take now and the plan to go on from at the
    next step (model-predictive control with a warm start). Settings that make no sense raise `ConfigError`.
    """

    def begin(self, model: Model, batch: int) -> Any:
        """Before anything was planned."""

    def plan(
        self, model: Model, params: Params, key: Array, state: State, plan: Any, legal: LegalActions = None
    ) -> tuple[Actions, Any]:
        """Actions `[B, ...]` in `state` `[B, ...]`, of discrete ones only those that are `legal`."""


@dataclass(frozen=True)
class RandomShooting:
    """The best of `samples` sequences drawn at random, without memory."""

    samples: int = 128
    horizon: int = 30
    score: Score = field(default_factory=Score)

    def __post_init__(self) -> None:
        at_least(self, samples=1, horizon=1)

    def begin(self, model: Model, batch: int) -> tuple[()]:
        """Nothing is kept between steps."""
        return ()

    def plan(
        self, model: Model, params: Params, key: Array, state: State, plan: Any, legal: LegalActions = None
    ) -> tuple[Actions, Any]:
        """See `Planner`."""
        draw_key, score_key = jax.random.split(key)
        batch = len(jax.tree.leaves(state)[0])
        actions = uniform(model.specs, draw_key, batch, self.samples, self.horizon, legal)
        best = scores(self.score, model, params, score_key, state, actions).argmax(-1)
        return jax.tree.map(lambda x: x[:, 0], picked(actions, best)), plan


@dataclass(frozen=True)
class CEM:
    """The cross-entropy method (Rubinstein 1999; with momentum and a warm start as iCEM, arXiv 2008.06389).

    In each of `iterations` a proposal is fitted to the `elites` best of `samples` sequences. `guided` of these
    are sampled by the model's policy. The action is the mean of the last fit.
    """

    samples: int = 64
    iterations: int = 4
    elites: int = 8
    horizon: int = 30
    guided: int = 0
    std: float = 1.0
    least: float = 0.05
    momentum: float = 0.1
    score: Score = field(default_factory=Score)

    def __post_init__(self) -> None:
        at_least(self, samples=1, iterations=1, elites=1, horizon=1, guided=0)
        for name in ("elites", "guided"):
            given = getattr(self, name)
            if given > self.samples:
                raise ConfigError(
                    f"{type(self).__name__}({name}={given}) was asked for with samples={self.samples}: give no "
                    "more than there are samples."
                )

    def begin(self, model: Model, batch: int) -> Proposal:
        """Around zero with `std`."""
        return Proposal.wide(model.specs, batch, self.horizon, self.std)

    def weights(self, scores: Array) -> Array:
        """Equal for the elites, zero for all others and for what is not finite; `[B, n]`."""
        best, place = jax.lax.top_k(scores, self.elites)
        share = jnp.isfinite(best) / jnp.maximum(jnp.isfinite(best).sum(-1, keepdims=True), 1)
        return (jax.nn.one_hot(place, scores.shape[-1]) * share[..., None]).sum(-2)

    def plan(
        self, model: Model, params: Params, key: Array, state: State, plan: Proposal, legal: LegalActions = None
    ) -> tuple[Actions, Proposal]:
        """See `Planner`."""
        guide_key, key = jax.random.split(key)
        batch, drawn = len(jax.tree.leaves(state)[0]), self.samples - self.guided
        guides = _guides(model, params, guide_key, state, self.guided, self.horizon)

        def iterate(plan: Proposal, key: Array) -> tuple[Proposal, None]:
            draw_key, score_key = jax.random.split(key)
            actions = plan.sample(draw_key, drawn, legal)
            if guides is not None:
                actions = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), actions, guides)
            found = scores(self.score, model, params, score_key, state, actions)
            return plan.fitted(actions, self.weights(found), self.momentum, self.least), None

        plan, _ = jax.lax.scan(iterate, plan, jax.random.split(key, self.iterations))
        return plan.first(legal), plan.later(self.begin(model, batch))


@dataclass(frozen=True)
class MPPI(CEM):
    """Model-predictive path integral control (Williams et al. 2017; with guides and a value at the end as TD-MPC,
    arXiv 2203.04955): as CEM, with elites weighted by exp((score - best) / `temperature`), in standard deviations
    of the elites' scores.
    """

    elites: int = 16
    temperature: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, temperature=1e-3)

    def weights(self, scores: Array) -> Array:
        """Of the elites by their scores, zero for all others and for what is not finite; `[B, n]`."""
        best, place = jax.lax.top_k(scores, self.elites)
        finite = jnp.isfinite(best)
        gap = jnp.where(finite, best - best[:, :1], 0.0)  # to the best, at most 0
        scale = self.temperature * (gap.std(-1, keepdims=True, where=finite | ~finite[:, :1]) + 1e-6)
        share = jnp.where(finite, jnp.exp(gap / scale), 0.0)
        share = share / jnp.maximum(share.sum(-1, keepdims=True), 1e-6)
        return (jax.nn.one_hot(place, scores.shape[-1]) * share[..., None]).sum(-2)


def scores(
    score: Score, model: Model, params: Params, key: Array, state: State, actions: Actions
) -> Array:  # [B, n]
    """Of `actions` `[B, n, H, ...]` from `state` `[B, ...]`; what is not a number counts as worst.

    A random model draws the same numbers for all sequences of a row, so that none is better by luck alone.
    """
    found = jax.vmap(lambda each: score(model, params, key, state, each), 1, 1)(actions)
    return jnp.where(jnp.isfinite(found), found, -jnp.inf)


def _guides(model: Model, params: Params, key: Array, state: State, count: int, horizon: int) -> Actions | None:
    """`count` sequences of the policy, `[B, count, H, ...]`."""
    if not count:
        return None
    actions = follow(model, params, key, repeated(state, count), horizon)
    return jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]), actions)
