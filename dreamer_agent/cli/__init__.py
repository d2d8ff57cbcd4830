"""The command line: train, evaluate, dream, play, plot, check, export, bench, sweep, config, envs."""

from __future__ import annotations

import gc
import logging
import sys

import typer

from dreamer_agent.cli import training, using, many  # isort: skip - the order in which they are listed
from dreamer_agent.cli.options import app
from dreamer_agent.errors import ConfigError, DreamerError, ProcessLostError

__all__ = ["app", "main", "many", "training", "using"]


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
