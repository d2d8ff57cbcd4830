"""The DeepMind Control Suite (`dmc:walker_walk`), from its numbers or from pixels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np

from dreamer_agent.envs.simulators import get_mujoco, set_mujoco
from dreamer_agent.envs.suites.dm_env import DmEnv
from dreamer_agent.envs.suites.drawing import cannot_draw, drawing_library
from dreamer_agent.envs.suites.libraries import refuse_unknown
from dreamer_agent.errors import ConfigError, MissingExtraError

CAMERAS = {"quadruped": 2}  # which show the body; 0 of the others does
QUALITIES: dict[str, dict[str, bool] | None] = {"full": None, "fast": {"shadow": False, "reflection": False}}
NO_NUMBERS = ("bvh_", "mesh_", "name", "skin_", "tex_")  # arrays of a model that no task changes, mostly large


class ControlEnv(DmEnv):
    """One task of the suite: its observations by name, or, with `pixels`, one image `[size, size, 3]`.

    `camera` is a number or name of the model's cameras. `render_quality` "fast" leaves out shadows and
    reflections; it changes the pixels, so that scores are not comparable with "full". All other keyword
    arguments go to the task, such as `time_limit` in seconds, or `random`, the seed of what a few tasks draw when
    they are made.
    """

    def __init__(
        self, name: str, pixels: bool = False, size: int = 64, camera: int | str | None = None,
        render_quality: str = "full", random: int = 0, **kwargs: Any,
    ):  # fmt: skip
        suite = _suite()
        tasks = {f"{domain}_{task}": (domain, task) for domain, task in suite.ALL_TASKS}
        refuse_unknown("dmc", name, tasks)
        if render_quality not in QUALITIES:
            raise ConfigError(f"env.kwargs.render_quality is '{render_quality}': choose full or fast.")
        super().__init__(_load(suite, *tasks[name], random, **kwargs))
        self.pixels, self.size, self.flags = pixels, size, QUALITIES[render_quality]
        self.camera = CAMERAS.get(tasks[name][0], 0) if camera is None else camera
        self._model = _arrays(self._physics.model)
        # Measured: dogs did not go on bit by bit. The terrain lies on the graphics card, out of reach.
        self.inexact = name.startswith("dog_") or (pixels and name == "quadruped_escape")
        if pixels:
            self.observation_space = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
            self._render()

    @property
    def _physics(self) -> Any:
        """MuJoCo's own model and data."""
        physics = self.dm.physics
        return SimpleNamespace(model=physics.model.ptr, data=physics.data.ptr)

    def seed_task(self, seed: int) -> None:
        """Draw the starts of episodes from `seed` on."""
        self.dm.task.random.seed(seed)

    def observe(self, step: Any) -> Any:
        """The task's numbers, or a picture of it."""
        return self._render() if self.pixels else super().observe(step)

    def _render(self) -> np.ndarray:
        flags = {} if self.flags is None else {"render_flag_overrides": self.flags}
        try:
            return self.dm.physics.render(self.size, self.size, camera_id=self.camera, **flags)
        except ValueError as error:
            raise ConfigError(f"env.kwargs.camera is {self.camera!r}: {error}") from error
        except Exception as error:
            raise cannot_draw(error) from error

    def get_state(self) -> dict[str, Any]:
        """The physics, what an episode changed in the model (targets, for example), and the task's chance."""
        if self.inexact:
            raise RuntimeError("this task did not go on bit by bit from such a state")
        physics = self._physics
        now = _arrays(physics.model)
        return {
            "physics": get_mujoco(physics),
            "model": {name: array for name, array in now.items() if not np.array_equal(array, self._model[name])},
            "random": self.dm.task.random.get_state(),
            "time": [self.dm._step_count, self.dm._reset_next_step],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_state`."""
        import mujoco

        physics = self._physics
        for name, array in {**self._model, **state["model"]}.items():
            getattr(physics.model, name)[...] = array
        set_mujoco(physics, state["physics"])
        # A step of the suite begins with the contacts that the one before it found: they are found again, and
        # what this overwrites is set once more.
        mujoco.mj_step1(physics.model, physics.data)
        set_mujoco(physics, state["physics"])
        self.dm.task.random.set_state(state["random"])
        self.dm._step_count, self.dm._reset_next_step = state["time"]


def tasks() -> list[str]:
    """The names of all tasks."""
    return sorted(f"{domain}_{task}" for domain, task in _suite().ALL_TASKS)


def _load(suite: Any, domain: str, task: str, random: int, **kwargs: Any) -> Any:
    env = suite.load(domain, task, task_kwargs={"random": random, **kwargs})
    if hasattr(env.physics.model.ptr, "flex_vertedge"):
        return env
    raise MissingExtraError("dm_control needs MuJoCo below 4: install it with `pip install 'mujoco>=3.17,<4'`.")


def _suite() -> Any:
    """The module `dm_control.suite`."""
    return drawing_library("dmc", "dm_control.suite", "dm-control")


def _arrays(model: Any) -> dict[str, np.ndarray]:
    """Copies of the numbers of a MuJoCo model that a task may change."""
    names = [name for name in dir(model) if not name.startswith(("__", *NO_NUMBERS))]
    arrays = {name: getattr(model, name) for name in names}
    return {
        name: np.array(array)
        for name, array in arrays.items()
        if isinstance(array, np.ndarray) and array.size and array.flags.writeable
    }
