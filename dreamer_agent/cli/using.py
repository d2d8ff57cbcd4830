"""Commands that use a trained run: evaluate, dream, play, plot, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dreamer_agent.cli.options import Planner, Run, app
from dreamer_agent.errors import ConfigError


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
    sequences: Annotated[int | None, typer.Option(help="Sequences to draw (default: 3).", min=1)] = None,
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
        if length is not None or sequences is not None:
            raise ConfigError(
                "--length and --sequences are of the pictures: with --report, --horizons says how far is "
                "imagined, --windows from how many starts."
            )
        plots.show_report(run, windows, horizons, observed)
        return
    for path in plots.plot_dream(run, length, sequences or 3, observed):
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
