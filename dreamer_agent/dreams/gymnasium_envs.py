"""Dreams with gymnasium's API: one, and many as a vector environment that is one program."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from dreamer_agent.dreams.batch import Dreams, image_key
from dreamer_agent.dreams.environment import Dream, Shown
from dreamer_agent.errors import ConfigError
from dreamer_agent.specs import MASK

CONTEXT = ("observations", "actions", "action_masks")  # what the options of a reset may hold
FRAMES = 20  # a second, of what is rendered


class DreamEnv(gym.Env):
    """A dream with gymnasium's API, in the spaces of the environment that the model was trained on.

    Info holds "continue", the predicted probability that the episode goes on, and "value", the critic's; where
    infos mask actions, "action_mask", the predicted one. `render` shows the first image that is observed.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": FRAMES}  # noqa: RUF012

    def __init__(self, dream: Dream, render_mode: str | None = None):
        self.dreams, self.render_mode = Dreams(dream, 1), checked_mode(dream, render_mode)
        # Copies: a space has a generator, which users seed.
        self.observation_space = deepcopy(dream.interface.observation_space)
        self.action_space = deepcopy(dream.interface.action_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """A fresh episode, from `seed` or from what the last one led to.

        It begins at one of the dream's starts, or after `options["observations"]`, a batch `[T, ...]` of the real
        environment's observations, the first of them that of a reset, and `options["actions"]` `[T - 1, ...]`
        between them (with "action_masks", where the environment has some).
        """
        super().reset(seed=seed)
        shown = begun(self.dreams, self, seed, options)
        return _row(self.observation_space, self.dreams.observations(shown)), self._info(shown)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """One step; the horizon truncates, and so does doubt."""
        actions = _in_batch(self.action_space, action)
        shown, truncated = self.dreams.step(actions, np.zeros(1, bool))
        obs = _row(self.observation_space, self.dreams.observations(shown))
        return obs, float(shown.reward[0]), bool(shown.terminated[0]), bool(truncated[0]), self._info(shown)

    def render(self) -> np.ndarray | None:
        """The frame that the model pictures, `[H, W, 3]` uint8."""
        return None if self.render_mode is None else self.dreams.frames()[0]

    def _info(self, shown: Shown) -> dict[str, Any]:
        masks = {name: value[0] for name, value in self.dreams.masks(shown).items()}
        numbers = {name: float(value[0]) for name, value in self.dreams.predictions(shown).items()}
        return numbers | ({MASK: masks[MASK] if set(masks) == {MASK} else masks} if masks else {})


class DreamVectorEnv(gym.vector.VectorEnv):
    """`num_envs` dreams as one program; see `DreamEnv`.

    `autoreset_mode` is gymnasium's: an episode that ended begins anew with the next step, whose action counts for
    nothing there; or in the same step, with the last observation in `info["final_obs"]`; or when
    `reset(options={"reset_mask": ...})` says so. Row i, seeded alike, is what row i of any other number is.
    """

    def __init__(
        self, dream: Dream, num_envs: int, render_mode: str | None = None,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    ):  # fmt: skip
        self.mode = AutoresetMode(autoreset_mode)
        self.metadata = {
            "render_modes": ["rgb_array"], "render_fps": FRAMES, "autoreset_mode": self.mode,
        }  # fmt: skip
        self.dreams, self.render_mode = Dreams(dream, num_envs), checked_mode(dream, render_mode)
        self.num_envs = num_envs
        self.single_observation_space = deepcopy(dream.interface.observation_space)
        self.single_action_space = deepcopy(dream.interface.action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.done = np.zeros(num_envs, bool)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Fresh episodes; `options` as of `DreamEnv.reset`, the same for all, or "reset_mask" `[N]` alone."""
        super().reset(seed=seed)
        if options and set(options) == {"reset_mask"}:
            shown = self.dreams.restart_some(np.asarray(options["reset_mask"], bool))
        else:
            shown = begun(self.dreams, self, seed, options)
        self.done = np.zeros(self.num_envs, bool)
        return self.dreams.observations(shown), self._info(shown)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict]:
        """One step of all; see the modes for what comes after an end."""
        shown, truncated = self.dreams.step(actions, self.done)
        terminated, truncated = np.array(shown.terminated), np.array(truncated)
        ended, reward = terminated | truncated, np.array(shown.reward, np.float64)
        obs, info = self.dreams.observations(shown), self._info(shown)
        if self.mode == AutoresetMode.NEXT_STEP:
            self.done = ended
        elif self.mode == AutoresetMode.SAME_STEP and ended.any():
            last = {"final_obs": self._rows(obs, ended), "final_info": info}
            shown = self.dreams.restart_some(ended)
            obs, info = self.dreams.observations(shown), self._info(shown)
            info |= last | {f"_{name}": ended.copy() for name in last}
        return obs, reward, terminated, truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The frames that the model pictures."""
        return None if self.render_mode is None else tuple(self.dreams.frames())

    def get_state(self) -> dict[str, Any]:
        """All that the next steps depend on, as arrays."""
        saved = {"dreams": self.dreams.save(), "done": np.array(self.done)}
        return saved | {"random": self.np_random.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_state`."""
        self.dreams.restore(state["dreams"])
        self.done = np.array(state["done"])
        self.np_random.bit_generator.state = state["random"]

    def _rows(self, obs: Any, some: np.ndarray) -> np.ndarray:
        """The observations of `some` rows, each by itself; None for the others."""
        out = np.full(self.num_envs, None, object)
        for index in np.flatnonzero(some):
            out[index] = _row(self.single_observation_space, obs, int(index))
        return out

    def _info(self, shown: Shown) -> dict[str, Any]:
        out: dict[str, Any] = dict(self.dreams.predictions(shown))
        masks = self.dreams.masks(shown)
        if masks:
            out[MASK] = masks[MASK] if set(masks) == {MASK} else masks
        return out | {f"_{name}": np.ones(self.num_envs, bool) for name in out}


def begun(dreams: Dreams, env: Any, seed: int | None, options: dict[str, Any] | None) -> Shown:
    """A reset of `dreams`, which draw from the generator of `env`; `ConfigError` for unknown options."""
    unknown = sorted(set(options or {}) - set(CONTEXT))
    if unknown:
        raise ConfigError(f"reset was given the option '{unknown[0]}': it knows {', '.join(CONTEXT)}.")
    if seed is not None or dreams.state is None:
        dreams.seed(int(env.np_random.integers(2**31)))
    return dreams.continue_from(options) if options else dreams.restart()


def checked_mode(dream: Dream, mode: str | None) -> str | None:
    """`mode` of rendering; `ConfigError` for one that there is not."""
    if mode not in (None, "rgb_array"):
        raise ConfigError(f"render_mode={mode!r} was asked for: a dream has rgb_array, or None.")
    if mode is not None and image_key(dream) is None:
        raise ConfigError("There is no image in what the model observes, so that nothing can be rendered.")
    return mode


def _in_batch(space: gym.Space, value: Any) -> Any:
    """A batch of one of a member of `space`."""
    if isinstance(space, gym.spaces.Dict):
        return {key: _in_batch(member, value[key]) for key, member in space.spaces.items() if key in value}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_in_batch(member, each) for member, each in zip(space.spaces, value, strict=False))
    return np.asarray(value)[None]


def _row(space: gym.Space, batch: Any, index: int = 0) -> Any:
    """A row of a batch of `space`."""
    if isinstance(space, gym.spaces.Dict):
        return {key: _row(member, batch[key], index) for key, member in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_row(member, each, index) for member, each in zip(space.spaces, batch, strict=True))
    return np.asarray(batch[index]) if isinstance(space, gym.spaces.Box) else batch[index]
