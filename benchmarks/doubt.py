"""Does a model know where it does not know? Its doubt where it imagines what it has not seen, and in planners.

    python -m benchmarks.doubt

An agent with an ensemble collects on toy:rooms by itself, most of the time in the room where it starts. Dreams
then begin there and follow the shortest ways to places drawn anywhere, and each imagined place is compared
with the real one: how well doubt tells wrong from right ones (area under the ROC curve), and how many are wrong
before doubt cuts a dream. Then MPPI on Pendulum-v1 in mid-training, with and without a penalty of doubt, on the
same episodes. Results go to benchmarks/results/doubt.json. Runs that were cut short go on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import mannwhitneyu

from benchmarks.trained_planners import interval
from dreamer_agent import Dreamer
from dreamer_agent.agent import Agent
from dreamer_agent.api.runs import load_saved
from dreamer_agent.envs.rooms import Rooms
from dreamer_agent.training.run_directory import provenance
from dreamer_agent.world_model import zero_actions
from dreamer_agent.world_model.imagine import imagine_step

RESULTS = Path(__file__).parent / "results" / "doubt.json"
START, GOAL = [10, 4], [10, 6]
ROOMS = ("env.kwargs={start: [10, 4], goal: [10, 6], time_limit: 100}", "replay.ratio=64", "model.ensemble=8")
ROOM_STEPS, DREAMS, MOVES = 8000, 2000, 28
LIMITS = (0.02, 0.05, 0.1, 0.2, 0.5)  # nats
PENDULUM_STEPS, EPISODES = 2500, 20
PLANNERS = ("none", "mppi", "mppi:doubt=0.1", "mppi:doubt=1", "mppi:doubt=10")


def trained(env: str, preset: str, settings: tuple[str, ...], steps: int, run: Path) -> Dreamer:
    """An agent with an ensemble, after so many env steps."""
    agent = Dreamer(env, preset, config=list(settings), run=run, seed=0)
    agent.learn(max(steps - agent.env_steps, 0))
    agent.close()
    return agent


def dreamt(agent: Agent, params: Any, rooms: Rooms, key: Any) -> tuple[Any, Any, Any]:
    """Dreams from the first observation alone: `[MOVES, DREAMS]`, whether they are still on their way, whether an
    imagined place is the real one, and the doubt there.
    """
    model, table = agent.model, jnp.asarray(rooms.solution())
    target_key, seen_key, key = jax.random.split(key, 3)
    state, obs = jax.vmap(rooms.reset)(jax.random.split(key, DREAMS))
    target = jax.random.randint(target_key, (DREAMS,), 0, len(rooms.cells))
    begun, first = model.rssm.initial(DREAMS), jnp.ones(DREAMS, bool)
    latent = model.observe_step(params, seen_key, begun, zero_actions(model.act_specs, (DREAMS,)), obs, first)

    def step(carry: Any, key: Any) -> tuple[Any, tuple[Any, Any, Any]]:
        state, latent = carry
        going = state.agent != target
        action = {"action": table[state.agent, target]}
        state, obs, *_ = jax.vmap(rooms.step, (None, 0, 0))(key, state, action)
        latent = imagine_step(model, params, key, latent, action, 0.0)
        place = model.reconstruct(params, latent)["agent"].mode()
        right = (place == obs["agent"]).all(-1)
        return (state, latent), (going, right, model.doubt(params, latent.features))

    return jax.lax.scan(step, (state, latent), jax.random.split(key, MOVES))[1]


def dreams(run: Path) -> dict[str, Any]:
    """How well doubt tells imagined places that are wrong."""
    trained("toy:rooms", "classic", ROOMS, ROOM_STEPS, run)
    saved = load_saved(run)
    rooms = Rooms(start=START, goal=GOAL)
    ask = jax.jit(lambda params, key: dreamt(saved.agent, params, rooms, key))
    going, right, doubt = (np.asarray(x) for x in ask(saved.state.average, jax.random.PRNGKey(0)))
    wrong, fine = doubt[going & ~right], doubt[going & right]
    area = float(mannwhitneyu(wrong, fine).statistic / (wrong.size * fine.size))
    rows = []
    for limit in LIMITS:
        kept = np.logical_and.accumulate(doubt <= limit, axis=0) & going  # up to the first doubt
        rows.append(
            {"limit": limit, "kept": float(kept.sum() / going.sum()), "wrong": float((~right[kept]).mean())}
        )
    out = {
        "wrong": float(wrong.size / going.sum()), "area": area, "limits": rows,
        "doubt_right": float(np.median(fine)), "doubt_wrong": float(np.median(wrong)),
        "provenance": provenance(),
    }  # fmt: skip
    print(json.dumps({name: value for name, value in out.items() if name != "provenance"}, indent=1), flush=True)
    return out


def planners(run: Path) -> list[dict[str, Any]]:
    """The policy's mode and MPPI with penalties of doubt, on the same episodes."""
    agent = trained("Pendulum-v1", "pendulum", ("model.ensemble=8",), PENDULUM_STEPS, run)
    rows: list[dict[str, Any]] = []
    for planner in PLANNERS:
        found = agent.evaluate(EPISODES, True, planner=planner)
        row: dict[str, Any] = {"planner": planner, "returns": found.returns, "mean": found.mean}
        base = next((other for other in rows if other["planner"] == "mppi"), None)
        if base is not None:
            gaps = np.subtract(found.returns, base["returns"])
            row |= {"gain": float(gaps.mean()), "gain_interval": interval(gaps)}
        rows.append(row)
        print({name: value for name, value in row.items() if name != "returns"}, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/doubt"))
    runs = parser.parse_args().runs
    results = {"dreams": dreams(runs / "rooms")}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    results |= {"planners": planners(runs / "pendulum"), "provenance": provenance()}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
