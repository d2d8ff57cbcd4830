"""Can an agent learn in a dream alone? Trained in a world model's dreams, scored in the real environment.

    python -m benchmarks.dreaming --seeds 0 1 2

For each seed a world model of CartPole-v1 is trained with the preset `classic` (8,000 real steps). PPO of
stable-baselines3 (with the zoo's settings, 100,000 steps) and our own agent (`classic`, 8,000 steps) then learn
twice: in the real environment, and, from nothing, in the dreams of that model, which begin at steps of its
replay; PPO also in other dreams and with other seeds. All are scored on 100 real episodes. What is finished is
not done again (runs in runs/dreaming); results go to benchmarks/results/dreaming.json and dreaming.png.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from benchmarks.learning import TASKS
from dreamer_agent import Dreamer, load_dream
from dreamer_agent.bench.baseline_settings import constructor_arguments, settings_of
from dreamer_agent.dreams import Dream
from dreamer_agent.training.run_directory import provenance

RESULTS = Path(__file__).parent / "results" / "dreaming.json"
ENV, PRESET = TASKS["cartpole"].env, TASKS["cartpole"].preset
MODEL_STEPS, PPO_STEPS, POINTS, LIMIT = 8_000, 100_000, 10, 500  # points of a curve; limit of CartPole-v1
HORIZON, TEMPERATURE, TEMPERATURES = 200, 0.5, (1.0, 0.5, 0.0)
TRIES = ((1.0, 64, 0), (TEMPERATURE, HORIZON, 1), (TEMPERATURE, HORIZON, 2))  # temperature, horizon, seed of PPO
ENOUGH = 0.8  # of what the same agent reaches in the real environment
Act = Callable[[np.ndarray], np.ndarray]  # observations [N, ...] -> actions [N]
Row = dict[str, Any]


def ours(run: Path, env: Any, seed: int) -> Row:
    """Our agent, trained in `env`, a bit at a time, each scored in the real environment."""
    kept = run.with_suffix(".json")
    row: Row = json.loads(kept.read_text()) if kept.is_file() else {"curve": [], "minutes": 0.0}
    parts = POINTS // 2
    with Dreamer(env, PRESET, run=run, seed=seed, quiet=True) as agent:
        for part in range(1, parts + 1):
            start = time.monotonic()
            agent.learn(MODEL_STEPS // parts)
            row["minutes"] += (time.monotonic() - start) / 60
            if agent.env_steps < MODEL_STEPS * (part + 1) // parts:  # else done before
                row["curve"].append([agent.env_steps, Dreamer.load(run, env=ENV).evaluate(20).mean])
                kept.write_text(json.dumps(row))
                print(f"  {run.name}: {row['curve'][-1][0]:,} steps, {row['curve'][-1][1]:.1f} real", flush=True)
    final = Dreamer.load(run, env=ENV)
    scores = [final.evaluate(100, deterministic).summary() for deterministic in (False, True)]
    return row | {"steps": agent.env_steps, "scores": scores}


def ppo(dream: Dream | None, seed: int, name: str) -> Row:
    """PPO trained in `dream`, or in the real environment."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecMonitor

    torch.set_num_threads(1)
    settings = settings_of("ppo", ENV)
    if dream is None:
        vector: Any = make_vec_env(ENV, settings.n_envs, seed)
    else:
        from benchmarks.sb3_vector import VectorOf

        dreams = dream.vector_env(settings.n_envs, autoreset_mode=AutoresetMode.SAME_STEP)
        vector = VecMonitor(VectorOf(dreams, seed))
    model = PPO(env=vector, seed=seed, device="cpu", **constructor_arguments(settings.agent))
    curve: list[list[float]] = []
    spent = 0.0

    def score(*_: Any) -> bool:
        nonlocal spent
        if model.num_timesteps >= PPO_STEPS * (len(curve) + 1) / POINTS:
            start = time.monotonic()
            curve.append([model.num_timesteps, float(np.mean(returns(model, 20, seed, False)))])
            spent += time.monotonic() - start
            print(f"  {name}: {curve[-1][0]:,} steps, {curve[-1][1]:.1f} in the real environment", flush=True)
        return True

    start = time.monotonic()
    model.learn(PPO_STEPS, callback=score)
    minutes = (time.monotonic() - start - spent) / 60
    scores = []
    for deterministic in (False, True):
        found = returns(model, 100, seed + 1, deterministic)
        policy = "mode" if deterministic else "sample"
        scores.append({"policy": policy, "episodes": len(found), **moments(found)})
    return {"steps": model.num_timesteps, "curve": curve, "minutes": minutes, "scores": scores}


def returns(model: Any, episodes: int, seed: int, deterministic: bool) -> list[float]:
    """Returns of real episodes."""
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    vector = make_vec_env(ENV, 10, seed + 1_000_003)
    found, _ = evaluate_policy(model, vector, episodes, deterministic, return_episode_rewards=True, warn=False)
    return [float(each) for each in found]


def moments(values: Any) -> dict[str, float]:
    return {"return_mean": float(np.mean(values)), "return_std": float(np.std(values))}


def lengths(vector: gym.vector.VectorEnv, act: Act, seed: int) -> list[int]:
    """Length of the first episode of each environment."""
    obs, _ = vector.reset(seed=seed)
    out = np.zeros(vector.num_envs, int)
    going = np.ones(vector.num_envs, bool)
    while going.any():
        obs, _, terminated, truncated, _ = vector.step(act(obs))
        out += going
        going &= ~(terminated | truncated)
    return out.tolist()


def balanced(obs: np.ndarray) -> np.ndarray:
    """A controller written by hand: it pushes to where the pole falls, and never fails."""
    return (obs @ np.array([0.02, 0.1, 1.0, 0.3]) > 0).astype(int)


def compared(run: Path, seed: int) -> dict[str, dict[str, float]]:
    """Mean length of an episode from a reset on, real and dreamt, of two fixed policies."""
    rng = np.random.default_rng(seed)
    acts: dict[str, Act] = {"random": lambda obs: rng.integers(0, 2, len(obs)), "balanced": balanced}
    places = {"real": gym.make_vec(ENV, 100, vectorization_mode="sync")}
    for temperature in TEMPERATURES:
        dream = load_dream(run, "reset", seed=seed, horizon=LIMIT, temperature=temperature)
        places[f"temperature {temperature:g}"] = dream.vector_env(100)
    out = {
        name: {place: float(np.mean(lengths(vector, act, seed))) for place, vector in places.items()}
        for name, act in acts.items()
    }
    print(f"  mean lengths: {out}", flush=True)
    return out


def one_seed(folder: Path, seed: int) -> dict[str, Any]:
    """All agents of a seed."""
    kept = folder / f"results-{seed}.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {"seed": seed}

    def part(name: str, make: Callable[[], Any]) -> None:
        if name not in found:
            print(f"seed {seed}: {name}", flush=True)
            found[name] = make()
            kept.write_text(json.dumps(found, indent=1))

    real = folder / f"ours-real-{seed}"
    part("ours, real", lambda: ours(real, ENV, seed))
    part("lengths", lambda: compared(real, seed))
    dream = load_dream(real, seed=seed, horizon=HORIZON, temperature=TEMPERATURE)
    part("PPO, real", lambda: ppo(None, seed, f"ppo-real-{seed}"))
    part("PPO, dream", lambda: ppo(dream, seed, f"ppo-dream-{seed}"))
    for temperature, horizon, own in TRIES:
        name = f"PPO, dream, temperature {temperature:g}, horizon {horizon}, PPO's seed {own}"
        tried = load_dream(real, seed=seed, horizon=horizon, temperature=temperature)
        part(name, lambda tried=tried, own=own: ppo(tried, own, f"ppo-{own}-dream-{seed}"))
    part("ours, dream", lambda: ours(folder / f"ours-dream-{seed}", dream, seed))
    return found


def summary(seeds: list[dict[str, Any]]) -> list[Row]:
    """A line for each agent: means over seeds, and the share of the real one that the dreamt one reaches."""
    lines = []
    for agent in ("PPO", "ours"):
        means = {
            where: [
                [score["return_mean"] for score in seed[f"{agent}, {where}"]["scores"]] for seed in seeds
            ]
            for where in ("real", "dream")
        }  # fmt: skip
        real, dream = (np.mean(means[where], 0) for where in ("real", "dream"))
        share = (dream / real).tolist()
        line = {"agent": agent, "by_seed": means, "real": real.tolist(), "dream": dream.tolist(), "share": share}
        lines.append(line | {"enough": bool(min(share) >= ENOUGH)})
        both = f"{real[0]:.1f} learnt in the real environment, {dream[0]:.1f} in dreams"
        print(f"{agent}: {both} ({share[0]:.0%})")
    return lines


def draw(seeds: list[dict[str, Any]], path: Path) -> None:
    """Returns in the real environment over the steps of the agent, where it learns there and where it dreams."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for axes, agent in zip(panels, ("PPO", "ours"), strict=True):
        for color, where in (("0.5", "real"), ("C0", "dream")):
            for number, seed in enumerate(seeds):
                steps, values = zip(*seed[f"{agent}, {where}"]["curve"], strict=True)
                label = {"real": "learns in the real environment", "dream": "learns in dreams"}[where]
                axes.plot(steps, values, "-o", ms=3, color=color, label=None if number else label)
        axes.set_title({"PPO": "PPO of stable-baselines3", "ours": "our agent"}[agent])
        axes.set_xlabel("steps of the agent")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("return in the real environment")
    panels[0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/dreaming"))
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    seeds = [one_seed(options.runs, seed) for seed in options.seeds]
    content = {
        "command": "python -m benchmarks.dreaming --seeds " + " ".join(map(str, options.seeds)),
        "env": ENV, "preset": PRESET, "model_steps": MODEL_STEPS, "ppo_steps": PPO_STEPS,
        "horizon": HORIZON, "temperature": TEMPERATURE,
        "summary": summary(seeds), "seeds": seeds, "provenance": provenance(),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    draw(seeds, RESULTS.with_suffix(".png"))
    print(f"written to {RESULTS.name} and {RESULTS.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
