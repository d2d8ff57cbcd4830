"""Runs of a benchmark that nobody trained: folders with the files that a run leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dreamer_agent.bench.baselines import SETTINGS, asked_of
from dreamer_agent.bench.benchmark import OURS
from dreamer_agent.bench.jobs import Job
from dreamer_agent.config import save_config

PROVENANCE = {
    "python": "3.11.0", "platform": "somewhere", "packages": {"dreamer-agent": None, "jax": "0.10.2"},
    "commit": "0123456789ab", "backend": "cpu", "device": "cpu", "cpu_cores": 1,
}  # fmt: skip


def summary(score: float, policy: str) -> dict:
    return {
        "policy": policy, "episodes": 4, "return_mean": score, "return_std": 1.0, "return_min": score - 1,
        "return_max": score + 1, "length_mean": 10.0, "length_max": 10, "episodes_cut": 0, "faults": 0,
    }  # fmt: skip


def finish(job: Job, returns: Sequence[float], score: float, mode: float | None = None, each: int = 5) -> None:
    """`returns[i]` is the mean return of `each` episodes, logged at equal parts of the budget."""
    job.folder.mkdir(parents=True, exist_ok=True)
    part = job.steps / len(returns)
    rows = [
        {
            "step": int((i + 1) * part),
            "episode/return": r,
            "episode/count": each * (i + 1),
            "time/env_steps_per_s": 50,
        }
        for i, r in enumerate(returns)
    ]
    (job.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = [summary(score, "sample"), summary(score if mode is None else mode, "mode")]
    content = {"env_steps": job.steps, "updates": 7, "scores": scores}
    (job.folder / "evaluation.json").write_text(json.dumps(content))
    (job.folder / "provenance.json").write_text(json.dumps(PROVENANCE))
    if job.method == OURS:
        save_config(job.task.config(job.seed, job.episodes), job.folder / "config.yaml")
        return
    asked = asked_of(job.method, job.task.env_config(job.method), job.steps, job.seed, job.episodes)
    (job.folder / SETTINGS).write_text(json.dumps(asked))
