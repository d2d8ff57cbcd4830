"""How certain the policy gets on MountainCar while no reward tells anything.

    python -m benchmarks.certainty [--runs runs/benchmarks/certainty] [--steps 6000]

Two runs (seed 0, preset `classic`, resumable) of the same environment: with rewards of -1, as gymnasium has them,
and with rewards of 0. Entropies of the policy in imagination (nats, log 3 is even) over env steps go to
benchmarks/results/certainty.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gymnasium as gym

from dreamer_agent import Dreamer
from dreamer_agent.training.metrics import read_metrics
from dreamer_agent.training.run_directory import provenance

RESULTS = Path(__file__).parent / "results" / "certainty.json"
REWARDS = (-1.0, 0.0)
KEYS = ("behaviour/entropy", "behaviour/advantage_std", "behaviour/value")


class ConstantReward(gym.Wrapper):
    """MountainCar with the same `reward` at each step."""

    def __init__(self, reward: float) -> None:
        super().__init__(gym.make("MountainCar-v0"))
        self.reward = reward

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """A step of MountainCar, paid with what is asked for."""
        obs, _, terminated, truncated, info = self.env.step(action)
        return obs, self.reward, terminated, truncated, info


def measured(reward: float, steps: int, run: Path) -> list[dict[str, float]]:
    """Rows of the metrics in `KEYS` of a run of so many env steps."""
    config = [f"env.kwargs.reward={reward}"]
    agent = Dreamer("benchmarks.certainty:ConstantReward", "classic", config=config, run=run, seed=0)
    agent.learn(max(steps - agent.env_steps, 0))
    agent.close()
    return [{key: row[key] for key in ("step", *KEYS)} for row in read_metrics(run) if KEYS[0] in row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks/certainty"))
    parser.add_argument("--steps", type=int, default=6000)
    args = parser.parse_args()
    rows = {str(reward): measured(reward, args.steps, args.runs / str(reward)) for reward in REWARDS}
    content = {"command": "python -m benchmarks.certainty", "provenance": provenance(), "rewards": rows}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    for reward, found in rows.items():
        print(reward, [(int(row["step"]), round(row[KEYS[0]], 3)) for row in found[::2]])


if __name__ == "__main__":
    main()
