"""Planners that draw sequences of actions, score them under a model, and draw again near the better ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import jax
import jax.numpy as jnp

from dreamer_agent.nets import Params
from dreamer_agent.planning.model import Model, Score, State, follow, repeated
from dreamer_agent.planning.proposal import Proposal
from dreamer_agent.world_model import Actions

Array = jax.Array


class Planner(Protocol):
    """Plans for B environments at once; pure, so that it can be jitted with `model` held fixed.

    `begin` gives the plan before the first step, `plan` the actions to take now and the plan to go on from at the
    next step (model-predictive control with a warm start).
    """

    def begin(self, model: Model, batch: int) -> Proposal:
        """Before anything was planned."""

    def plan(
        self, model: Model, params: Params, key: Array, state: State, plan: Proposal
    ) -> tuple[Actions, Proposal]:
        """Actions `[B, ...]` in `state` `[B, ...]`."""


@dataclass(frozen=True)
class RandomShooting:
    """The best of `samples` sequences drawn at random, without memory."""

    samples: int = 128
    horizon: int = 30
    score: Score = field(default_factory=Score)

    def begin(self, model: Model, batch: int) -> Proposal:
        """Uniform over classes, nearly so over [-1, 1]."""
        return Proposal.wide(model.specs, batch, self.horizon, 1.0)

    def plan(
        self, model: Model, params: Params, key: Array, state: State, plan: Proposal
    ) -> tuple[Actions, Proposal]:
        """See `Planner`."""
        draw_key, score_key = jax.random.split(key)
        actions = plan.sample(draw_key, self.samples)
        best = scores(self.score, model, params, score_key, state, actions).argmax(-1)
        return jax.tree.map(lambda x: _picked(x, best)[:, 0], actions), plan


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

    def begin(self, model: Model, batch: int) -> Proposal:
        """Around zero with `std`."""
        return Proposal.wide(model.specs, batch, self.horizon, self.std)

    def weights(self, scores: Array) -> Array:
        """Equal for the elites, zero for all others; `[B, n]`."""
        _, best = jax.lax.top_k(scores, self.elites)
        return jax.nn.one_hot(best, scores.shape[-1]).sum(-2) / self.elites

    def plan(
        self, model: Model, params: Params, key: Array, state: State, plan: Proposal
    ) -> tuple[Actions, Proposal]:
        """See `Planner`."""
        guide_key, key = jax.random.split(key)
        batch, drawn = len(jax.tree.leaves(state)[0]), self.samples - self.guided
        guides = _guides(model, params, guide_key, state, self.guided, self.horizon)

        def iterate(plan: Proposal, key: Array) -> tuple[Proposal, None]:
            draw_key, score_key = jax.random.split(key)
            actions = plan.sample(draw_key, drawn)
            if guides is not None:
                actions = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), actions, guides)
            found = scores(self.score, model, params, score_key, state, actions)
            return plan.fitted(actions, self.weights(found), self.momentum, self.least), None

        plan, _ = jax.lax.scan(iterate, plan, jax.random.split(key, self.iterations))
        return plan.first(), plan.later(self.begin(model, batch))


@dataclass(frozen=True)
class MPPI(CEM):
    """Model-predictive path integral control (Williams et al. 2017; with guides and a value at the end as TD-MPC,
    arXiv 2203.04955): as CEM, with elites weighted by exp((score - best) / `temperature`), in standard deviations
    of the elites' scores.
    """

    elites: int = 16
    temperature: float = 0.5

    def weights(self, scores: Array) -> Array:
        """Of the elites by their scores, zero for all others; `[B, n]`."""
        best, place = jax.lax.top_k(scores, self.elites)
        scale = self.temperature * (best.std(-1, keepdims=True) + 1e-6)
        share = jax.nn.softmax((best - best[:, :1]) / scale, -1)
        return (jax.nn.one_hot(place, scores.shape[-1]) * share[..., None]).sum(-2)


def scores(
    score: Score, model: Model, params: Params, key: Array, state: State, actions: Actions
) -> Array:  # [B, n]
    """Of `actions` `[B, n, H, ...]` from `state` `[B, ...]`; what is not a number counts as worst."""
    batch, count = jax.tree.leaves(actions)[0].shape[:2]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), actions)
    found = score(model, params, key, repeated(state, count), flat).reshape(batch, count)
    return jnp.where(jnp.isfinite(found), found, -jnp.inf)


def _guides(model: Model, params: Params, key: Array, state: State, count: int, horizon: int) -> Actions | None:
    """`count` sequences of the policy, `[B, count, H, ...]`."""
    if not count:
        return None
    actions = follow(model, params, key, repeated(state, count), horizon)
    for name, spec in model.specs.items():
        if spec.kind != "discrete":
            actions[name] = jnp.clip(actions[name], -1.0, 1.0)
    return jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]), actions)


def _picked(x: Array, index: Array) -> Array:
    """`x[b, index[b]]` for every b."""
    return jax.vmap(lambda row, i: row[i])(x, index)
