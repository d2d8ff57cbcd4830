"""The program's commands hang on `app`; what several of them take."""

from __future__ import annotations

from typing import Annotated

import typer

from dreamer_agent.config import Config

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
        "(mppi:samples=256,horizon=8); none: by the policy (default: as in training); explorer: by that of "
        "Plan2Explore."
    ),
]


def configuration(
    env: str | None, overrides: list[str] | None, presets: list[str] | None, size: str | None,
    steps: int | None = None, seed: int | None = None, init_from: str | None = None,
) -> Config:  # fmt: skip
    """The configuration of a command's options."""
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
