"""The command line: train, evaluate, dream, plot, config, envs."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from dreamer_agent.config import Config, all_keys, load_config, merge, preset_names, to_dict
from dreamer_agent.errors import ConfigError, DreamerError

app = typer.Typer(
    help="Dreamer in JAX: learns a world model of an environment, and a policy inside it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Preset = Annotated[
    list[str] | None, typer.Option("--preset", "-p", help="Preset name or YAML file; later ones win.")
]
Size = Annotated[str | None, typer.Option(help="Model size: nano, tiny, 1m, 12m, ... 400m.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Any configuration value, as key=value (`dreamer-agent config`).")
]
Run = Annotated[Path, typer.Argument(help="A run directory, as made by `train`.")]


@app.command()
def train(
    env: Annotated[str, typer.Argument(help="Environment: a gymnasium id, module:Id-v0, or suite:task.")],
    overrides: Overrides = None,
    preset: Preset = None,
    size: Size = None,
    steps: Annotated[int | None, typer.Option(help="Env steps to train for.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run directory (default runs/ENV-SEED); an existing run resumes.")
    ] = None,
) -> None:
    """Train an agent, score it, and draw what it learned."""
    from dreamer_agent import api, plots

    config = _configuration(env, overrides, preset, size, steps, seed)
    folder = run or Path("runs") / f"{config.env.id.replace(':', '_').replace('/', '_')}-{config.seed}"
    api.train(config, folder)
    pictures = [plots.plot_runs([folder], folder / "learning_curve.png"), *plots.plot_dream(folder)]
    Console().print("pictures: " + ", ".join(str(path) for path in pictures), soft_wrap=True)


@app.command()
def evaluate(
    run: Run,
    episodes: Annotated[int, typer.Option(help="Number of episodes.")] = 20,
    mode: Annotated[bool, typer.Option("--mode", help="Take the likeliest action; else sample.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the episodes (default: the run's).")] = None,
) -> None:
    """Score the newest checkpoint of a run on fresh episodes."""
    from dreamer_agent import api

    result = api.evaluate_run(run, episodes, explore=not mode, seed=seed).summary()
    table = Table(title=f"{run}: {result['policy']} actions, {result['episodes']} episodes")
    for key in ("return_mean", "return_std", "return_min", "return_max", "length_mean"):
        table.add_column(key.replace("_", " "))
    table.add_row(*(f"{result[column.header.replace(' ', '_')]:.2f}" for column in table.columns))  # type: ignore[union-attr]
    Console().print(table)


@app.command()
def dream(
    run: Run,
    length: Annotated[int, typer.Option(help="Steps of a sequence; the first half is observed.")] = 50,
    sequences: Annotated[int, typer.Option(help="Sequences to draw.")] = 3,
) -> None:
    """Draw what the world model of a run imagines, beside what happened."""
    from dreamer_agent import plots

    for path in plots.plot_dream(run, length, sequences):
        typer.echo(path)


@app.command()
def plot(
    runs: Annotated[list[Path], typer.Argument(help="Run directories; those of one environment share a band.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("learning_curves.png"),
    goal: Annotated[float | None, typer.Option(help="A return to mark.")] = None,
) -> None:
    """Draw learning curves of runs."""
    from dreamer_agent import plots

    typer.echo(plots.plot_runs(runs, out, goal))


@app.command("config")
def show_config(overrides: Overrides = None, preset: Preset = None, size: Size = None) -> None:
    """Print the configuration that presets and overrides give, and the presets there are."""
    typer.echo(yaml.safe_dump(to_dict(_configuration(None, overrides, preset, size)), sort_keys=False))
    typer.echo(f"# {len(all_keys())} values, each set by key=value; presets: {', '.join(preset_names())}")


@app.command()
def envs() -> None:
    """List the suites beside gymnasium's own ids."""
    from dreamer_agent.envs import SUITES

    for name, factory in sorted(SUITES.items()):
        typer.echo(f"{name}:TASK".ljust(18) + (factory.__doc__ or "").strip().partition("\n")[0])
    typer.echo("anything else".ljust(18) + "A gymnasium id; module:Id-v0 imports the module first.")


def _configuration(
    env: str | None, overrides: list[str] | None, presets: list[str] | None, size: str | None,
    steps: int | None = None, seed: int | None = None,
) -> Config:  # fmt: skip
    names = [*(presets or []), *([f"size/{size}"] if size else [])]
    config = load_config(names, overrides or [])
    changes: dict = {"env": {"id": env}} if env else {}
    if steps is not None:
        changes["train"] = {"steps": steps}
    if seed is not None:
        changes["seed"] = seed
    return merge(config, changes)


def main() -> None:
    """Run the command line; errors that the user can mend are one sentence and exit code 2."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        app()
    except DreamerError as error:
        kind = "configuration" if isinstance(error, ConfigError) else "error"
        typer.echo(f"{kind}: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
