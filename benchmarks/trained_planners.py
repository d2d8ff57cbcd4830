"""Planners on world models in mid-training: return and time of a decision, beside those of the policy.

    python -m benchmarks.trained_planners [--runs runs/benchmarks/planners] [--episodes 20]

Three tasks are trained for a part of what they need (resumable), then the same episodes are played by the policy
and by each planner with the same parameters. Then rewards are swapped on the pendulum: hang, or spin, instead of
stand. Milliseconds are those of one decision of one environment, a median over many. Results go to
benchmarks/results/trained_planners.json, trained_planners.png and reward_swap.png.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent import Dreamer
from dreamer_agent.training.run_directory import provenance

RESULTS = Path(__file__).parent / "results" / "trained_planners.json"
TASKS = {  # preset, and env steps: before the policy is good, as benchmarks/reports/classic has it
    "CartPole-v1": ("classic", 2500),
    "Pendulum-v1": ("pendulum", 2500),
    "Acrobot-v1": ("classic", 3000),
}
PLANNERS = ("shooting", "cem", "mppi", "gradient", "tree")
SPIN, DECISIONS = 6.0, 100  # radians a second; length of an episode
WISHES = (("hang", 0, -1.0, "cosine of the angle"), ("spin", 2, SPIN, "radians a second"))
DRAWS = 9999


def trained(env: str, folder: Path) -> Dreamer:
    """The agent of a task, trained for its steps."""
    preset, steps = TASKS[env]
    agent = Dreamer(env, preset, run=folder / env, seed=0)
    agent.learn(max(steps - agent.env_steps, 0))
    agent.close()
    return agent


def milliseconds(agent: Dreamer, planner: str, count: int = 40) -> float:
    """The median time of one decision for one environment."""
    obs, state, times = np.zeros(agent._known()[1].observation_space.shape, np.float32), None, []
    for _ in range(count + 3):
        start = time.perf_counter()
        _, state = agent.predict(obs, state, deterministic=True, planner=planner)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times[3:]))


def interval(gaps: np.ndarray) -> list[float]:
    """The 95% interval of a mean difference of pairs, by bootstrap."""
    from scipy.stats import bootstrap

    if np.ptp(gaps) == 0:
        return [float(gaps[0])] * 2
    found = bootstrap((gaps,), np.mean, n_resamples=DRAWS, method="percentile", rng=np.random.default_rng(0))
    return [float(found.confidence_interval.low), float(found.confidence_interval.high)]


def rows_of(env: str, agent: Dreamer, episodes: int) -> list[dict[str, Any]]:
    """A row for the policy, its mode and each planner that takes these actions."""
    discrete = any(spec.kind == "discrete" for spec in agent._known()[0].model.act_specs.values())
    rows: list[dict[str, Any]] = []
    for name in ("policy, mode", "policy, sampled", *PLANNERS):
        if name == "gradient" and discrete:
            continue
        planner = "none" if name.startswith("policy") else name
        start = time.perf_counter()
        found = agent.evaluate(episodes, name != "policy, sampled", planner=planner)
        row = {"task": env, "name": name, "returns": found.returns, "mean": found.mean}
        row |= {"std": float(np.std(found.returns)), "ms": milliseconds(agent, planner)}
        if rows:
            gaps = np.subtract(found.returns, rows[0]["returns"])
            row |= {"gain": float(gaps.mean()), "gain_interval": interval(gaps)}
        rows.append(row)
        took = time.perf_counter() - start
        print(
            f"{env:14} {name:16} return {row['mean']:9.1f}   {row['ms']:7.2f} ms a decision   ({took:.0f} s)",
            flush=True,
        )
    return rows


def spinning(obs: Any, actions: Any, new: Any) -> Any:
    """Turn at `SPIN` radians a second: `[N]`, 0 at best, -1 for standing still."""
    return -((_only(new)[..., 2] - SPIN) ** 2) / SPIN**2


def hanging(obs: Any, actions: Any, new: Any) -> Any:
    """Hang still, where the run was rewarded for standing: `[N]`, 0 at best, -1 for standing."""
    return -((_only(new)[..., 0] + 1) ** 2) / 4 - (_only(new)[..., 2] / 8) ** 2


def _only(obs: Any) -> Any:
    """The one array of an observation: cosine, sine and radians a second."""
    return next(iter(obs.values()))


def swapped(agent: Dreamer, episodes: int) -> list[dict[str, Any]]:
    """Other rewards for the pendulum, all else as it was trained: what it does, and its return."""
    rows: list[dict[str, Any]] = []
    for wish, reward in {"hang": hanging, "spin": spinning}.items():
        ways: dict[str, dict[str, Any]] = {
            "policy": {"planner": "none"},
            "mppi, rewards of the run": {"planner": "mppi"},
            "mppi, rewards swapped": {"planner": "mppi:horizon=15,guided=0", "reward_fn": reward},
            "cem, rewards swapped": {"planner": "cem:horizon=15,guided=0", "reward_fn": reward},
        }
        for name, options in ways.items():
            seen = np.array([played(agent, 1000 + episode, options) for episode in range(episodes)])
            total = reward({}, {}, {"obs": seen}).sum(1)
            rows.append({"wish": wish, "name": name, "return": float(total.mean()), "std": float(total.std())})
            rows[-1] |= seen_in_short(wish, seen)
            print(f"{wish}: {name:26} return {total.mean():8.1f}", flush=True)
    return rows


def seen_in_short(wish: str, seen: np.ndarray) -> dict[str, Any]:
    """Of observations `[E, T, 3]` the number that counts: quartiles `[3, T]`, and the end of each episode."""
    part = next(part for name, part, _, _ in WISHES if name == wish)
    quartiles = np.quantile(seen[..., part], [0.25, 0.5, 0.75], 0)
    last = np.median(seen[:, -DECISIONS // 5 :, part], 1)
    return {"quartiles": quartiles.round(3).tolist(), "end": last.round(3).tolist()}


def played(agent: Dreamer, seed: int, options: dict[str, Any]) -> list[list[float]]:
    """What is observed in one episode, `[T, 3]`."""
    import gymnasium as gym

    env = gym.make("Pendulum-v1")
    obs, state, seen = env.reset(seed=seed)[0], None, []
    for _ in range(DECISIONS):
        action, state = agent.predict(obs, state, deterministic=True, **options)
        for _ in range(agent.config.env.action_repeat):
            obs = env.step(action)[0]
        seen.append(obs.tolist())
    return seen


def draw(content: dict[str, Any]) -> None:
    """Returns and times by task; what the pendulum does where rewards were swapped."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row["name"] for row in content["tasks"]))
    figure, axes = plt.subplots(1, len(TASKS), figsize=(4 * len(TASKS), 3.6), layout="constrained")
    for axis, env in zip(axes, TASKS, strict=True):
        for row in (row for row in content["tasks"] if row["task"] == env):
            error = 2 * np.std(row["returns"]) / np.sqrt(len(row["returns"]))
            axis.errorbar(row["ms"], row["mean"], error, fmt="o", color=f"C{names.index(row['name'])}")
        axis.set(xscale="log", xlim=(0.7, 200), xlabel="milliseconds of a decision")
        axis.set_title(f"{env}, after {content['steps'][env]:,} env steps", fontsize=10)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("return, two standard errors")
    marks = [plt.Line2D([], [], ls="", marker="o", color=f"C{index}") for index in range(len(names))]
    figure.legend(marks, names, loc="outside lower center", ncols=len(names), fontsize=8)
    figure.savefig(RESULTS.with_suffix(".png"), dpi=120)

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for axis, (wish, _, asked, said) in zip(axes, WISHES, strict=True):
        for row in (row for row in content["swap"] if row["wish"] == wish):
            low, middle, high = row["quartiles"]
            axis.plot(middle, label=row["name"])
            axis.fill_between(range(len(middle)), low, high, alpha=0.2)
        axis.axhline(asked, color="black", lw=1, ls=":", label="asked for")
        axis.set(xlabel="decision", ylabel=said)
        axis.set_title(f"Asked to {wish}: median and middle half over episodes", fontsize=10)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(RESULTS.with_name("reward_swap.png"), dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "benchmarks" / "planners")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--only-swap", action="store_true", help="Keep the rows of the three tasks as they are.")
    given = parser.parse_args()
    agents = {env: trained(env, given.runs) for env in TASKS}
    kept = json.loads(RESULTS.read_text())["tasks"] if given.only_swap else None
    tasks = kept or [row for env, agent in agents.items() for row in rows_of(env, agent, given.episodes)]
    content: dict[str, Any] = {
        "episodes": given.episodes,
        "steps": {env: steps for env, (_, steps) in TASKS.items()},
        "tasks": tasks,
        "swap": swapped(agents["Pendulum-v1"], given.episodes),
        "command": "python -m benchmarks.trained_planners",
        "provenance": provenance(),
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    draw(content)
    print(f"written to {RESULTS.name}, {RESULTS.with_suffix('.png').name} and reward_swap.png")


if __name__ == "__main__":
    main()
