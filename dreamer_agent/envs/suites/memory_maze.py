"""Memory Maze (`memory_maze:9x9`): go to coloured targets in a maze seen from within, again and again."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

from dreamer_agent.envs.suites.dm_env import DmEnv
from dreamer_agent.envs.suites.drawing import cannot_draw, drawing_library
from dreamer_agent.envs.suites.libraries import library, refuse_unknown
from dreamer_agent.errors import missing_extra

PACKAGE = "memory_maze"
EXTRA = "memory-maze"  # older versions of pip find no extra with an underscore
TASKS = ("9x9", "11x11", "13x13", "15x15")


class MemoryMazeEnv(DmEnv):
    """A maze of one size as an image `[64, 64, 3]`, whose border has the colour of the target to go to.

    Six actions; each target pays 1. Episodes last 1,000, 2,000, 3,000 or 4,000 steps by size and are cut, never
    ended. `good_visibility` lowers the walls and lifts the targets, `randomize_colors` draws their colours anew
    for each episode; both are other tasks than the published ones.

    Raises `ConfigError` for an unknown size, `MissingExtraError` where the package or a way to draw is missing.
    """

    def __init__(self, name: str, good_visibility: bool = False, randomize_colors: bool = False):
        refuse_unknown("memory_maze", name, TASKS)
        self.maker = getattr(_module(), f"memory_maze_{name}")
        self.options = {"good_visibility": good_visibility, "randomize_colors": randomize_colors}
        if os.environ.get("MUJOCO_GL") == "disabled":
            raise cannot_draw(RuntimeError("drawing is disabled"))
        super().__init__(self._made(0))

    def seed_task(self, seed: int) -> None:
        """Make the task anew: what draws its mazes takes a seed only when it is made."""
        self.dm.close()
        self.dm = self._made(seed)

    def _made(self, seed: int) -> Any:
        return self.maker(seed=seed, image_only_obs=True, **self.options)


def tasks() -> list[str]:
    """The four sizes."""
    return list(TASKS)


def _module() -> Any:
    """The module `memory_maze.tasks`.

    The package refuses to be imported without the old gym, where it registers its names: where that is missing,
    its modules are imported without running the package's own file.
    """
    drawing_library(EXTRA, "dm_control.composer", "dm-control")
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise missing_extra("memory-maze", EXTRA)
    if PACKAGE in sys.modules or importlib.util.find_spec("gym"):
        return library(EXTRA, f"{PACKAGE}.tasks")
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    try:
        return library(EXTRA, f"{PACKAGE}.tasks")
    finally:
        del sys.modules[PACKAGE]
