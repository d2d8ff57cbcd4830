"""Commands that train one agent, and that look before they do: train, check, config, envs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.console import Console

from dreamer_agent.cli.options import Env, Overrides, Preset, Size, app, configuration
from dreamer_agent.config import Config, all_keys, preset_names
from dreamer_agent.errors import ConfigError, DreamerError, EnvironmentFault, SpaceError
from dreamer_agent.interrupt import REQUEUE, requeued
from dreamer_agent.registry import in_one_line
from dreamer_agent.values import to_dict

if TYPE_CHECKING:
    from dreamer_agent.envs.catalogue import Library


@app.command()
def train(
    env: Env,
    overrides: Overrides = None,
    preset: Preset = None,
    size: Size = None,
    steps: Annotated[int | None, typer.Option(help="Env steps to train for.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run directory (default runs/ENV-SEED); an existing run resumes.")
    ] = None,
    init_from: Annotated[
        str | None, typer.Option(help="A run or exported agent whose weights a fresh run starts from.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Train so many seeds as one program, RUN/ENV-SEED each; for environments in JAX.", min=1
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="A value that may differ from that of the run that is resumed; may be repeated."),
    ] = None,
    distributed: Annotated[
        str | None,
        typer.Option(
            help="Train one run in several processes: HOST:PORT of the first one, or auto (Slurm, MPI, TPU).",
        ),
    ] = None,
    processes: Annotated[int | None, typer.Option(help="How many processes there are.", min=1)] = None,
    process: Annotated[int | None, typer.Option(help="Which of them this is, from 0.", min=0)] = None,
) -> None:
    """Train an agent, score it, and draw what it learned.

    Without --preset, one is chosen by what the environment observes. The same command goes on where it stopped,
    also after a kill. Exit code 75: it was asked to stop (Ctrl-C, SIGTERM) and has saved; start it again.
    """
    folder = run
    try:
        with requeued():
            from dreamer_agent import api
            from dreamer_agent.training.mesh import divide_cpu

            _join(distributed, processes, process, seeds)
            if seeds:  # before an environment in JAX is looked at
                divide_cpu(seeds)
            config = configuration(env, overrides, preset or ["auto"], size, steps, seed, init_from)
            folder = run or (Path("runs") if seeds else api.default_folder(config))
            if seeds:
                _train_seeds(config, seeds, folder, allow or ())
            else:
                _train(config, folder, allow or ())
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != REQUEUE:  # of a plugin, say: trying again would not help
            raise
        learned = f"; what was learned is in {folder}" if folder and folder.exists() else ""
        typer.echo(f"stopped{learned}; the same command goes on from there", err=True)
        raise typer.Exit(REQUEUE) from None


def _join(address: str | None, processes: int | None, process: int | None, seeds: int | None) -> None:
    """Have this process join the others of its run, if there are any."""
    if address is None:
        if processes is not None or process is not None:
            raise ConfigError(
                "--processes and --process need --distributed HOST:PORT: that of the first process."
            )
        return
    if seeds:
        raise ConfigError(
            "--seeds trains several runs in one process, --distributed one run in several: choose one."
        )
    from dreamer_agent.launch.join import join

    join(address, processes, process)


def _train(config: Config, folder: Path, allow: list[str] | tuple[str, ...]) -> None:
    """Train a run, and draw what it learned."""
    import psutil

    from dreamer_agent import api, plots
    from dreamer_agent.launch.join import first

    api.train(config, folder, began=psutil.Process().create_time(), allow=allow)
    if not first():
        return
    try:
        pictures = [plots.plot_runs([folder], folder / "learning_curve.png"), *plots.plot_dream(folder)]
    except Exception as error:  # a dream makes environments of its own, which may fail in many ways
        why = in_one_line(error)
        typer.echo(f"{folder} is trained and scored, but could not be drawn whole ({why}): see `dream`", err=True)
        return
    Console().print("pictures: " + ", ".join(str(path) for path in pictures), soft_wrap=True)


def _train_seeds(config: Config, seeds: int, folder: Path, allow: list[str] | tuple[str, ...]) -> None:
    """Train a population, and draw its learning curves."""
    from dreamer_agent import api, plots

    api.train_population(config, seeds, folder, allow=allow)
    runs = [folder / api.default_folder(each).name for each in api.population_configs(config, seeds)]
    picture = plots.plot_runs(runs, folder / f"{runs[0].name}-and-{seeds - 1}-more.png")
    Console().print(f"picture: {picture}", soft_wrap=True)


@app.command()
def check(
    env: Env,
    overrides: Overrides = None,
    preset: Preset = None,
    size: Size = None,
    steps: Annotated[int | None, typer.Option(help="Env steps that the run would train for.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None,
    init_from: Annotated[
        str | None, typer.Option(help="A run or exported agent whose weights a fresh run starts from.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the timing, which compiles.")] = False,
) -> None:
    """Look at an environment before a long run: encodings, ranges, faults, memory, speed, time to train.

    Takes the options of train and describes the run that they would start. Exit code 2 if that cannot train.
    """
    from dreamer_agent.api.check import check as look
    from dreamer_agent.api.check import raise_problems

    try:
        config = configuration(env, overrides, preset or ["auto"], size, steps, seed, init_from)
    except Exception as error:
        if isinstance(error, DreamerError) and not isinstance(error, SpaceError | EnvironmentFault):
            raise
        # What the environment observes is unknown, so no preset can be chosen by it; the report says what broke.
        config = configuration(env, overrides, preset, size, steps, seed, init_from)
    raise_problems(look(config, quick=quick))


@app.command("config")
def show_config(overrides: Overrides = None, preset: Preset = None, size: Size = None) -> None:
    """Print the configuration that presets and overrides give, and the presets there are."""
    typer.echo(yaml.safe_dump(to_dict(configuration(None, overrides, preset, size)), sort_keys=False))
    typer.echo(f"# {len(all_keys())} values, each set by key=value; presets: {', '.join(preset_names())}")


@app.command()
def envs(
    suite: Annotated[str | None, typer.Argument(help="List the tasks of this suite.")] = None,
) -> None:
    """List the suites, what of them is installed, and how the others are; with a suite, its tasks."""
    from dreamer_agent.envs import SUITES
    from dreamer_agent.envs.catalogue import GROUPS, LIBRARIES, tasks_of
    from dreamer_agent.envs.sources import OBJECT

    if suite is not None:
        typer.echo("\n".join(tasks_of(suite)))
        return
    for name in SUITES:
        if name not in (OBJECT, "dream"):
            typer.echo(f"{name}:TASK".ljust(18) + SUITES.describe(name) + _how(LIBRARIES.get(name)))
    for name, library in GROUPS.items():
        typer.echo(name.ljust(18) + "Ids of gymnasium, written without a suite." + _how(library))
    typer.echo(
        "module:Class".ljust(18) + "A class or function of yours that makes a gymnasium environment or a JaxEnv."
    )
    typer.echo("dream:RUN".ljust(18) + "A run of yours as its world model dreams it (docs/dream_env.md).")
    typer.echo("anything else".ljust(18) + "A gymnasium id; module:Id-v0 imports the module first.")
    typer.echo("The tasks of a suite: dreamer-agent envs SUITE. In a checkout, write '.[EXTRA]' to pip.")


def _how(library: Library | None) -> str:
    """Whether a library is installed, or the command that does it; nothing of one that needs none."""
    if library is None or not library.modules:
        return ""
    return " [installed]" if library.installed else f" [{library.command}]"
