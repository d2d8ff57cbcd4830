"""What a user calls: the `Dreamer` class, and functions over run directories."""

from dreamer_agent.api.configuration import configure, default_folder
from dreamer_agent.api.dreamer import Dreamer
from dreamer_agent.api.dreaming import dream_env, dream_vector_env, load_dream
from dreamer_agent.api.export import export_agent
from dreamer_agent.api.policy import Policy
from dreamer_agent.api.population import population_configs, train_population, train_together
from dreamer_agent.api.presets import auto_presets
from dreamer_agent.api.reports import dream_report
from dreamer_agent.api.runs import (
    LoadedRun,
    dream_run,
    enable_compilation_cache,
    evaluate_run,
    load_run,
    load_saved,
    output_folder,
    pretrained_names,
    run_config,
    run_folder,
    run_metrics,
    train,
    with_planner,
)

__all__ = [
    "Dreamer",
    "LoadedRun",
    "Policy",
    "auto_presets",
    "configure",
    "default_folder",
    "dream_env",
    "dream_report",
    "dream_run",
    "dream_vector_env",
    "enable_compilation_cache",
    "evaluate_run",
    "export_agent",
    "load_dream",
    "load_run",
    "load_saved",
    "output_folder",
    "population_configs",
    "pretrained_names",
    "run_config",
    "run_folder",
    "run_metrics",
    "train",
    "train_population",
    "train_together",
    "with_planner",
]
