"""Procgen (`procgen:coinrun`): 16 games with generated levels, as envpool builds them."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from dreamer_agent.envs.suites.libraries import library, refuse_unknown
from dreamer_agent.errors import ConfigError, MissingExtraError

GAMES = (
    "bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot",
    "heist", "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot",
)  # fmt: skip
MODES = ("easy", "hard", "extreme", "memory", "exploration")


class ProcgenEnv(gym.Env):
    """One game as an image `[64, 64, 3]` and 15 actions, a level an episode.

    `mode` is how hard the levels are: "easy" or "hard", and for some games "extreme", "memory" or "exploration".
    Levels are drawn from `levels` many, counted from `start_level`; 0 levels are all that there are. An episode
    that reaches the limit of its game (500 steps of leaper and maze, 6,000 of bigfish, 4,000 of bossfight and
    plunder, 1,000 of the others) is `truncated` unless it completes the level in that step; every other end is
    `terminated`. Other keyword arguments go to the game as envpool names them.

    Raises `ConfigError` for an unknown game or mode, `MissingExtraError` where envpool or Qt is missing.
    """

    def __init__(self, name: str, mode: str = "hard", levels: int = 0, start_level: int = 0, **kwargs: Any):
        refuse_unknown("procgen", name, GAMES)
        envpool = _envpool()
        modes = {one: f"{name.capitalize()}{one.capitalize()}-v0" for one in MODES}
        modes = {one: id for one, id in modes.items() if id in envpool.list_all_envs()}
        if mode not in modes:
            raise ConfigError(f"env.kwargs.mode is '{mode}': {name} has {', '.join(modes)}.")
        given = {"num_levels": levels, "start_level": start_level, "channel_first": False, **kwargs}
        self.maker = partial(envpool.make_gymnasium, modes[mode], num_envs=1, **given)
        self.pool = self.maker(seed=0)
        self.observation_space = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(15)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """The next level; with a seed the first one of the series that follows from it."""
        super().reset(seed=seed)
        if seed is not None:
            self.pool.close()
            self.pool = self.maker(seed=seed % 2**31)
        return np.array(self.pool.reset()[0][0]), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """One step; the info says whether it completed the level."""
        obs, reward, terminated, truncated, info = self.pool.step(np.array([action], np.int32))
        complete = bool(info["prev_level_complete"][0]) and bool(terminated[0] or truncated[0])
        ended = bool(terminated[0]) or complete
        return np.array(obs[0]), float(reward[0]), ended, bool(truncated[0]) and not ended, {"complete": complete}

    def close(self) -> None:
        """Free the game."""
        self.pool.close()


def tasks() -> list[str]:
    """The names of the games."""
    return list(GAMES)


def _envpool() -> Any:
    """The module `envpool`, once what draws its games is there, too."""
    envpool = library("procgen", "envpool", "envpool")
    try:
        _ = importlib.import_module("envpool.procgen").ProcgenEnvSpec  # 1.2.5 tells only here that Qt is missing
    except ImportError as error:
        raise MissingExtraError(
            f"The games of envpool could not be loaded ({error}): on Debian or Ubuntu `apt install libqt5gui5`, "
            "then start again."
        ) from error
    return envpool
