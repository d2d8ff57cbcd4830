"""What a run of a benchmark depends on: its values, whether two runs have the same, and a hash of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from dreamer_agent.bench.benchmark import OURS, Task
from dreamer_agent.config import Config, read_yaml
from dreamer_agent.values import flatten, to_dict

NOT_LEARNED_FROM = ("train.", "mesh.", "env.processes", "env.ray")
HASHED = ("train.steps", "train.loop", "train.max_skipped", "train.updates_per_dispatch")  # of train.*
BEFORE = {"optimizer.average": 1.0}  # what was done before there was such a value, where its default is another
ABSENT = "(none)"  # what stands for a value that there is not
GONE = ("env.isolate",)  # values that nothing was learned from, and that there are no more


def values_of(task: Task, method: str = OURS) -> dict[str, Any]:
    """Every value that a run of the task depends on, but the seed, by its dotted key."""
    if method == OURS:
        return _learned_from(to_dict(task.config(0, 1)))
    from dreamer_agent.bench.baselines import asked_of

    kept = flatten(asked_of(method, task.env_config(method), task.steps_of(method), 0, 1))
    return _plain({key: value for key, value in kept.items() if key not in ("episodes", "seed")})


def held_values(folder: Path) -> dict[str, Any]:
    """Those of our run in `folder`, as it wrote them: without what did not exist then.

    Raises `ConfigError` or `OSError` where its configuration cannot be read.
    """
    return _learned_from(read_yaml(folder / "config.yaml"))


def difference(held: dict[str, Any], asked: dict[str, Any]) -> str:
    """The first value in which a run differs from what is asked for, as a part of a sentence; empty for none."""
    held = _completed(held, asked)
    for key in sorted(held | asked):
        before, now = held.get(key, ABSENT), asked.get(key, ABSENT)
        if before != now:
            return f"{key}={before}, but {key}={now} is asked for"
    return ""


def _learned_from(config: dict[str, Any]) -> dict[str, Any]:
    values = flatten(config)
    kept = {key: value for key, value in values.items() if not key.startswith(NOT_LEARNED_FROM)}
    kept |= {key: values[key] for key in HASHED if key in values}
    kept.pop("seed", None)
    return _plain(kept)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back."""
    return json.loads(json.dumps(values, default=str))


def same_values(held: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether a run that was made with the values `held` is one of `asked`.

    A value that did not exist when it was made counts as what the code did then: its default, or `BEFORE`.
    """
    return not difference(held, asked)


def _completed(held: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    defaults = _plain(flatten(to_dict(Config())) | BEFORE)
    new = {key: value for key, value in defaults.items() if key in asked and key not in held}
    return new | {key: value for key, value in held.items() if key not in GONE}


def hash_of(values: dict[str, Any]) -> str:
    """The first letters of a hash over those that are not a default of ours: what a later version adds to the
    configuration, and leaves as it was, changes no hash.
    """
    defaults = _plain(flatten(to_dict(Config())))
    before = {key: value for key, value in BEFORE.items() if "optimizer.learning_rate" in values}
    kept = {key: value for key, value in (before | values).items() if key not in GONE}
    special = {key: value for key, value in kept.items() if key not in defaults or defaults[key] != value}
    return hashlib.sha256(json.dumps(special, sort_keys=True).encode()).hexdigest()[:12]
