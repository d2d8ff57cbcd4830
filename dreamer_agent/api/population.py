"""Training several seeds at once, on the device."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamer_agent.api.configuration import default_folder
from dreamer_agent.api.runs import enable_compilation_cache
from dreamer_agent.config import Config, merge, validate
from dreamer_agent.errors import ConfigError
from dreamer_agent.training import Evaluation
from dreamer_agent.training.mesh import divide_cpu
from dreamer_agent.training.opening import EnvFactory


def train_population(
    config: Config, seeds: int | Sequence[int], folder: str | Path = "runs",
    hyper: Mapping[str, Sequence[float]] | None = None, quiet: bool = False, make: EnvFactory | None = None,
    allow: Collection[str] = (),
) -> list[list[Evaluation]]:  # fmt: skip
    """Train `seeds` (a number counts from `config.seed` on) as one program, and score each.

    `hyper` gives a value for each seed by keys of the configuration, {"optimizer.learning_rate": [1e-4, 3e-4]};
    only numbers of `training.population.HYPER` may differ. Each seed has a run directory of its own, ENV-SEED in
    `folder`, which is resumed where it exists and is like any other; `allow` is that of `train`. Gives two
    evaluations for each seed, with sampled actions and with the mode. Raises a `DreamerError` that says what to
    mend; the environment must be written in JAX.
    """
    from dreamer_agent.training.population import Population

    divide_cpu(seeds if isinstance(seeds, int) else len(seeds))
    enable_compilation_cache()
    configs = population_configs(config, seeds, hyper)
    folders = [Path(folder) / default_folder(each).name for each in configs]
    population = Population.open(configs, folders, make, quiet, allow)
    try:
        population.run(config.train.steps)
        return population.score()
    finally:
        population.close()


def train_together(
    configs: Sequence[Config], folders: Sequence[str | Path], quiet: bool = False
) -> list[list[Evaluation]]:
    """Train `configs`, which differ in seeds and numbers of `HYPER` only, as one program; a run in each folder.

    As `train_population`, for configurations that are at hand; those of the loop on the device
    (`train.loop=device`).
    """
    from dreamer_agent.training.population import Population

    divide_cpu(len(configs))
    enable_compilation_cache()
    population = Population.open(configs, [Path(folder) for folder in folders], None, quiet)
    try:
        population.run(configs[0].train.steps)
        return population.score()
    finally:
        population.close()


def population_configs(
    config: Config, seeds: int | Sequence[int], hyper: Mapping[str, Sequence[float]] | None = None
) -> list[Config]:
    """The configuration of each seed; `ConfigError` where `hyper` does not fit."""
    from dreamer_agent.training.population import HYPER

    numbers = list(range(config.seed, config.seed + seeds)) if isinstance(seeds, int) else list(seeds)
    if not numbers:
        raise ConfigError("A population of no seeds was asked for: ask for at least one.")
    hyper = hyper or {}
    for key, values in hyper.items():
        if key not in HYPER:
            raise ConfigError(
                f"'{key}' is the same in all of a population: what may differ is {', '.join(HYPER)}."
            )
        if len(values) != len(numbers):
            raise ConfigError(f"'{key}' has {len(values)} values for {len(numbers)} seeds: give one for each.")
    configs = []
    for index, seed in enumerate(numbers):
        changes: dict[str, Any] = {"seed": int(seed), "train": {"loop": "device"}}
        for key, values in hyper.items():
            group, name = key.split(".")
            changes.setdefault(group, {})[name] = values[index]
        configs.append(validate(merge(config, changes)))
    return configs
