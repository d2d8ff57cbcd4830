"""Planners by their names, as configurations and command lines give them: "mppi", "cem:samples=128,horizon=8"."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from dreamer_agent.errors import ConfigError
from dreamer_agent.planning.careful import Careful
from dreamer_agent.planning.gradient import GradientPlanner
from dreamer_agent.planning.model import Score
from dreamer_agent.planning.sampling import CEM, MPPI, Planner, RandomShooting
from dreamer_agent.planning.tree import TreeSearch
from dreamer_agent.registry import Registry

PLANNERS: Registry[Callable[..., Planner]] = Registry("planner")
register_planner = PLANNERS.register
NONE = "none"  # the policy alone
LEARNED = {"horizon": 10, "lambda_": 0.95}  # for a learned model with a critic; a class alone suits an exact one
SUITED: Mapping[str, Mapping[str, Any]] = {
    "shooting": LEARNED,
    "cem": LEARNED | {"guided": 16},
    "mppi": LEARNED | {"guided": 16},
    "gradient": LEARNED,
}

for _name, _planner in {
    "shooting": RandomShooting, "cem": CEM, "mppi": MPPI, "gradient": GradientPlanner, "tree": TreeSearch,
}.items():  # fmt: skip
    PLANNERS.register(_name)(_planner)


def planner_of(planner: str | Planner | None) -> Planner | None:
    """The planner called `planner`, with settings behind a colon ("mppi:samples=256,horizon=8"); what is one
    already stays as it is, and "none", "" and None are the policy alone.

    `lambda_` and `terminal` are those of its `Score`, `doubt` that of `Careful`. What is not set is as `SUITED`
    has it, which goes with a learned model and its critic, else as the class has it. Raises `ConfigError` for an
    unknown name or setting.
    """
    if planner is None or planner in ("", NONE):
        return None
    if not isinstance(planner, str):
        return planner
    name, _, text = planner.partition(":")
    factory = PLANNERS.get(name)
    asked = dict(_setting(planner, part) for part in text.split(",") if part)
    known = _settings_of(factory)
    doubt = asked.pop("doubt", None) if known is None or "doubt" not in known else None
    for key in asked:
        if known is not None and key not in known:
            raise ConfigError(
                f"The planner '{name}' has no setting '{key}', as in '{planner}': it has {', '.join(known)}, "
                "doubt."
            )
    settings = {**SUITED.get(name, {}), **asked}
    score = {key: settings.pop(key) for key in ("lambda_", "terminal") if key in settings}
    if score:
        settings["score"] = Score(**score)
    try:
        made = factory(**settings)
    except TypeError as error:
        raise ConfigError(f"The planner '{planner}' cannot be made ({error}): correct its settings.") from error
    return made if doubt is None else Careful(made, doubt)


def name_of(planner: Planner) -> str:
    """What a planner is called: its registered name, else that of its class."""
    if isinstance(planner, Careful):
        return f"careful_{name_of(planner.planner)}"
    names = [name for name, factory in PLANNERS.items() if factory is type(planner)]
    return names[0] if names else type(planner).__name__


def _settings_of(factory: Any) -> list[str] | None:
    """The names of what can be set; None where that is not known."""
    if not dataclasses.is_dataclass(factory):
        return None
    names = [entry.name for entry in dataclasses.fields(factory)]
    return [*(name for name in names if name != "score"), *(("lambda_", "terminal") if "score" in names else ())]


def _setting(planner: str, part: str) -> tuple[str, Any]:
    """`samples=256` as name and number."""
    key, _, text = part.partition("=")
    for read in (int, float, {"true": True, "false": False}.__getitem__):
        try:
            return key.strip(), read(text.strip())
        except (ValueError, KeyError):
            continue
    raise ConfigError(
        f"The setting '{part}' of the planner '{planner}' should be a name and a number, as in "
        "mppi:samples=256,horizon=8."
    )
