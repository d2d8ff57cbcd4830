"""Commands that train many: bench, sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dreamer_agent.cli.options import Preset, Size, app


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
    benchmark = with_settings(benchmark, steps, size, overrides=overrides, episodes=episodes)
    count = benchmark.seeds if seeds is None else seeds
    folder = out or Path("runs") / "bench" / benchmark.name
    chosen = range(first_seed, first_seed + count)
    code = run_benchmark(benchmark, folder, jobs, only_report, gate, report, chosen, task or [], method or [])
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
