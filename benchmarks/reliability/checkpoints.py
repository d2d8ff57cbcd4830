"""What a checkpoint of a large replay costs: how long training waits, and what is written beside it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dreamer_agent.agent import Agent
from dreamer_agent.config import load_config
from dreamer_agent.replay import HostReplay
from dreamer_agent.replay.host import map_layout
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training.budget import layout_of
from dreamer_agent.training.checkpoints import Checkpoints, Snapshot, on_host
from dreamer_agent.training.opening import make_replay


def measured(size: str, steps: int, ratio: float, every: int, folder: Path, rounds: int = 4) -> dict[str, Any]:
    """Checkpoints every `every` env steps of a run whose replay holds `steps`, 24 numbers observed."""
    config = load_config(
        [f"size/{size}"],
        [f"replay.capacity={steps}", f"train.steps={10 * steps}", "env.num_envs=16", "precision=float32"],
    )
    agent = Agent.create(config, {"obs": ArraySpec("continuous", (24,))}, {"act": ArraySpec("continuous", (6,))})
    state = jax.jit(agent.init)(jax.random.PRNGKey(0))
    replay, rng = make_replay(config, agent), np.random.default_rng(0)
    row = map_layout(lambda shape, dtype: rng.integers(0, 2, (16, *shape)).astype(dtype), layout_of(agent))
    _go_on(replay, row, steps + every, 0)
    checkpoints = Checkpoints(folder)
    updates = int(every * ratio / (config.replay.batch_size * config.replay.batch_length))
    names = ("blocked_s", "written_s", "longest_update_s", "longest_update_alone_s", "gb", "rows_changed")
    out: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        start = time.monotonic()
        difference = replay.save_later(checkpoints.since)
        agent_copy, mark = on_host(state), replay.mark()
        checkpoints.save(Snapshot(1000 + number, agent_copy, {}, difference, mark))
        blocked = time.monotonic() - start
        beside = _go_on(replay, row, 0, updates // 4)  # the first of them are made while it is written
        checkpoints.settle()
        assert not checkpoints.failure and checkpoints.index is not None
        written = [f for f in checkpoints.index.files if f.name[:-4].split("-")[1] == f"{number + 1:06d}"]
        if number:  # the first one holds everything
            out["blocked_s"].append(round(blocked, 3))
            out["written_s"].append(round(time.monotonic() - start - blocked, 3))
            out["gb"].append(round(sum(file.bytes for file in written) / 1e9, 4))
            out["rows_changed"].append(sum(file.rows for file in written if file.name.startswith("changed")))
            out["longest_update_s"].append(round(beside, 3))
        else:
            first = {"blocked_s": round(blocked, 3), "gb": round(sum(f.bytes for f in written) / 1e9, 3)}
        alone = _go_on(replay, row, every, updates - updates // 4)
        if number:
            out["longest_update_alone_s"].append(round(alone, 3))
    checkpoints.close()
    return {"size": size, "replay_steps": steps, "ratio": ratio, "every": every, "first": first, **out}


def _go_on(replay: HostReplay, row: dict[str, Any], env_steps: int, updates: int) -> float:
    """Steps and updates as a run makes them, without the learner; the seconds of the longest update."""
    for _ in range(env_steps // 16):
        replay.add(row)
    longest = 0.0
    for _ in range(updates):
        start = time.monotonic()
        batch, ids = replay.sample()
        replay.update_latents(ids, {key: value[:, replay.context :] for key, value in batch["latent"].items()})
        longest = max(longest, time.monotonic() - start)
    return longest
