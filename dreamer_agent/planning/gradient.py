"""Planning by gradients of the score through the model."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import optax

from dreamer_agent.errors import ConfigError
from dreamer_agent.nets import Params
from dreamer_agent.planning.model import Model, Score, State, at_least, picked
from dreamer_agent.planning.proposal import Proposal
from dreamer_agent.planning.sampling import scores
from dreamer_agent.world_model import Actions, LegalActions

Array = jax.Array


@dataclass(frozen=True)
class GradientPlanner:
    """Adam on `candidates` sequences of continuous actions, of which the best is taken (arXiv 2312.17227).

    One candidate begins as the plan of the step before, the others are drawn around it; that plan as it was can
    be chosen, too.
    """

    candidates: int = 16
    iterations: int = 20
    horizon: int = 30
    rate: float = 0.1
    std: float = 0.5
    score: Score = field(default_factory=Score)

    def __post_init__(self) -> None:
        at_least(self, candidates=1, iterations=1, horizon=1)

    def begin(self, model: Model, batch: int) -> Proposal:
        """Around zero; `ConfigError` where an action is discrete."""
        discrete = sorted(name for name, spec in model.specs.items() if spec.kind == "discrete")
        if discrete:
            raise ConfigError(
                f"The gradient planner needs continuous actions, but {', '.join(discrete)} is discrete: use CEM, "
                "MPPI or TreeSearch."
            )
        return Proposal.wide(model.specs, batch, self.horizon, self.std)

    def plan(
        self, model: Model, params: Params, key: Array, state: State, plan: Proposal, legal: LegalActions = None
    ) -> tuple[Actions, Proposal]:
        """See `Planner`."""
        draw_key, key = jax.random.split(key)
        actions = jax.tree.map(
            lambda drawn, center: drawn.at[:, 0].set(center), plan.sample(draw_key, self.candidates), plan.center
        )
        adam = optax.adam(self.rate)

        def found(actions: Actions) -> Array:
            return scores(self.score, model, params, key, state, actions)

        def iterate(held: tuple[Actions, optax.OptState], _: None) -> tuple[tuple[Actions, optax.OptState], None]:
            actions, moments = held
            gradient = jax.grad(lambda actions: -found(actions).sum())(actions)
            gradient = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), gradient)
            step, moments = adam.update(gradient, moments)
            return (jax.tree.map(lambda a, s: jnp.clip(a + s, -1.0, 1.0), actions, step), moments), None

        (actions, _), _ = jax.lax.scan(iterate, (actions, adam.init(actions)), None, self.iterations)
        actions = jax.tree.map(lambda a, old: jnp.concatenate([a, old[:, None]], 1), actions, plan.center)
        best = found(actions).argmax(-1)
        chosen = picked(actions, best)
        wide = Proposal.wide(model.specs, len(best), self.horizon, self.std)
        return jax.tree.map(lambda x: x[:, 0], chosen), Proposal(chosen, plan.spread).later(wide)
