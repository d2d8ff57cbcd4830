"""Two rooms of a 7 x 7 grid with a door between them, as an exact model, and a policy that never arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.behaviour import ActionDistribution
from dreamer_agent.distributions import Categorical
from dreamer_agent.planning import Model, Outcome
from dreamer_agent.specs import ArraySpec

ROWS = (
    "#########",
    "#   #   #",
    "#   #   #",
    "#   #   #",
    "#       #",
    "#   #   #",
    "#   #   #",
    "#   #  G#",
    "#########",
)
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right
GAMMA, LIMIT = 0.97, 40
SPECS = {"action": ArraySpec("discrete", (), 4)}

CELLS = [(r, c) for r, row in enumerate(ROWS) for c, mark in enumerate(row) if mark != "#"]
GOAL = next(i for i, (r, c) in enumerate(CELLS) if ROWS[r][c] == "G")
STARTS = [i for i, (_, c) in enumerate(CELLS) if c < 4]  # the room without the goal


def table() -> np.ndarray:
    """Where each move leads, `[cells, 4]`; the goal is left for nowhere."""
    place = {cell: index for index, cell in enumerate(CELLS)}
    rows = [[place.get((r + dr, c + dc), index) for dr, dc in MOVES] for index, (r, c) in enumerate(CELLS)]
    rows[GOAL] = [GOAL] * 4
    return np.array(rows)


NEXT = table()
POLICY = np.array([0.2, 0.2, 0.55, 0.05])  # drifts to the left, away from the goal


def critic() -> np.ndarray:
    """The exact value of `POLICY` in every cell: 1 on arriving at the goal, discounted."""
    count = len(CELLS)
    transition, reward = np.zeros((count, count)), np.zeros(count)
    for cell in range(count):
        for move, probability in enumerate(POLICY):
            if cell != GOAL:
                transition[cell, NEXT[cell, move]] += probability * (NEXT[cell, move] != GOAL)
                reward[cell] += probability * (NEXT[cell, move] == GOAL)
    return np.linalg.solve(np.eye(count) - GAMMA * transition, reward)


def model(values: np.ndarray) -> Model:
    """Exact, with `POLICY` everywhere and a critic that says `values`."""
    lookup, next_cell = jnp.asarray(values, jnp.float32), jnp.asarray(NEXT)

    def step(params: Any, key: jax.Array, actions: Any, state: jax.Array) -> tuple[Outcome, jax.Array]:
        new = next_cell[state, actions["action"]]
        arrived = (new == GOAL) & (state != GOAL)
        return Outcome(arrived * 1.0, jnp.where(new == GOAL, 0.0, GAMMA), lookup[new]), new

    def policy(_: Any, state: jax.Array) -> ActionDistribution:
        logits = jnp.broadcast_to(jnp.log(POLICY), (len(state), 4))
        return ActionDistribution({"action": Categorical.from_logits(logits)})

    return Model(SPECS, step, policy, lambda _, state: lookup[state])


def arrivals(planner: Any, own: Model, repeats: int = 10) -> Callable[[], float]:
    """A compiled function that gives the share of episodes, from every cell of the first room, that arrive within
    `LIMIT` steps.
    """
    state = jnp.asarray(STARTS * repeats)

    @jax.jit
    def episodes(key: jax.Array) -> jax.Array:
        def one(held: Any, key: jax.Array) -> tuple[Any, None]:
            state, plan = held
            actions, plan = planner.plan(own, (), key, state, plan)
            return (jnp.asarray(NEXT)[state, actions["action"]], plan), None

        begun = (state, planner.begin(own, len(state)))
        return jax.lax.scan(one, begun, jax.random.split(key, LIMIT))[0][0] == GOAL

    return lambda: float(episodes(jax.random.PRNGKey(0)).mean())


def success(planner: Any, own: Model) -> float:
    """The share of `arrivals`."""
    return arrivals(planner, own)()


class Unplanned:
    """The policy of the model, in the form of a planner."""

    def begin(self, own: Model, batch: int) -> tuple[()]:
        """Nothing to keep."""
        return ()

    def plan(self, own: Model, params: Any, key: jax.Array, state: jax.Array, plan: Any) -> Any:
        """A sample."""
        return own.policy(params, state).sample(key), plan
