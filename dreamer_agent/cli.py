"""The command line: train, evaluate, dream, plot, check, export, bench, sweep, config, envs."""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from dreamer_agent.config import Config, all_keys, preset_names, to_dict
from dreamer_agent.errors import ConfigError, DreamerError, EnvironmentFault, ProcessLostError, SpaceError
from dreamer_agent.interrupt import REQUEUE, requeued
from dreamer_agent.registry import in_one_line

if TYPE_CHECKING:
    from dreamer_agent.envs.catalogue import Library

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
Env = Annotated[
    str, typer.Argument(help="A gymnasium id (module:Id-v0 imports first), module:Class, or suite:task.")
]
Run = Annotated[
    str, typer.Argument(help="A run directory, an exported agent, or pretrained:NAME for one that ships with us.")
]

Planner = Annotated[
    str | None,
    typer.Option(
        help="Act by planning: mppi, cem, shooting, gradient or tree, with settings behind a colon "
        "(mppi:samples=256,horizon=8); none: by the policy (default: as in training)."
    ),
]


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
            config = _configuration(env, overrides, preset or ["auto"], size, steps, seed, init_from)
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
def evaluate(
    run: Run,
    episodes: Annotated[int, typer.Option(help="Number of episodes.", min=1)] = 20,
    mode: Annotated[bool, typer.Option("--mode", help="Take the likeliest action; else sample.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the episodes (default: the run's).")] = None,
    video: Annotated[
        bool, typer.Option("--video", help="Also write videos of up to three episodes to RUN/videos/.")
    ] = False,
    best: Annotated[
        bool, typer.Option("--best", help="The checkpoint with the best return; else the newest.")
    ] = False,
    planner: Planner = None,
) -> None:
    """Score the newest checkpoint of a run on fresh episodes."""
    from dreamer_agent import api, plots

    result = api.evaluate_run(run, episodes, not mode, seed, best, planner).summary()
    table = Table(title=f"{run}: {result['policy']} actions, {result['episodes']} episodes")
    for key in ("return_mean", "return_std", "return_min", "return_max", "length_mean"):
        table.add_column(key.replace("_", " "))
    table.add_row(*(f"{result[column.header.replace(' ', '_')]:.2f}" for column in table.columns))  # type: ignore[union-attr]
    Console().print(table)
    if result["episodes_cut"]:
        typer.echo(f"{result['episodes_cut']} did not end and were cut at train.eval_max_length env steps")
    if video:
        for path in plots.plot_episodes(run, min(episodes, 3), not mode, seed, best, planner):
            typer.echo(path)


@app.command()
def dream(
    run: Run,
    length: Annotated[
        int | None, typer.Option(help="Steps of a sequence (default: 50, or less where episodes are shorter).")
    ] = None,
    observed: Annotated[
        int | None, typer.Option(help="How many of them are observed (default: half; with --report: 5).")
    ] = None,
    sequences: Annotated[int, typer.Option(help="Sequences to draw.", min=1)] = 3,
    report: Annotated[
        bool, typer.Option("--report", help="Measure instead: a table, RUN/dream/report.json and report.png.")
    ] = False,
    windows: Annotated[int, typer.Option(help="With --report: from how many starts is imagined.", min=1)] = 64,
    horizons: Annotated[
        str, typer.Option(help="With --report: after how many imagined steps is compared.")
    ] = "1,5,10,20,50",
) -> None:
    """Draw what the world model of a run imagines, beside what happened: pictures, and videos of images.

    With --report it is measured by horizon, beside what knows less.
    """
    from dreamer_agent import plots

    if report:
        plots.show_report(run, windows, horizons, observed)
        return
    for path in plots.plot_dream(run, length, sequences, observed):
        typer.echo(path)


@app.command()
def play(
    run: Run,
    terminal: Annotated[bool, typer.Option("--terminal", help="In this terminal; else in a browser.")] = False,
    steps: Annotated[
        int | None, typer.Option(help="Show nothing: let --who play so many steps, for --record.", min=1)
    ] = None,
    who: Annotated[str, typer.Option(help="With --steps: policy, or a planner as of evaluate.")] = "policy",
    record: Annotated[
        Path | None, typer.Option(help="Write what was played to this GIF (and MP4) at the end.")
    ] = None,
    real: Annotated[bool, typer.Option(help="Beside the real environment, where that can be made.")] = True,
    temperature: Annotated[
        float, typer.Option(help="Of the dream: 1 as trained, 0 without chance.", min=0)
    ] = 1.0,
    fps: Annotated[float, typer.Option(help="Steps a second.", min=0.1)] = 10.0,
    port: Annotated[int, typer.Option(help="Of the page, on this machine alone; 0: any.", min=0)] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    seed: Annotated[int, typer.Option(help="Of the first episode.")] = 0,
    best: Annotated[
        bool, typer.Option("--best", help="The checkpoint with the best return; else the newest.")
    ] = False,
) -> None:
    """Play inside the world model of a run by keyboard, beside the real environment, or watch the policy."""
    from dreamer_agent import play as game
    from dreamer_agent.api import output_folder

    session = game.open_session(run, real, seed, best, temperature=temperature)
    recorder = game.Recorder(record or output_folder(run) / "videos" / "played.gif", fps)
    try:
        if steps:
            game.play_steps(session, recorder, steps, who)
            moment = session.moment
            typer.echo(f"{moment.steps} steps, predicted return {moment.dream.total:.2f}", nl=not moment.real)
            typer.echo(f", real return {moment.real.total:.2f}" if moment.real else "", nl=bool(moment.real))
        elif terminal:
            game.play_terminal(session, recorder, fps)
        else:
            server = game.play_browser(session, recorder, fps, port, browser)
            typer.echo(f"play at {server.url} (Ctrl-C ends)")
            server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        session.close()
    if record and recorder.moments:
        for path in recorder.write():
            typer.echo(path)


@app.command()
def plot(
    runs: Annotated[list[Path], typer.Argument(help="Run directories (seeds share a band), or that of a sweep.")],
    out: Annotated[
        Path | None, typer.Option(help="The PNG to write (learning_curves.png); of a sweep the folder.")
    ] = None,
    goal: Annotated[float | None, typer.Option(help="A return to mark.")] = None,
    x: Annotated[str, typer.Option("--x", help="Of a sweep: steps, frames, updates or minutes.")] = "steps",
    group: Annotated[str, typer.Option(help="Of a sweep: the key that has a panel for each value.")] = "env",
    compare: Annotated[
        str | None, typer.Option(help="Of a sweep: the key that has a line for each value.")
    ] = None,
) -> None:
    """Draw learning curves of runs; of a sweep also a table with intervals."""
    from dreamer_agent import plots
    from dreamer_agent.sweeps.command import is_sweep, report_of

    if len(runs) == 1 and is_sweep(runs[0]):
        typer.echo(report_of(runs[0], x, group, compare, out, goal))
    else:
        typer.echo(plots.plot_runs(runs, out or Path("learning_curves.png"), goal))


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
        config = _configuration(env, overrides, preset or ["auto"], size, steps, seed, init_from)
    except Exception as error:
        if isinstance(error, DreamerError) and not isinstance(error, SpaceError | EnvironmentFault):
            raise
        # What the environment observes is unknown, so no preset can be chosen by it; the report says what broke.
        config = _configuration(env, overrides, preset, size, steps, seed, init_from)
    raise_problems(look(config, quick=quick))


@app.command()
def export(
    run: Run,
    out: Annotated[Path, typer.Argument(help="The new folder to write.")],
    program: Annotated[bool, typer.Option(help="Also write policy.jax, which runs with JAX alone.")] = True,
    best: Annotated[
        bool, typer.Option("--best", help="The checkpoint with the best return; else the newest.")
    ] = False,
) -> None:
    """Write the policy of a run alone: weights as npz, spaces, configuration, and a program for jax.export."""
    from dreamer_agent.api import Dreamer

    for name, gap in Dreamer.load(run, best=best).export(out, program).items():
        typer.echo(f"parity of {name}: largest difference {gap:.2g}")
    typer.echo(out)


@app.command("config")
def show_config(overrides: Overrides = None, preset: Preset = None, size: Size = None) -> None:
    """Print the configuration that presets and overrides give, and the presets there are."""
    typer.echo(yaml.safe_dump(to_dict(_configuration(None, overrides, preset, size)), sort_keys=False))
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


@app.command()
def bench(
    names: Annotated[
        list[str],
        typer.Argument(help="A benchmark, a YAML file of one, or ids of environments; key=value for all tasks."),
    ],
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be repeated.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="dreamer, ppo, sac or random; may be repeated (default: its own).")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds 0, 1, ... of each task.", min=1)] = None,
    first_seed: Annotated[int, typer.Option(help="The first of them.", min=0)] = 0,
    steps: Annotated[int | None, typer.Option(help="Env steps of each run.", min=1)] = None,
    preset: Preset = None,
    size: Size = None,
    episodes: Annotated[int | None, typer.Option(help="Episodes that score a final policy.", min=1)] = None,
    jobs: Annotated[int, typer.Option(help="Runs at a time, each on its share of the cores.", min=1)] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs (default runs/bench/NAME).")] = None,
    report: Annotated[Path | None, typer.Option(help="Folder of the report (default: that of the runs).")] = None,
    only_report: Annotated[bool, typer.Option("--only-report", help="Train nothing.")] = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit code 1 if a task's median score is below its gate.")
    ] = False,
) -> None:
    """Train and score a benchmark, and write a report with published results beside it.

    The same command goes on where it stopped; finished runs are kept.
    """
    from dreamer_agent.bench.benchmark import load_benchmark, with_settings
    from dreamer_agent.bench.command import run_benchmark

    overrides = [name for name in names if "=" in name]
    benchmark = load_benchmark([name for name in names if "=" not in name], preset or [])
    benchmark = with_settings(
        benchmark, steps, size, overrides=overrides, episodes=episodes,
        methods=tuple(method) if method else None,
    )  # fmt: skip
    count = benchmark.seeds if seeds is None else seeds
    folder = out or Path("runs") / "bench" / benchmark.name
    code = run_benchmark(
        benchmark, folder, jobs, only_report, gate, report, range(first_seed, first_seed + count), task or []
    )
    if code:
        raise typer.Exit(code)


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="The YAML file of the sweep.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for all runs.")] = None,
    launcher: Annotated[
        str,
        typer.Option(
            "--launcher",
            "-l",
            help="local: processes; vmap: as few programs as possible; slurm: jobs; ray: trials.",
        ),
    ] = "local",
    jobs: Annotated[int, typer.Option(help="Processes at a time, each on its share of the cores.", min=1)] = 1,
    together: Annotated[int, typer.Option(help="With vmap: runs of one program at most.", min=2)] = 16,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs (default runs/sweeps/NAME).")] = None,
    only_report: Annotated[bool, typer.Option("--only-report", help="Train nothing.")] = False,
    retries: Annotated[int, typer.Option(help="How often a killed run is started again.", min=0)] = 2,
    job: Annotated[
        list[str] | None,
        typer.Option(
            help="key=value; with slurm of a job (timeout_min, gpus_per_node, slurm_partition, ...), with ray of "
            "a run (cpus, gpus, address, asha.grace_period, optuna.samples, ...)."
        ),
    ] = None,
) -> None:
    """Train environments x seeds x settings as a YAML file has them, and draw what came of it.

    The same command goes on where it stopped; finished runs are kept.
    """
    from dreamer_agent.sweeps.command import run_sweep

    code = run_sweep(
        file, out, overrides or [], launcher, jobs, together, dry_run, only_report, retries, job or []
    )
    if code:
        raise typer.Exit(code)


def _how(library: Library | None) -> str:
    """Whether a library is installed, or the command that does it; nothing of one that needs none."""
    if library is None or not library.modules:
        return ""
    return " [installed]" if library.installed else f" [{library.command}]"


def _configuration(
    env: str | None, overrides: list[str] | None, presets: list[str] | None, size: str | None,
    steps: int | None = None, seed: int | None = None, init_from: str | None = None,
) -> Config:  # fmt: skip
    from dreamer_agent.api import configure
    from dreamer_agent.envs import source_of

    fixed: dict = {"env": {"id": env}} if env else {}
    if steps is not None:
        fixed["train"] = {"steps": steps}
    if seed is not None:
        fixed["seed"] = seed
    if init_from is not None:
        fixed["init_from"] = init_from
    return configure(presets or [], size, overrides or [], fixed, source_of(env) if env else None)


def main() -> None:
    """Run the command line; errors that the user can mend are one sentence and exit code 2."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    gc.set_threshold(50_000, 50, 100)  # tracing makes very many objects that stay; looking at them takes seconds
    try:
        app()
    except DreamerError as error:
        kind = "configuration" if isinstance(error, ConfigError) else "error"
        typer.echo(f"{kind}: {error}", err=True)
        if isinstance(error, ProcessLostError):
            from dreamer_agent.launch.join import leave

            leave()
        sys.exit(2)


if __name__ == "__main__":
    main()
