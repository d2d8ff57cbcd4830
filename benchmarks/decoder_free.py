"""Learning with and without a decoder: the time of an update, and the return on a small pixel game.

    taskset -c 0 python -m benchmarks.decoder_free speed
    taskset -c 0 python -m benchmarks.decoder_free learning --seeds 0 --steps 12000

`speed` times updates of size 1m on images of 64 x 64 x 3: by reconstruction, decoder-free, with one that only
looks on, and without any. Their updates take turns, so that whatever else the machine does slows all of them, and
the time is that of the process's threads. `learning` trains toy:catch (preset `pixels`) by reconstruction and
decoder-free at equal env steps; runs that were cut short go on. Results go to
benchmarks/results/decoder_free.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import dreamer_agent
from dreamer_agent.agent import Agent
from dreamer_agent.config import load_config
from dreamer_agent.plots import curve
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training.metrics import read_metrics
from dreamer_agent.training.run_directory import provenance

RESULTS = Path(__file__).parent / "results" / "decoder_free.json"
WAYS = {
    "reconstruction": [],
    "decoder-free, with a probe": ["model.decoder_free=true"],
    "decoder-free": ["model.decoder_free=true", "model.probe=false"],
}
OBS, ACT = {"image": ArraySpec("image", (64, 64, 3))}, {"action": ArraySpec("discrete", (), 6)}


def updates_of(way: str, rows: int, length: int) -> Callable[[], float]:
    """One more update, already compiled; it returns the CPU seconds that this took."""
    sizes = [f"replay.batch_size={rows}", f"replay.batch_length={length}"]
    agent = Agent.create(load_config(["size/1m"], [*sizes, *WAYS[way]]), OBS, ACT)
    batch, held = _batch(agent), [jax.jit(agent.init)(jax.random.PRNGKey(0))]
    update = jax.jit(agent.update, donate_argnums=0)

    def once() -> float:
        start = time.process_time()
        held[0] = jax.block_until_ready(update(held[0], batch)[0])
        return time.process_time() - start

    once()
    return once


def _batch(agent: Agent) -> dict[str, Any]:
    """Of random pixels; episodes neither begin nor end."""
    replay, model, rng = agent.config.replay, agent.config.model, np.random.default_rng(0)
    shape = replay.batch_size, replay.batch_length + 1
    flags = {name: np.zeros(shape, bool) for name in ("is_first", "is_last", "is_terminal")}
    latent = {
        "deter": np.zeros((*shape, model.deter), np.float32),
        "stoch": np.zeros((*shape, model.stoch), np.uint8),
    }
    image = rng.integers(0, 256, (*shape, 64, 64, 3), np.uint8)
    action = rng.integers(0, 6, shape, np.int32)
    reward = rng.normal(size=shape).astype(np.float32)
    given = {"obs": {"image": image}, "action": {"action": action}, "reward": reward, "latent": latent, **flags}
    return jax.tree.map(jax.numpy.asarray, given)


def speed(rounds: int, rows: int, length: int) -> dict[str, Any]:
    """Seconds of every way in `rounds` turns, and their ratios to reconstruction turn by turn."""
    updates = {way: updates_of(way, rows, length) for way in WAYS}
    seconds = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, once in updates.items():
            seconds[way].append(once())
    base = np.array(seconds["reconstruction"])
    ratios = {way: np.array(taken) / base for way, taken in seconds.items() if way != "reconstruction"}
    return {
        "batch": [rows, length],
        "rounds": rounds,
        "cpu_seconds": {way: float(np.median(taken)) for way, taken in seconds.items()},
        "ratio": {way: [float(x) for x in np.quantile(r, (0.25, 0.5, 0.75))] for way, r in ratios.items()},
        "provenance": provenance(),
    }


def learned(way: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """The curve of training episodes and the final score on fresh ones."""
    settings = ["env.id=toy:catch", f"train.steps={steps}", f"seed={seed}", *WAYS[way]]
    dreamer_agent.train(load_config(["pixels"], settings), folder)
    score = dreamer_agent.evaluate_run(folder, 100, True).summary()
    trained = [values.tolist() for values in curve(read_metrics(folder))]
    return {
        "way": way,
        "seed": seed,
        "steps": steps,
        "score": score,
        "curve": trained,
        "provenance": provenance(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "learning"))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch", type=int, nargs=2, default=[16, 64])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=["reconstruction", "decoder-free"])
    parser.add_argument("--runs", type=Path, default=Path("runs/decoder_free"))
    asked = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if asked.what == "speed":
        results["speed"] = speed(asked.rounds, *asked.batch)
    for seed in asked.seeds if asked.what == "learning" else []:
        for way in asked.ways:
            name = f"{way}-{seed}"
            folder = asked.runs / name.replace(" ", "_").replace(",", "")
            results.setdefault("learning", {})[name] = learned(way, seed, asked.steps, folder)
            write(results)
    write(results)


def write(results: dict[str, Any]) -> None:
    """What there is so far."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
