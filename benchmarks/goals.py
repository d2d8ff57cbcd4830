"""How far ahead an agent finds its way: success at goals whose shortest way has d steps, within d + slack.

    python -m benchmarks.goals                    # random moves and the shortest way
    python -m benchmarks.goals runs/toy_rooms-0   # an agent trained on toy:rooms and planners over its model, too

The agent of the docs is that of

    dreamer-agent train toy:rooms --preset classic env.num_envs=16 env.kwargs.relative=true replay.ratio=32 \
        train.steps=100000

Every task is one start and goal; intervals are Wilson's, 95%. --out writes the numbers as JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import binomtest

from dreamer_agent.agent import ActState, Agent
from dreamer_agent.api import load_run
from dreamer_agent.envs.rooms import Rooms
from dreamer_agent.statistics import Estimate
from dreamer_agent.training.run_directory import provenance

DISTANCES, SLACK, TASKS = (5, 10, 20), 5, 200
PLANNERS = ("shooting:horizon=15", "cem:horizon=15", "mppi:horizon=15", "tree:simulations=32")
Choose = Callable[[Any, Any, dict[str, Any], Any], tuple[Any, dict[str, Any]]]


class Chooser(NamedTuple):
    """`choose(key, memory, obs, is_first)` gives the memory to hand back and actions `[E, ...]`."""

    begin: Callable[[int], Any]
    choose: Choose


def at_random() -> Chooser:
    """Every move equally likely."""

    def choose(key: Any, memory: Any, obs: dict[str, Any], is_first: Any) -> tuple[Any, dict[str, Any]]:
        return memory, {"action": jax.random.randint(key, is_first.shape, 0, 4)}

    return Chooser(lambda count: (), choose)


def shortest(rooms: Rooms) -> Chooser:
    """A shortest way, which is known beforehand."""
    table = jnp.asarray(rooms.solution())

    def choose(key: Any, memory: Any, obs: dict[str, Any], is_first: Any) -> tuple[Any, dict[str, Any]]:
        return memory, {"action": table[rooms.cell_at(obs["agent"]), rooms.cell_at(rooms.goal_of(obs))]}

    return Chooser(lambda count: (), choose)


def acting(agent: Agent, params: Any, explore: bool) -> Chooser:
    """Whatever `agent.act` chooses: a planner, or the policy, sampled (`explore`) or the likeliest."""

    def choose(key: Any, memory: ActState, obs: dict[str, Any], is_first: Any) -> tuple[Any, dict[str, Any]]:
        new = agent.act(params, key, memory, obs, is_first, jnp.asarray(explore))
        return new, new.action

    return Chooser(agent.init_act, choose)


def success(
    chooser: Chooser, distance: int, slack: int = SLACK, tasks: int = TASKS, seed: int = 0, relative: bool = False
) -> Estimate:
    """The share of `tasks` of that distance that are solved within `distance` + `slack` steps.

    `relative` as of `Rooms`: what is observed.
    """
    rooms = Rooms(distance, relative=relative)
    key, reset_key = jax.random.split(jax.random.PRNGKey(seed))

    def step(carry: Any, inputs: Any) -> tuple[Any, None]:
        state, obs, memory, done = carry
        number, own = inputs
        memory, action = chooser.choose(own, memory, obs, jnp.full(tasks, number == 0))
        state, obs, _, arrived, _ = jax.vmap(rooms.step, (None, 0, 0))(own, state, action)
        return (state, obs, memory, done | arrived), None

    def run(reset_key: Any, key: Any) -> Any:
        state, obs = jax.vmap(rooms.reset)(jax.random.split(reset_key, tasks))
        steps = distance + slack
        start = (state, obs, chooser.begin(tasks), jnp.zeros(tasks, bool))
        return jax.lax.scan(step, start, (jnp.arange(steps), jax.random.split(key, steps)))[0][3]

    done = np.asarray(jax.jit(run)(reset_key, key))
    interval = binomtest(int(done.sum()), tasks).proportion_ci(method="wilson")
    return Estimate(float(done.mean()), float(interval.low), float(interval.high))


def choosers(run: str | None) -> tuple[dict[str, Chooser], bool]:
    """All that are compared, by name, and whether they see the goal from where they are (`Rooms.relative`)."""
    out = {"random moves": at_random(), "the shortest way": shortest(Rooms())}
    if run is None:
        return out, False
    agent, state, config = load_run(run)
    params, relative = state.average, bool(config.env.kwargs.get("relative"))
    out["the shortest way"] = shortest(Rooms(relative=relative))
    out |= {"policy, sampled": acting(agent, params, True), "policy, likeliest": acting(agent, params, False)}
    return out | {planner: acting(agent.planned_by(planner), params, False) for planner in PLANNERS}, relative


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="A run on toy:rooms.")
    parser.add_argument("--slack", type=int, default=SLACK)
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows, (found, relative) = {}, choosers(given.run)
    print("| | " + " | ".join(f"d = {d}" for d in DISTANCES) + " |\n|---|" + "---|" * len(DISTANCES))
    for name, chooser in found.items():
        shares = [success(chooser, d, given.slack, given.tasks, relative=relative) for d in DISTANCES]
        rows[name] = {str(d): one._asdict() for d, one in zip(DISTANCES, shares, strict=True)}
        print(f"| {name} | " + " | ".join(f"{x.value:.2f} ({x.low:.2f} to {x.high:.2f})" for x in shares) + " |")
    if given.out:
        told = {"slack": given.slack, "tasks": given.tasks, "success": rows, "provenance": provenance()}
        given.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
