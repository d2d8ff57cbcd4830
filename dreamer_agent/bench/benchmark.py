"""What a benchmark is: tasks with their presets, budgets and scales, read from YAML."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamer_agent.bench.baseline_settings import METHODS as BASELINES
from dreamer_agent.config import Config, EnvConfig, load_config, merge, presets_folder, read_yaml, validate
from dreamer_agent.errors import ConfigError
from dreamer_agent.values import flatten, parse_override

OURS = "dreamer"
LABELS = {OURS: "dreamer_agent"}
METHODS = (OURS, *BASELINES)
REPEAT = "env.kwargs.repeat"  # frames that an environment takes for a step by itself: `frames` says how many
FIXED = {  # what a benchmark decides, and how that is changed
    "train.steps": "--steps", "train.eval_episodes": "--episodes", "seed": "--seeds and --first-seed",
    "env.id": "another task", REPEAT: "a YAML file of your own, with its `frames`",
}  # fmt: skip
NUMBERS: dict[str, type] = {
    "steps": int, "frames": int, "seeds": int, "episodes": int, "low": float, "high": float, "goal": float,
    "gate": float,
}  # fmt: skip
REACHED = 0.8  # share of the way from `low` to `high` that counts as reached


@dataclass(frozen=True)
class Task:
    """One environment of a benchmark, how it is trained, and what its returns are held against."""

    env: str
    steps: int  # env steps, after action repeat
    preset: tuple[str, ...] = ()
    size: str = ""  # model size, over that of the preset
    overrides: Mapping[str, Any] = field(default_factory=dict)  # nested, over the preset
    frames: int = 1  # that the environment itself takes for a step, beside env.action_repeat
    low: float | None = None  # the return that scores 0: a random policy's
    high: float | None = None  # the return that scores 1: the goal, a human's or the largest there is
    goal: float | None = None  # drawn as a line
    gate: float | None = None  # the median over seeds must not be below it
    suite: str = ""  # of the published scores
    published: str = ""  # its task there
    drawn: tuple[str, ...] = ()  # published methods whose curves are drawn; empty: all
    note: str = ""
    methods: tuple[str, ...] = ()  # those that can be trained here; empty: all
    budgets: Mapping[str, int] = field(default_factory=dict)  # env steps of other methods, as ours unless given
    repeats: Mapping[str, int] = field(default_factory=dict)  # and their action repeat

    @property
    def threshold(self) -> float | None:
        """The return that is 80% of the way from `low` to `high`; None without a scale."""
        if self.low is None or self.high is None:
            return None
        return self.low + REACHED * (self.high - self.low)

    @property
    def overlay(self) -> str:
        """Its name in published curves, or its id."""
        return self.published or self.env

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", self.env)

    def config(self, seed: int, episodes: int) -> Config:
        """The configuration of one run."""
        size = [f"size/{self.size}"] if self.size else []
        config = merge(load_config([*self.preset, *size]), self.overrides)
        fixed = {"env": {"id": self.env}, "seed": seed, "train": {"steps": self.steps, "eval_episodes": episodes}}
        return validate(merge(config, fixed))

    def env_config(self, method: str) -> EnvConfig:
        """The environments that a method is trained in."""
        env = self.config(0, 1).env
        return dataclasses.replace(env, action_repeat=int(self.repeats.get(method, env.action_repeat)))

    def frames_per_step(self, method: str = OURS) -> int:
        """Frames of the simulator for each env step of a method."""
        return self.frames * self.env_config(method).action_repeat

    def steps_of(self, method: str) -> int:
        """Its budget for a method, env steps."""
        return int(self.budgets.get(method, self.steps))

    def allows(self, method: str) -> bool:
        """Whether the method can be trained here."""
        return not self.methods or method in self.methods


@dataclass(frozen=True)
class Benchmark:
    """Tasks that belong together, and the protocol that they are trained and scored by."""

    name: str
    tasks: tuple[Task, ...]
    title: str = ""
    protocol: str = ""  # one or more sentences for the report
    seeds: int = 3
    episodes: int = 20  # of the evaluation of a final checkpoint
    scale: str = "share of the way from a random policy to the goal"  # what a score of 1 means
    methods: tuple[str, ...] = (OURS,)
    changed: tuple[str, ...] = ()  # what was set for all tasks beside their definition
    defined: bool = True  # False: made of ids, so that tasks, methods and seeds are whatever was asked for

    def select(self, wanted: Sequence[str], methods: Sequence[str] = ()) -> Benchmark:
        """Only the tasks named in `wanted`, by their ids or what follows the suite, and only these `methods`.

        Nothing named is no choice. `ConfigError` for what there is not.
        """
        check_methods(methods)
        chosen: list[Task] = []
        for name in wanted:
            found = [task for task in self.tasks if name in (task.env, task.env.partition(":")[2])]
            if not found:
                known = ", ".join(task.env for task in self.tasks)
                raise ConfigError(f"The benchmark '{self.name}' has no task '{name}': choose from {known}.")
            chosen += [task for task in found if task not in chosen]
        kept = tuple(methods) or self.methods
        return dataclasses.replace(self, tasks=tuple(chosen) or self.tasks, methods=kept)


def benchmark_names() -> list[str]:
    """The benchmarks that ship with the package."""
    return sorted(path.stem for path in (presets_folder() / "bench").glob("*.yaml"))


def load_benchmark(names: Sequence[str], preset: Sequence[str] = ()) -> Benchmark:
    """A benchmark by its name or YAML file; or one made of environments by their ids, trained with `preset`.

    Raises `ConfigError` for unknown names and fields.
    """
    if len(names) == 1 and (names[0].endswith((".yaml", ".yml")) or names[0] in benchmark_names()):
        return _read(names[0], preset)
    for name in names:
        close = [] if ":" in name else difflib.get_close_matches(name, benchmark_names(), n=1, cutoff=0.8)
        if close:
            raise ConfigError(
                f"Is '{name}' the benchmark '{close[0]}'? Give one benchmark, or ids of environments."
            )
        if not re.search(r"[:\d]", name):  # ids have a version, tasks of a suite a colon
            raise ConfigError(
                f"There is no benchmark '{name}': choose from {', '.join(benchmark_names())}, or give a YAML "
                "file, or ids of environments."
            )
    if not names:
        raise ConfigError(f"Name a benchmark ({', '.join(benchmark_names())}), a YAML file or environments.")
    config = load_config(list(preset))
    names = list(dict.fromkeys(names))
    tasks = tuple(Task(env=name, steps=config.train.steps, preset=tuple(preset)) for name in names)
    return Benchmark(
        "tasks", tasks, title=", ".join(names), protocol=f"The preset {', '.join(preset) or 'default'}.",
        defined=False,
    )  # fmt: skip


def with_settings(
    benchmark: Benchmark, steps: int | None = None, size: str | None = None, overrides: Iterable[str] = (),
    episodes: int | None = None,
) -> Benchmark:  # fmt: skip
    """The benchmark with other settings for all of its tasks, scored over other numbers of `episodes`."""
    given: dict[str, Any] = {}
    texts = list(overrides)
    for text in texts:
        given = _joined(given, parse_override(text))
    for key, option in FIXED.items():
        if key in flatten(given) and (key != REPEAT or any(task.frames > 1 for task in benchmark.tasks)):
            raise ConfigError(f"{key} of a benchmark is not set as a value: use {option}.")
    tasks = []
    for task in benchmark.tasks:
        new: dict[str, Any] = {"overrides": _joined(task.overrides, given)} if given else {}
        new |= {"steps": steps, "budgets": {}} if steps else {}
        new |= {"size": size} if size else {}
        tasks.append(dataclasses.replace(task, **new))
    told = [f"{steps:,} env steps"] if steps else []
    told += [f"size {size}"] if size else []
    told += [f"{episodes} episodes"] if episodes not in (None, benchmark.episodes) else []
    changed = (*benchmark.changed, *told, *texts)
    count = benchmark.episodes if episodes is None else episodes
    return dataclasses.replace(benchmark, tasks=tuple(tasks), changed=changed, episodes=count)


def _read(name: str, preset: Sequence[str]) -> Benchmark:
    path = Path(name) if name.endswith((".yaml", ".yml")) else presets_folder() / "bench" / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"There is no benchmark file '{name}': check the path.")
    content = dict(read_yaml(path))
    shared = content.pop("defaults", {}) or {}
    given = content.pop("tasks", {}) or {}
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(f"{path} has no tasks: write `tasks:` with an environment's id and its values each.")
    for values in (shared, *given.values()):
        if not isinstance(values, Mapping | None):
            raise ConfigError(f"{path}: got {values!r} for the values of a task; write them as name: value.")
    chosen = {"preset": tuple(preset)} if preset else {}
    tasks = tuple(_task(path, env, {**shared, **(values or {}), **chosen}) for env, values in given.items())
    _refuse_unknown(path, content, Benchmark)
    if "methods" in content:
        content["methods"] = _texts(content["methods"])
        check_methods(content["methods"])
    content = {key: _typed(path, key, value) for key, value in content.items()}
    changed = (f"preset {', '.join(preset)}",) if preset else ()
    return Benchmark(name=path.stem, tasks=tasks, **content, changed=changed)


def _task(path: Path, env: str, values: dict[str, Any]) -> Task:
    _refuse_unknown(path, values, Task)
    for key in ("preset", "methods", "drawn"):
        if key in values:
            values[key] = _texts(values[key])
    check_methods(values.get("methods", ()))
    for key in ("budgets", "repeats"):
        check_methods(values.get(key, ()))
        if OURS in values.get(key, ()):
            raise ConfigError(f"{path}: {key} of {env} are those of other methods than {OURS}: leave it out.")
    values = {key: _typed(path, key, value) for key, value in values.items()}
    low, high = values.get("low"), values.get("high")
    if (low is None) != (high is None) or (low is not None and high is not None and not low < high):
        raise ConfigError(f"{path}: the scale of {env} is low={low}, high={high}; give both, low below high.")
    if "steps" not in values:
        values["steps"] = load_config(values.get("preset", ())).train.steps
    return Task(env=env, **values)


def check_methods(methods: Iterable[str]) -> None:
    """Raise `ConfigError` for a method that is not known."""
    for method in methods:
        if method not in METHODS:
            raise ConfigError(f"There is no method '{method}': choose from {', '.join(METHODS)}.")


def _typed(path: Path, key: str, value: Any) -> Any:
    """Numbers as such, also where YAML reads a text (1e5)."""
    kind = NUMBERS.get(key)
    if kind is None or value is None:
        return str(value) if key in ("title", "protocol", "note") else value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not math.isfinite(number) or (kind is int and (number < 1 or number != int(number))):
        wanted = "a whole number from 1 on" if kind is int else "a number"
        raise ConfigError(f"{path}: {key} is {value!r}: it should be {wanted}.")
    return kind(number)


def _refuse_unknown(path: Path, values: Mapping[str, Any], kind: type) -> None:
    known = [entry.name for entry in dataclasses.fields(kind)]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ConfigError(f"{path} has the unknown field '{unknown[0]}': known are {', '.join(known)}.")


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(map(str, value))


def _joined(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(old)
    for key, value in new.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = _joined(out[key], value) if both else value
    return out
