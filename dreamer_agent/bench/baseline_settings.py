"""The hyper-parameters of a baseline: from `baselines.yaml` to what stable-baselines3 takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dreamer_agent.errors import ConfigError

METHODS = ("ppo", "sac", "random")
FILE = Path(__file__).with_name("baselines.yaml")
ZOO = "rl_zoo3 2.9.2"
SCHEDULED = ("learning_rate", "clip_range", "clip_range_vf")


@dataclass(frozen=True)
class Settings:
    """How one method is run on one task.

    `agent` goes to the constructor of the algorithm, as plain values; `normalize` says what VecNormalize does
    (None: it is not there); `env` is the id and keyword arguments that are made in place of the task's own.
    """

    source: str
    n_envs: int = 1
    n_timesteps: int | None = None  # the budget that the source trains for
    normalize: Mapping[str, Any] | None = None
    frame_stack: int | None = None
    env: Mapping[str, Any] | None = None
    agent: Mapping[str, Any] = field(default_factory=dict)


def settings_of(method: str, task: str) -> Settings:
    """The settings of `method` for the id `task`; those of the library, in one environment, where there are none.

    Raises `ConfigError` for an unknown method.
    """
    check_method(method)
    if method == "random":
        return Settings("actions drawn uniformly from the action space")
    entries = _content()[method]
    if task not in entries:
        return Settings(f"the library's defaults: there are no settings of {method} for {task}")
    return settings_from(f"{ZOO}, {method}.yml", entries[task])


def settings_from(origin: str, entry: Mapping[str, Any]) -> Settings:
    """An entry of the file as `Settings`."""
    agent = dict(entry)
    source = f"{origin}, {agent.pop('zoo')}"
    if "note" in agent:
        source += f" ({agent.pop('note')})"
    own: dict[str, Any] = {
        key: agent.pop(key) for key in ("n_envs", "n_timesteps", "frame_stack", "env") if key in agent
    }
    normalize = agent.pop("normalize", False)
    if normalize is not False:
        discount = {"gamma": agent["gamma"]} if "gamma" in agent else {}
        own["normalize"] = ({} if normalize is True else dict(normalize)) | discount
    return Settings(source, **own, agent=agent)


def repeat_of(task: str) -> int:
    """The action repeat that a task is measured with."""
    return int(_content()["action_repeat"].get(task, 1))


def check_method(method: str) -> None:
    """Raise `ConfigError` for a method that is none."""
    if method not in METHODS:
        raise ConfigError(f"There is no baseline '{method}': choose {', '.join(METHODS[:-1])} or {METHODS[-1]}.")


def constructor_arguments(agent: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values as stable-baselines3 takes them: schedules as functions, activations as classes of torch.

    Raises `ConfigError` for a schedule or an activation that is none.
    """
    out = {"policy": "MlpPolicy", **agent}
    for key in SCHEDULED:
        if isinstance(out.get(key), str):
            out[key] = _schedule(key, out[key])
    if isinstance(out.get("train_freq"), list):
        out["train_freq"] = tuple(out["train_freq"])
    if "policy_kwargs" in out:
        out["policy_kwargs"] = _policy_arguments(out["policy_kwargs"])
    return out


def _schedule(key: str, text: str) -> Any:
    """`lin_0.001`: from 0.001 at the start to 0 at the end of the budget."""
    from stable_baselines3.common.utils import LinearSchedule

    kind, _, number = text.partition("_")
    try:
        start = float(number)
    except ValueError:
        kind = ""
    if kind != "lin":
        raise ConfigError(
            f"{key} is '{text}', which is no schedule: give a number, or lin_NUMBER to fall to zero."
        )
    return LinearSchedule(start, 0.0, 1.0)


def _policy_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    out = dict(given)
    name = out.get("activation_fn")
    if isinstance(name, str):
        if not isinstance(getattr(torch.nn, name, None), type):
            raise ConfigError(f"The activation '{name}' is none of torch.nn: give one such as ReLU or Tanh.")
        out["activation_fn"] = getattr(torch.nn, name)
    return out


def _content() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())
