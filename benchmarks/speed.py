"""How fast? Compile time, milliseconds per update and per policy step, for several sizes.

    python benchmarks/speed.py

Every row is measured in one run, the sizes interleaved (A B C A B C ...), and reported as median and
minimum; absolute numbers are those of the machine named in the JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dreamer_agent.agent import Agent, count_parameters
from dreamer_agent.config import load_config
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training.budget import layout_of
from dreamer_agent.training.driver import Driver
from dreamer_agent.training.run_directory import provenance

RESULTS = Path(__file__).parent / "results"
PROPRIO = ({"obs": ArraySpec("continuous", (24,))}, {"action": ArraySpec("continuous", (6,))})
CARTPOLE = ({"obs": ArraySpec("continuous", (4,))}, {"action": ArraySpec("discrete", (), 2)})
CATCH = ({"image": ArraySpec("image", (16, 16, 3))}, {"action": ArraySpec("discrete", (), 3)})
CASES = {
    "size1m proprio 16x64": (["size/1m"], PROPRIO),
    "tiny proprio 16x64": (["size/tiny"], PROPRIO),
    "nano proprio 16x64": (["size/nano"], PROPRIO),
    "classic preset, CartPole": (["classic"], CARTPOLE),
    "pixels preset, 16x16 image": (["pixels"], CATCH),
}


class Case:
    """One size with compiled programs and something to run them on."""

    def __init__(self, presets: list[str], specs: tuple):
        self.agent = Agent.create(load_config(presets, ["precision=float32"]), *specs)
        self.state = jax.jit(self.agent.init)(jax.random.PRNGKey(0))
        self.batch = random_batch(self.agent)
        start = time.perf_counter()
        lowered = jax.jit(self.agent.update, donate_argnums=0).lower(self.state, self.batch)
        self.trace_s = time.perf_counter() - start
        self.update = lowered.compile()
        self.compile_s = time.perf_counter() - start - self.trace_s
        self.driver = Driver(self.agent, StillEnv(*specs), 0)

    def time_update(self) -> float:
        start = time.perf_counter()
        self.state, latents, _ = self.update(self.state, self.batch)
        jax.block_until_ready((self.state, latents))
        return 1e3 * (time.perf_counter() - start)

    def time_policy(self, steps: int = 50) -> float:
        params = self.state.params
        start = time.perf_counter()
        for _ in range(steps):
            for _ in self.driver.rows(params):
                pass
        return 1e3 * (time.perf_counter() - start) / steps


class StillEnv:
    """One environment that costs nothing: what remains is the policy step, with its copies to NumPy."""

    num_envs = 1

    def __init__(self, obs_specs: Any, act_specs: Any):
        from dreamer_agent.envs import Rows

        self.obs_specs, self.act_specs = obs_specs, act_specs
        no = np.zeros(1, bool)
        obs = {key: np.zeros((1, *spec.shape), spec.dtype) for key, spec in obs_specs.items()}
        self.rows = [Rows(obs, np.zeros(1, np.float32), no, no, no)]

    def reset(self, seed: int) -> list:
        return self.rows

    def step(self, actions: Any) -> list:
        return self.rows

    def close(self) -> None:
        pass


def random_batch(agent: Agent) -> Any:
    """A batch of the agent's own shapes with random contents."""
    rng, replay = np.random.default_rng(0), agent.config.replay
    lead = (replay.batch_size, replay.batch_length + 1)

    def draw(layout: Any) -> Any:
        if isinstance(layout, dict):
            return {key: draw(value) for key, value in layout.items()}
        shape, dtype = layout
        if np.issubdtype(dtype, np.floating):
            return rng.normal(size=(*lead, *shape)).astype(dtype)
        return rng.integers(0, 2, (*lead, *shape)).astype(dtype)

    return draw(layout_of(agent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    cases = {name: Case(*case) for name, case in CASES.items()}
    updates: dict[str, list[float]] = {name: [] for name in cases}
    policies: dict[str, list[float]] = {name: [] for name in cases}
    for round_ in range(args.rounds + 1):
        for name, case in cases.items():
            update, policy = case.time_update(), case.time_policy()
            if round_:  # the first round warms up
                updates[name].append(update)
                policies[name].append(policy)
    rows = [
        {
            "case": name,
            "parameters": count_parameters(case.state.params),
            "trace_s": case.trace_s,
            "compile_s": case.compile_s,
            "update_ms_median": float(np.median(updates[name])),
            "update_ms_min": float(np.min(updates[name])),
            "policy_ms_median": float(np.median(policies[name])),
            "policy_ms_min": float(np.min(policies[name])),
        }
        for name, case in cases.items()
    ]
    print(f"{'case':30} {'parameters':>11} {'trace s':>8} {'compile s':>10} {'update ms':>16} {'policy ms':>16}")
    for row in rows:
        print(
            f"{row['case']:30} {row['parameters']:>11,} {row['trace_s']:>8.1f} {row['compile_s']:>10.1f} "
            f"{row['update_ms_median']:>8.1f} / {row['update_ms_min']:>5.1f} "
            f"{row['policy_ms_median']:>8.2f} / {row['policy_ms_min']:>5.2f}"
        )
    print("update and policy step: median / minimum")
    command = f"python benchmarks/speed.py --rounds {args.rounds}"
    content = {"command": command, "provenance": provenance(), "rows": rows}
    (RESULTS / "speed.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
