"""The configuration of a run, from presets and overrides in any of their forms and a look at the environment."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamer_agent.api.presets import AUTO, auto_presets
from dreamer_agent.api.runs import run_folder
from dreamer_agent.config import Config, load_config, merge, validate
from dreamer_agent.envs import Source
from dreamer_agent.registry import import_plugins
from dreamer_agent.training.mesh import divide_cpu
from dreamer_agent.values import parse_override

Overrides = Mapping[str, Any] | Sequence[str]


def configure(
    presets: Sequence[str],
    size: str | None,
    overrides: Overrides,
    fixed: Mapping[str, Any],
    source: Source | None,
) -> Config:
    """The configuration of presets ("auto" is resolved by looking at the environment), size, overrides and
    `fixed`."""
    changes = _nested(overrides)
    names = [name for name in presets if name != AUTO]
    if AUTO in presets and source is not None:
        base = merge(merge(load_config(names), changes), fixed)
        import_plugins(base.plugins)
        divide_cpu(devices=base.mesh.data * base.mesh.fsdp)  # before JAX is asked what device there is
        env = source.make(base.env, source.borrowed or 1)
        try:
            names = [*auto_presets(env.obs_specs), *names]
        finally:
            env.close()
    config = load_config([*names, *([f"size/{size}"] if size else [])])
    config = validate(merge(merge(config, changes), fixed))
    if config.init_from:
        config = dataclasses.replace(config, init_from=str(run_folder(config.init_from)))
    return config


def default_folder(config: Config) -> Path:
    """runs/ENV-SEED, in letters that any file system and shell takes."""
    return Path("runs") / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', config.env.id)}-{config.seed}"


def _nested(overrides: Overrides) -> dict[str, Any]:
    """Overrides in any of their forms as nested dicts."""
    out: dict[str, Any] = {}
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            _put(out, key.split("."), value)
    else:
        for text in [overrides] if isinstance(overrides, str) else overrides:
            _update(out, parse_override(text))
    return out


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    nested = value
    for part in reversed(path):
        nested = {part: nested}
    _update(tree, nested)


def _update(tree: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _update(tree[key], value)
        else:
            tree[key] = dict(value) if isinstance(value, Mapping) else value
