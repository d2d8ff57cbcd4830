"""How MuJoCo draws, with or without a screen: shared by the suites that import dm_control."""

from __future__ import annotations

import ctypes.util
import os
import sys
from typing import Any

from dreamer_agent.envs.suites.libraries import library
from dreamer_agent.errors import ConfigError, MissingExtraError

BACKENDS = {"egl": "EGL", "osmesa": "OSMesa"}  # values of MUJOCO_GL and the libraries that they load


def drawing_library(extra: str, module: str, package: str) -> Any:
    """The module `module` of `package`, drawing without a screen where nothing else was asked for.

    Raises `MissingExtraError` where it is not installed, `ConfigError` where what MUJOCO_GL names is not there.
    """
    if sys.platform == "linux":
        found = [name for name, lib in BACKENDS.items() if ctypes.util.find_library(lib)]
        os.environ.setdefault("MUJOCO_GL", (found or ["disabled"])[0])
    try:
        return library(extra, module, package)
    except MissingExtraError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise
        raise ConfigError(
            f"dm_control cannot draw with MUJOCO_GL={os.environ.get('MUJOCO_GL')} ({error.__cause__}): set it to "
            "egl, osmesa or glfw, or to disabled where no pixels are needed."
        ) from error


def cannot_draw(error: Exception) -> MissingExtraError:
    """What to say where a picture could not be drawn."""
    return MissingExtraError(
        "Pixels of MuJoCo need a library for drawing: on Debian or Ubuntu `apt install libegl1 "
        "libegl-mesa0` (or libosmesa6, and set MUJOCO_GL=osmesa), then start again "
        f"(MUJOCO_GL={os.environ.get('MUJOCO_GL')}, {type(error).__name__}: {error})."
    )
