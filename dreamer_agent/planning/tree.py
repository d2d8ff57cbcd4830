"""Tree search: Gumbel MuZero (Danihelka et al. 2022) over the model, by mctx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dreamer_agent.distributions import ILLEGAL
from dreamer_agent.errors import missing_extra
from dreamer_agent.nets import Params
from dreamer_agent.planning.model import Model, State, at_least, in_range, picked
from dreamer_agent.world_model import Actions, LegalActions

Array = jax.Array


class Node(NamedTuple):
    """What the tree keeps of a state: it, and the actions `[N, K, ...]` that are tried there."""

    state: State
    choices: Actions


@dataclass(frozen=True)
class TreeSearch:
    """`simulations` of Gumbel MuZero from the policy's prior and the critic's values.

    A single discrete action has its classes tried, with the policy's probabilities as prior: all of them, where
    there are at least as many simulations. Any other is sampled: `candidates` actions of the policy at each node,
    equally likely beforehand (Sampled MuZero, Hubert et al. 2021, with the policy itself as proposal). It trusts
    the critic: where that is wrong, so is the search.
    """

    simulations: int = 16
    candidates: int = 8
    depth: int | None = None
    gumbel_scale: float = 1.0

    def __post_init__(self) -> None:
        at_least(self, simulations=1, candidates=1)

    def begin(self, model: Model, batch: int) -> tuple[()]:
        """Nothing is kept between steps."""
        return ()

    def plan(
        self, model: Model, params: Params, key: Array, state: State, plan: Any, legal: LegalActions = None
    ) -> tuple[Actions, Any]:
        """See `Planner`."""
        try:
            import mctx
        except ImportError as error:
            raise missing_extra("mctx", "planning") from error
        root_key, key = jax.random.split(key)
        node, prior = self._node(model, params, root_key, state, legal)

        def recurrent(params: Params, key: Array, index: Array, node: Node) -> tuple[Any, Node]:
            step_key, node_key = jax.random.split(key)
            outcome, new = model.step(params, step_key, picked(node.choices, index), node.state)
            below, prior = self._node(model, params, node_key, new)
            said = mctx.RecurrentFnOutput(
                reward=outcome.reward, discount=outcome.discount, prior_logits=prior, value=outcome.value
            )
            return said, below

        root = mctx.RootFnOutput(prior_logits=prior, value=model.value(params, state), embedding=node)
        found = mctx.gumbel_muzero_policy(
            params, key, root, recurrent, self.simulations,
            invalid_actions=prior < ILLEGAL / 2, max_depth=self.depth, gumbel_scale=self.gumbel_scale,
            max_num_considered_actions=prior.shape[-1],
        )  # fmt: skip
        return picked(node.choices, found.action), plan

    def _node(
        self, model: Model, params: Params, key: Array, state: State, legal: LegalActions = None
    ) -> tuple[Node, Array]:
        """A node at `state` `[N, ...]`, and the logits `[N, K]` of its choices."""
        policy = model.policy(params, state) if legal is None else model.policy(params, state, legal)
        rows = len(jax.tree.leaves(state)[0])
        name, *others = sorted(model.specs)
        spec = model.specs[name]
        if not others and spec.kind == "discrete" and not spec.shape:
            every = jnp.broadcast_to(jnp.arange(spec.classes), (rows, spec.classes))
            return Node(state, {name: every}), policy.parts[name].log_probs  # type: ignore[union-attr]
        drawn = jax.vmap(policy.sample)(jax.random.split(key, self.candidates))
        choices = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), in_range(model.specs, drawn))
        return Node(state, choices), jnp.zeros((rows, self.candidates))
