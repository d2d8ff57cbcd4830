"""What a sweep is: presets, axes, seeds and a budget, read from YAML, and the configurations it comes to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamer_agent.config import Config, all_keys, load_config, merge, read_yaml, validate
from dreamer_agent.errors import ConfigError
from dreamer_agent.sweeps.points import Point, points_of
from dreamer_agent.values import flatten, parse_override, to_dict

SPECIAL = ("preset", "size")  # keys of a point that are no values of the configuration
OPEN = ("env.kwargs.", "env.route.")  # below these any key may be
LIMITS = ("runs", "env_steps", "gb")
NOT_IDENTITY = (  # of train.* and mesh.*: a run goes on where they change
    "data", "fsdp",
    "steps", "log_every", "checkpoint_every", "keep_checkpoints", "eval_every", "eval_episodes", "eval_envs",
    "eval_max_length", "loop", "overlap", "loggers",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One run of a sweep: what makes it different from the others, and its whole configuration."""

    point: Point  # what the axes gave, and the size where only the sweep does
    config: Config
    name: str  # that of its folder

    @property
    def seed(self) -> int:
        """Its random seed."""
        return self.config.seed

    @property
    def identity(self) -> str:
        """What its name ends with."""
        return identity_of(self.config)


@dataclass(frozen=True)
class Sweep:
    """A sweep as its file has it."""

    name: str
    title: str = ""
    about: str = ""  # what it is for; shown with its results
    base: tuple[str, ...] = ()  # presets
    size: str = ""  # model size, over that of the presets
    values: Mapping[str, Any] = field(default_factory=dict)  # dotted keys, the same in all runs
    axes: tuple[Any, ...] = ()
    seeds: tuple[int, ...] = (0,)
    only: tuple[Mapping[str, Any], ...] = ()  # runs that match none of them are left out, where there are any
    exclude: tuple[Mapping[str, Any], ...] = ()  # runs that match one of them are left out
    budget: Mapping[str, float] = field(default_factory=dict)
    slurm: Mapping[str, Any] = field(default_factory=dict)  # submitit's parameters of a job
    ray: Mapping[str, Any] = field(default_factory=dict)  # what a run takes, and `asha` and `optuna`
    template: str = ""  # of a run's name: "{env.id}-{replay.ratio}"; by default what the axes vary

    def settings(self) -> list[Setting]:
        """All runs, the first seed of each point first; equal ones once.

        `ConfigError` where there are none, and where two differ in nothing but what a run may go on with.
        """
        found: dict[str, Setting] = {}
        points = points_of(self.axes)
        if any("seed" in point for point in points):
            raise ConfigError(f"The axes of the sweep '{self.name}' set the seed: give `seeds` beside them.")
        only, exclude = _filters(self.only), _filters(self.exclude)
        for seed in self.seeds:
            for point in points:
                config = self._config(point, seed)
                values = flatten(to_dict(config)) | self.special(point)
                if (only and not _matches(values, only)) or _matches(values, exclude):
                    continue
                identity = identity_of(config)
                setting = Setting(self.special(point) | point, config, f"{self._named(point, values)}-{identity}")
                if found.setdefault(identity, setting).config != config:
                    raise ConfigError(_one_run(self.name, found[identity].config, config))
        if not found:
            raise ConfigError(f"The sweep '{self.name}' has no runs: its filters leave out all of them.")
        return list(found.values())

    def varied(self) -> list[str]:
        """The keys that the axes set, in their order."""
        return list(dict.fromkeys(key for point in points_of(self.axes) for key in point))

    def optional(self) -> list[str]:
        """Those that only some points of the axes set."""
        points = points_of(self.axes)
        return [key for key in self.varied() if not all(key in point for point in points)]

    def drawn(self) -> list[str]:
        """The keys whose values are drawn at random."""
        found = [key for axis in self.axes if "random" in axis for point in points_of([axis]) for key in point]
        return list(dict.fromkeys(found))

    def special(self, point: Point) -> dict[str, Any]:
        """Preset and size of a point."""
        return {"preset": point.get("preset"), "size": point.get("size", self.size or None)}

    def _config(self, point: Point, seed: int) -> Config:
        extra = point.get("preset", ())
        presets = [*self.base, *_presets("An axis", extra)]
        size = point.get("size", self.size)
        config = load_config([*presets, *([f"size/{size}"] if size else [])])
        for key, value in {**self.values, **point, "seed": seed}.items():
            if key not in SPECIAL:
                config = merge(config, nested(key, value))
        return validate(config)

    def _named(self, point: Point, values: Mapping[str, Any]) -> str:
        """The name of a run before its identity, fit for a folder."""
        if self.template:
            try:
                text = re.sub(r"\{([^{}]*)\}", lambda found: _text(_value(values, found[1])), self.template)
            except KeyError as error:
                raise ConfigError(
                    f"The name of the sweep's runs has {{{error.args[0]}}}: known are the keys of the "
                    "configuration, preset and size."
                ) from None
        else:
            parts = [values["env.id"]] if "env.id" not in point else []
            parts += [_text(value) if key == "env.id" else f"{key.split('.')[-1]}={_text(value)}"
                      for key, value in point.items()]  # fmt: skip
            text = "-".join([*map(str, parts), str(values["seed"])])
        return re.sub(r"[^A-Za-z0-9_.=-]+", "_", text)[:120]


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep in a YAML file; `overrides` (key=value) are set in all runs. `ConfigError` says what is wrong."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"There is no sweep file '{path}': check the path.")
    content = dict(read_yaml(path))
    known = [entry.name for entry in dataclasses.fields(Sweep) if entry.name != "template"]
    for key in content:
        if key not in known:
            raise ConfigError(f"{path} has the unknown field '{key}': known are {', '.join(known)}.")
    for key in ("axes", "only", "exclude"):
        value = content.get(key) or ()
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ConfigError(f"{path}: {key} is {value!r}: write a list.")
        content[key] = tuple(value)
    for key in ("only", "exclude"):
        for filter_ in content[key]:
            if not isinstance(filter_, Mapping) or not filter_:
                raise ConfigError(f"{path}: {key} holds {filter_!r}: write keys and the values that match.")
    base, values = content.get("base") or (), content.get("values") or {}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: values are {values!r}: write keys and values, train.steps: 2000.")
    given: dict[str, Any] = {}
    for override in overrides:
        given |= flatten(parse_override(override))
    values = flatten(values) | given
    if "seed" in values:
        raise ConfigError(f"{path}: the seed is no value: give `seeds`, a number of them or a list.")
    for key, instead in (("preset", "base"), ("size", "size")):
        if key in values:
            raise ConfigError(
                f"{path}: the {key} is no value: write `{instead}: {values[key]}` beside the values."
            )
    points = points_of(content["axes"]) if given else []
    for key in given:
        if points and all(key in point for point in points):
            raise ConfigError(f"{key} was given for all runs, but the axes of {path} set it: change it there.")
    text = {key: " ".join(str(content.get(key) or "").split()) for key in ("title", "about", "size", "name")}
    return Sweep(
        name=path.stem, title=text["title"], about=text["about"], size=text["size"], template=text["name"],
        base=_presets(f"{path}: base", base), values=values, axes=content["axes"],
        seeds=_seeds(path, content.get("seeds", 1)), only=content["only"], exclude=content["exclude"],
        budget=_budget(path, content.get("budget") or {}),
        slurm=_job(path, "slurm", content.get("slurm") or {}, "submitit's parameters, timeout_min: 240"),
        ray=_job(path, "ray", content.get("ray") or {}, "what a run takes, cpus: 2"),
    )  # fmt: skip


def identity_of(config: Config) -> str:
    """The first letters of a hash over all that a run learns from: the same in every sweep that has the run.

    Only what differs from the defaults enters, so that a value which a later version adds changes no name.
    """
    defaults = flatten(to_dict(Config()))
    values = {
        key: value
        for key, value in flatten(to_dict(config)).items()
        if key.removeprefix("train.").removeprefix("mesh.") not in NOT_IDENTITY
        and (key not in defaults or defaults[key] != value)
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def nested(key: str, value: Any) -> dict[str, Any]:
    """`a.b` and a value as `{"a": {"b": value}}`."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _filters(given: Sequence[Mapping[str, Any]]) -> list[dict[str, list[Any]]]:
    """For each filter the values that its keys match, as the configuration has them (YAML reads 1e-4 as text)."""
    known = [*all_keys(), *SPECIAL]

    def typed(key: str, value: Any) -> Any:
        if key not in known and not key.startswith(OPEN):
            raise ConfigError(f"A filter of the sweep asks for '{key}', which is no key of the configuration.")
        if key in SPECIAL or key.startswith(OPEN):
            return value
        return flatten(to_dict(merge(Config(), nested(key, value))))[key]

    return [
        {
            key: [typed(key, one) for one in (wanted if isinstance(wanted, list) else [wanted])]
            for key, wanted in flatten(one).items()
        }
        for one in given
    ]


def _matches(values: Mapping[str, Any], filters: Sequence[Mapping[str, list[Any]]]) -> bool:
    """Whether one of the filters fits: all its keys have one of its values."""
    return any(all(_value(values, key) in wanted for key, wanted in one.items()) for one in filters)


def _value(values: Mapping[str, Any], key: str) -> Any:
    """The value of a key; None of what only other runs hand to their environment."""
    return values.get(key) if key.startswith(OPEN) else values[key]


def _one_run(name: str, one: Config, other: Config) -> str:
    """The sentence for two runs that would share a folder."""
    before, now = flatten(to_dict(one)), flatten(to_dict(other))
    key = next(key for key in now if before.get(key) != now[key])
    return (
        f"Two runs of the sweep '{name}' differ in {key} ({before.get(key)} and {now[key]}) only, in which a run "
        "may change when it goes on: they would be one. Make a sweep of each, with folders of their own (--out)."
    )


def _presets(name: str, given: Any) -> tuple[str, ...]:
    presets = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else (None,)
    if not all(isinstance(preset, str) for preset in presets):
        raise ConfigError(f"{name} has the preset {given!r}: give a name, or a list of them.")
    return presets


def _seeds(path: Path, given: Any) -> tuple[int, ...]:
    seeds = list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    good = isinstance(seeds, list) and seeds and all(isinstance(s, int) and s >= 0 for s in seeds)
    if not good:
        raise ConfigError(f"{path}: seeds is {given!r}: give a number of seeds, or a list of them.")
    return tuple(dict.fromkeys(seeds))


def _budget(path: Path, given: Any) -> dict[str, float]:
    if not isinstance(given, Mapping) or set(given) - set(LIMITS):
        raise ConfigError(f"{path}: the budget is {given!r}: it may limit {', '.join(LIMITS)}.")
    try:
        limits = {key: float(value) for key, value in given.items()}
    except (TypeError, ValueError):
        raise ConfigError(f"{path}: the budget is {given!r}: give numbers.") from None
    for key, value in limits.items():
        if not value > 0:
            raise ConfigError(f"{path}: the budget has {key}={value:g}: give a number above 0.")
    return limits


def _job(path: Path, name: str, given: Any, wanted: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{path}: {name} is {given!r}: write {wanted}.")
    return dict(given)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "+".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)
