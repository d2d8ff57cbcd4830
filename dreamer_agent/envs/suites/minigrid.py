"""MiniGrid and BabyAI (`minigrid:MiniGrid-DoorKey-5x5-v0`): the agent's view, its mission."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from dreamer_agent.envs.suites.libraries import build, library, refuse_unknown
from dreamer_agent.errors import ConfigError

VIEWS = ("pixels", "symbols")
LONGEST = 72  # words: four times "put the grey key in front of you next to the red box in front of you", joined
# Of all missions; a trained agent knows them by their places, so that others are added at the end.
WORDS = (
    "a", "after", "and", "at", "avoid", "ball", "behind", "blue", "box", "door", "end", "fetch", "find",
    "from", "front", "get", "go", "goal", "green", "grey", "hallway", "in", "key", "lava", "left",
    "matching", "maze", "must", "near", "next", "object", "of", "on", "open", "opening", "pick",
    "purple", "put", "reach", "red", "right", "room", "rooms", "square", "the", "then", "to", "traverse",
    "unlock", "up", "use", "yellow", "you", "your",
)  # fmt: skip
INDICES = {word: index + 1 for index, word in enumerate(WORDS)}


def make_task(
    name: str, view: str = "pixels", tile_size: int = 4, mission: bool | None = None, words: int = LONGEST,
    **kwargs: Any,
) -> gym.Env:  # fmt: skip
    """One task, seen through the agent's view of 7x7 cells.

    `view` "pixels" is an image of `tile_size` pixels a cell; "symbols" are the codes of objects, colours and
    states, one array of integers `[7, 7]` each, in which the agent's own cell shows what it carries. `mission`
    adds the text of the task as the places of its words in `WORDS`, counted from one and padded with zeros to
    `words`: by default for BabyAI, whose tasks are told in no other way. Other keyword arguments go to the task.

    Raises `ConfigError` for an unknown task or view, `MissingExtraError` where minigrid is not installed.
    """
    wrappers = library("minigrid", "minigrid.wrappers")
    if name not in gym.registry:
        refuse_unknown("minigrid", name, tasks())
    if view not in VIEWS:
        raise ConfigError(f"env.kwargs.view is '{view}': choose pixels or symbols.")
    env = build(f"minigrid:{name}", partial(gym.make, name, disable_env_checker=True), kwargs)
    if not isinstance(env.unwrapped, library("minigrid", "minigrid.minigrid_env").MiniGridEnv):
        refuse_unknown("minigrid", name, tasks())
    if view == "pixels":
        env = wrappers.RGBImgPartialObsWrapper(env, tile_size=tile_size)
    told = name.startswith("BabyAI-") if mission is None else mission
    if view == "pixels" and not told:
        return wrappers.ImgObsWrapper(env)
    return Seen(env, view, words if told else 0)


class Seen(gym.ObservationWrapper):
    """The observations of `make_task` by name; without a mission if `words` is 0."""

    def __init__(self, env: gym.Env, view: str, words: int):
        super().__init__(env)
        self.symbols, self.words = view == "symbols", words
        image: Any = env.observation_space["image"]  # type: ignore[index]
        space: dict[str, gym.Space] = {"image": image}
        if self.symbols:
            space = {
                key: gym.spaces.MultiDiscrete(np.full(image.shape[:2], count)) for key, count in _codes().items()
            }
        if words:
            space["mission"] = gym.spaces.MultiDiscrete(np.full(words, len(WORDS) + 1))
        self.observation_space = gym.spaces.Dict(space)

    def observation(self, observation: Any) -> dict[str, np.ndarray]:
        """An observation of minigrid in this form."""
        seen = {"image": observation["image"]}
        if self.symbols:
            cells = observation["image"].astype(np.int64)
            seen = {key: cells[..., place] for place, key in enumerate(_codes())}
        if self.words:
            seen["mission"] = indices_of(observation["mission"], self.words)
        return seen


def indices_of(mission: str, length: int) -> np.ndarray:
    """The words of a mission as integers `[length]`, zeros after its end.

    Raises `ConfigError` for a longer mission, and for a word that no mission of minigrid has.
    """
    words = mission.lower().replace(",", " ").split()
    strange = [word for word in words if word not in INDICES]
    if strange:
        raise ConfigError(
            f"The mission '{mission}' has the unknown word '{strange[0]}': set env.kwargs.mission=false."
        )
    if len(words) > length:
        raise ConfigError(
            f"The mission '{mission}' has {len(words)} words, more than {length}: set env.kwargs.words higher."
        )
    indices = np.zeros(length, np.int64)
    indices[: len(words)] = [INDICES[word] for word in words]
    return indices


def tasks() -> list[str]:
    """The ids that minigrid registers."""
    library("minigrid")
    ids = (id for id, spec in gym.registry.items() if str(spec.entry_point).startswith("minigrid.envs"))
    return sorted(ids)


def _codes() -> dict[str, int]:
    """How many codes there are of each of the three layers of a view, in their order."""
    codes = library("minigrid", "minigrid.core.constants")
    return {
        "object": len(codes.OBJECT_TO_IDX),
        "colour": len(codes.COLOR_TO_IDX),
        "state": len(codes.STATE_TO_IDX),
    }
