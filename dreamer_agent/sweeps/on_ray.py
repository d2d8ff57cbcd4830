"""What a sweep asks of Ray: resources, early stopping, a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamer_agent.errors import ConfigError
from dreamer_agent.launch.ray_cluster import Options, options_of
from dreamer_agent.sweeps.runs import SweepRun
from dreamer_agent.sweeps.search import Search
from dreamer_agent.sweeps.sweep import Sweep


def asked(
    sweep: Sweep, runs: Sequence[SweepRun], folder: Path, given: Mapping[str, Any]
) -> tuple[Options, Search | None]:
    """The options, and the search where there is one.

    Raises `ConfigError` for what neither has, and for early stopping where returns cannot be compared.
    """
    options = options_of({key: value for key, value in given.items() if key != "optuna"})
    environments = sorted({run.setting.config.env.id for run in runs})
    if options.asha is not None and len(environments) > 1:
        raise ConfigError(
            f"ASHA compares returns, and the sweep '{sweep.name}' has several environments "
            f"({', '.join(environments)}): make a sweep of each, or leave ASHA out."
        )
    return options, Search(sweep, folder, given["optuna"]) if given.get("optuna") else None


def merged(given: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `given`, mapping by mapping."""
    out = dict(given)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merged(out[key], value) if both else value
    return out
