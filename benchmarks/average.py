"""Single parameters beside averages of them: how much do their scores differ from one moment to the next?

    dreamer-agent train Pendulum-v1 --run RUN
    python -m benchmarks.average RUN --steps 3000 --windows 200 500 1000

Trains a finished run further and, after every `--every` env steps, scores its parameters as they are and their
averages over the last updates, each on the same episodes with sampled actions. The first two windows of updates
after the start are not scored: the averages begin there with single parameters. Results go to
benchmarks/results/average_ENV-SEED.json, with a picture beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import dreamer_agent
from dreamer_agent import Callback
from dreamer_agent.api import run_config, train
from dreamer_agent.plots.curves import number
from dreamer_agent.plots.style import SERIES, figure, save
from dreamer_agent.training import evaluate
from dreamer_agent.training.run_directory import newest_step, provenance

RESULTS = Path(__file__).parent / "results"


class Scores(Callback):
    """Averages over several windows of updates, scored every so many env steps."""

    def __init__(self, windows: list[int], start: int, every: int, episodes: int):
        self.windows, self.every, self.episodes = windows, every, episodes
        self.next, self.rows = start, []

    def on_start(self, trainer: Any) -> None:
        """Begin the averages with what there is."""
        self.averages = [jax.tree.map(jax.numpy.copy, trainer.state.params) for _ in self.windows]
        self.updates, self.env = trainer.counters.updates, trainer.make(trainer.config.train.eval_envs)
        self.step = jax.jit(optax.incremental_update)

    def on_step(self, trainer: Any) -> None:
        """Follow the parameters, once for all updates of a step; score when it is time."""
        new, self.updates = trainer.counters.updates - self.updates, trainer.counters.updates
        for index, window in enumerate(self.windows if new else []):
            weight = 1 - (1 - 1 / window) ** new
            self.averages[index] = self.step(trainer.state.params, self.averages[index], weight)
        if trainer.counters.env_steps >= self.next:
            self.next += self.every
            scores = [self._score(trainer, params) for params in (trainer.state.params, *self.averages)]
            self.rows.append({"env_steps": trainer.counters.env_steps, "scores": scores})
            told = ", ".join(f"{mean:.0f} ± {deviation:.0f}" for mean, deviation in scores)
            trainer.screen.say(f"{trainer.counters.env_steps:>12,} as they are, then averaged: {told}")

    def _score(self, trainer: Any, params: Any) -> tuple[float, float]:
        seed, longest = trainer.config.seed, trainer.config.train.eval_max_length
        returns = evaluate(trainer.agent, params, self.env, self.episodes, seed, True, longest).returns
        return float(np.mean(returns)), float(np.std(returns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--draw", action="store_true", help="draw again: RUN is a result in JSON")
    parser.add_argument("--steps", type=int, default=3000, help="env steps to train further")
    parser.add_argument("--every", type=int, default=250)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--windows", type=int, nargs="+", default=[200, 500, 1000])
    args = parser.parse_args()
    if args.draw:
        draw(args.run)
        return
    config, begin = run_config(args.run), newest_step(args.run) or 0
    steps = begin + args.steps
    warm = int(2 * max(args.windows) / config.updates_per_env_step)
    scores = Scores(args.windows, begin + warm, args.every, args.episodes)
    name = f"{config.env.id.replace(':', '_')}-{config.seed}"
    train(
        dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps)),
        args.run, callbacks=scores,
    )  # fmt: skip
    labels = ["as they are", *(f"average over {window}" for window in args.windows)]
    content = {
        "env": config.env.id,
        "seed": config.seed,
        "episodes": args.episodes,
        "begin": begin,
        "labels": labels,
        "rows": scores.rows,
        "config": dreamer_agent.config.to_dict(config),
        "provenance": provenance(),
    }
    path = RESULTS / f"average_{name}.json"
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")
    draw(path)


def draw(path: Path) -> None:
    """The picture of a result, and its means and extremes as text."""
    content = json.loads(path.read_text())
    at = [row["env_steps"] for row in content["rows"]]
    means = np.array([[mean for mean, _ in row["scores"]] for row in content["rows"]])
    picture = figure(7.0, 4.4)
    axis = picture.subplots()
    for label, column, color in zip(content["labels"], means.T, SERIES, strict=False):
        axis.plot(at, column, color=color, marker=".", label=label)
        print(f"{label}: mean {column.mean():.1f}, least {column.min():.1f}, most {column.max():.1f}")
    axis.set(
        xlabel="env steps", ylabel=f"mean return of {content['episodes']} episodes with fixed parameters",
        title=f"{content['env']}: parameters of one moment and their averages over updates",
    )  # fmt: skip
    axis.xaxis.set_major_formatter(number)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False)
    save(picture, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
