"""The folder of a run: its configuration, where it came from, and whether it may be resumed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import yaml

from dreamer_agent.config import Config, read_config, save_config
from dreamer_agent.errors import ConfigError, RunDirectoryError
from dreamer_agent.files import write_text
from dreamer_agent.hyper import HYPER
from dreamer_agent.training.checkpoint import Checkpoint, complete
from dreamer_agent.values import flatten, to_dict
from dreamer_agent.version import VERSION

MAY_CHANGE = (  # what a resumed run may set anew
    "train.", "mesh.", "replay.max_gb", "replay.spill", "plugins", "init_from", "env.processes", "env.ray",
    "env.timeout", "env.max_faults",
)  # fmt: skip
# And what it may when asked to: numbers that enter the update as data, and how often things happen.
ALLOWABLE = (*HYPER, "replay.ratio", "replay.online", "behaviour.explore_steps", "version")
ORIGIN = "provenance.json"
LATER, FROM = "later", "from_env_step"  # in it: provenances since the first, and where each begins
PROCESSES = "processes"  # folder of those but the first, where a run has several
PACKAGES = ("dreamer-agent", "jax", "jaxlib", "flax", "optax", "chex", "numpy", "gymnasium")


def prepare(folder: Path, config: Config, allow: Collection[str] = ()) -> None:
    """Make `folder` the run directory of `config`, or check that it already is (see `check`)."""
    check(folder, config, allow)
    folder.mkdir(parents=True, exist_ok=True)
    save_config(config, folder / "config.yaml")
    _keep_origin(folder)


def check(folder: Path, config: Config, allow: Collection[str] = ()) -> None:
    """Raise `RunDirectoryError` if `folder` holds something else than a run of `config`; nothing is written.

    The message names the first field in which a run found there differs. What is in `MAY_CHANGE` may; what is in
    `ALLOWABLE` may if `allow` names it ("version": another version of this library). `ConfigError` where `allow`
    names something else.
    """
    unsafe = sorted(set(allow) - set(ALLOWABLE))
    if unsafe:
        raise ConfigError(
            f"'{unsafe[0]}' of a run cannot be changed: what may be allowed is {', '.join(ALLOWABLE)}."
        )
    if folder.exists() and not folder.is_dir():
        raise RunDirectoryError(f"{folder} is a file, not a folder: give an empty or new folder.")
    existing = folder / "config.yaml"
    if existing.exists():
        _check_same(folder, read_config(existing), config, allow)
        _check_version(folder, allow)
    elif folder.is_dir() and any(not path.name.startswith((".", PROCESSES)) for path in folder.iterdir()):
        raise RunDirectoryError(
            f"{folder} holds files but no run (config.yaml is missing): give an empty or new folder."
        )


def load(folder: Path) -> Config:
    """The configuration of the run in `folder`."""
    path = folder / "config.yaml"
    if not path.exists():
        raise RunDirectoryError(f"{folder} is no run directory: config.yaml is missing there.")
    config = read_config(path)
    _check_imports(folder, config)
    return config


def newest_step(folder: Path) -> int | None:
    """The env step of the newest checkpoint in a run directory; None without one."""
    return max(complete(folder / "checkpoints"), default=None)


def origins(folder: Path) -> list[dict[str, Any]]:
    """Provenances of a run: that of its beginning, then of each change of code, versions or hardware since.

    Empty where there is none, or none that can be read.
    """
    try:
        first = json.loads((folder / ORIGIN).read_text())
        return [{key: value for key, value in first.items() if key != LATER}, *first.get(LATER, [])]
    except (OSError, ValueError, AttributeError):
        return []


def same_code(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two provenances are of the same commit and version of this library."""
    mine, theirs = ((found.get("commit"), found.get("packages", {}).get(PACKAGES[0])) for found in (one, other))
    return mine == theirs


def _keep_origin(folder: Path) -> None:
    """Write where a run comes from, once; of one that goes on elsewhere, or with other code, that too."""
    now, known = provenance(), origins(folder)
    if not known:
        write_text(folder / ORIGIN, json.dumps(now, indent=2) + "\n")
    elif {key: value for key, value in known[-1].items() if key != FROM} != now:
        later = [*known[1:], {FROM: newest_step(folder) or 0, **now}]
        write_text(folder / ORIGIN, json.dumps({**known[0], LATER: later}, indent=2) + "\n")


def provenance() -> dict[str, Any]:
    """Versions, commit and hardware, for anyone who wants to reproduce the run."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def _check_version(folder: Path, allow: Collection[str]) -> None:
    """Refuse to go on with what another version has written, unless that is allowed."""
    step = newest_step(folder)
    if step is None or "version" in allow:
        return
    try:
        version = Checkpoint(folder / "checkpoints" / str(step)).commit.get("version")
    except RunDirectoryError:  # damaged: whoever opens it falls back to another one
        return
    if version != VERSION:
        raise RunDirectoryError(
            f"{folder} holds a run with version={version} of dreamer_agent, but this is version={VERSION}, "
            "which may compute something else: install that version, or go on with --allow version. Nothing was "
            "changed there."
        )


def _check_imports(folder: Path, config: Config) -> None:
    """Refuse to import what lies in the run directory itself: all of that is data."""
    module, colon, _ = config.env.id.partition(":")
    for name in (*config.plugins, *([module] if colon else [])):
        if any(file.resolve().is_relative_to(folder.resolve()) for file in _files_of(name)):
            raise RunDirectoryError(
                f"The configuration of {folder} names the module '{name}', which lies in there: nothing of a run "
                "directory is executed. Move it elsewhere if you trust it."
            )


def _files_of(module: str) -> Iterator[Path]:
    """The files that an import of `module` would execute, found without importing anything."""
    for base in {"", *sys.path}:
        path = Path(base)
        for part in module.split("."):
            path /= part
            yield from (file for file in (path / "__init__.py", path.with_name(part + ".py")) if file.is_file())


def _check_same(folder: Path, old: Config, new: Config, allow: Collection[str] = ()) -> None:
    # `new` as it would be read back: YAML turns tuples into lists.
    old_values, new_values = flatten(to_dict(old)), flatten(yaml.safe_load(yaml.safe_dump(to_dict(new))))
    for key in sorted(old_values | new_values):
        if key.startswith(MAY_CHANGE) or key in allow:
            continue
        before, now = ([values[key]] if key in values else [] for values in (old_values, new_values))
        if before != now:
            held, asked = (f"{key}={value[0]}" if value else "" for value in (before, now))
            raise RunDirectoryError(
                f"{folder} holds a run {f'with {held}' if held else f'without {key}'}, but {asked or 'none'} is "
                f"asked for: give another run directory, or {held or f'leave {key} out'} to resume"
                f"{f', or --allow {key}' if key in ALLOWABLE else ''}. Nothing was changed there."
            )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that the code runs from, with "+" if it was changed since."""
    here = Path(__file__).parent.parent.parent
    if not (here / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(here)]
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except OSError:
        return None
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "") or None
