"""What there is to install: the suites, the packages that they need, and their tasks."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from dreamer_agent.envs.make import SUITES
from dreamer_agent.errors import ConfigError, missing_extra


@dataclass(frozen=True)
class Library:
    """The modules of a suite, its extra in pyproject.toml, and a function that names its tasks once installed."""

    modules: tuple[str, ...]
    extra: str
    tasks: Callable[[], list[str]]

    @property
    def missing(self) -> list[str]:
        """The modules that cannot be found; none is imported."""
        return [module for module in self.modules if importlib.util.find_spec(module) is None]

    @property
    def installed(self) -> bool:
        """Whether all modules can be found."""
        return not self.missing

    @property
    def command(self) -> str:
        """How it is installed."""
        return f"pip install 'dreamer-agent[{self.extra}]'"


def tasks_of(suite: str) -> list[str]:
    """The tasks of `suite`, written suite:task.

    Raises `ConfigError` for an unknown suite and for one that does not list them, `MissingExtraError` where its
    package is not installed.
    """
    if suite in GYMNASIUM:
        return _gymnasium(suite)
    SUITES.get(suite)
    if suite not in LIBRARIES:
        raise ConfigError(f"The suite '{suite}' does not list its tasks: see the documentation of its package.")
    return [f"{suite}:{task}" for task in LIBRARIES[suite].tasks()]


def check_installed(env: str) -> None:
    """Raise `MissingExtraError` where the environment with the id `env` needs a package that is not installed.

    Only of suites and of gymnasium's own ids is known what they need; nothing is made or imported.
    """
    library = _library_of(env)
    if library is not None and library.missing:
        raise missing_extra(library.missing[0], library.extra)


def _library_of(env: str) -> Library | None:
    """What the environment with the id `env` needs beside gymnasium; None where nothing, or nothing is known."""
    suite, colon, _ = env.partition(":")
    if colon:
        return LIBRARIES.get(suite)
    import gymnasium as gym

    made_by = str(gym.registry[env].entry_point) if env in gym.registry else ""
    groups = [group for group in GROUPS if made_by.startswith(f"gymnasium.envs.{GYMNASIUM[group]}.")]
    return GROUPS[groups[0]] if groups and groups[0] not in TO_DRAW else None


def _ours(module: str) -> Callable[[], list[str]]:
    """The function `tasks` of our own adapter."""

    def names() -> list[str]:
        return importlib.import_module(f"dreamer_agent.envs.suites.{module}").tasks()

    return names


def _from(name: str, module: str, attribute: str) -> Callable[[], list[str]]:
    """The sorted names that a library keeps in, or gives by calling, an attribute of a module."""

    def names() -> list[str]:
        from dreamer_agent.envs.suites.libraries import library

        known = getattr(library(name, module), attribute)
        return sorted(known() if callable(known) else known)

    return names


def _gymnasium(group: str) -> list[str]:
    """The newest versions of gymnasium's own ids of a group."""
    import gymnasium as gym

    place = f"gymnasium.envs.{GYMNASIUM[group]}"
    found = {spec.name: id for id, spec in gym.registry.items() if str(spec.entry_point).startswith(place)}
    return sorted(found.values())


def _craftax() -> list[str]:
    from dreamer_agent.envs.suites.craftax import NAMES

    return list(NAMES)


LIBRARIES = {
    "atari": Library(("ale_py", "cv2"), "atari", _ours("atari")),
    "brax": Library(("brax",), "brax", _from("brax", "brax.envs", "_envs")),
    "bsuite": Library(("bsuite",), "bsuite", _ours("bsuite")),
    "craftax": Library(("craftax",), "craftax", _craftax),
    "crafter": Library(("crafter",), "crafter", _ours("crafter")),
    "dmc": Library(("dm_control", "mujoco"), "dmc", _ours("dmc")),
    "envpool": Library(("envpool",), "envpool", _ours("envpool")),
    "gymnax": Library(("gymnax", "six"), "gymnax", _from("gymnax", "gymnax", "registered_envs")),
    "memory_maze": Library(("memory_maze", "dm_control", "mujoco"), "memory-maze", _ours("memory_maze")),
    "minigrid": Library(("minigrid",), "minigrid", _ours("minigrid")),
    "navix": Library(("navix",), "navix", _from("navix", "navix", "registry")),
    "playground": Library(("mujoco_playground",), "playground", _ours("playground")),
    "procgen": Library(("envpool",), "procgen", _ours("procgen")),
    "toy": Library((), "", lambda: ["catch", "rooms"]),
    "xminigrid": Library(("xminigrid",), "xminigrid", _from("xminigrid", "xminigrid", "registered_environments")),
}
GYMNASIUM = {
    "box2d": "box2d",
    "classic": "classic_control",
    "mujoco": "mujoco",
    "toy-text": "toy_text",
}  # extra -> folder of gymnasium; their ids are written without a suite
NEEDS = {"box2d": "Box2D", "classic": "pygame", "mujoco": "mujoco", "toy-text": "pygame"}  # module of the extra
TO_DRAW = ("classic", "toy-text")  # need their module for pictures alone
GROUPS = {name: Library((NEEDS[name],), name, lambda: []) for name in GYMNASIUM}
