"""An environment that asserts on every illegal action, shared by the tests of masks."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

STATES = 5
ACTIONS: dict[str, gym.Space] = {
    "discrete": spaces.Discrete(4, start=2),
    "uneven": spaces.MultiDiscrete([2, 3]),
    "dict": spaces.Dict(
        {"box": spaces.Box(-2, 2, (1,)), "move": spaces.Discrete(3), "press": spaces.MultiBinary(2)}
    ),
}


class Picky(gym.Env):
    """A random state in 0..4 says which actions are legal; `kind` of action, mask in `where` ("info" or "obs").

    Episodes take `length` steps; the odd ones of them are cut, the others end. The reward is 1.
    """

    def __init__(self, kind: str, where: str, length: int, seed: int):
        self.kind, self.where, self.length = kind, where, length
        self.action_space = ACTIONS[kind]
        state = spaces.Discrete(STATES)
        self.observation_space = state
        if where == "obs":
            self.observation_space = spaces.Dict({"action_mask": _space_of(self.legal(kind, 0)), "state": state})
        self.rng = np.random.default_rng(seed)
        self.steps = self.episode = self.steps_made = self.state = 0

    @staticmethod
    def legal(kind: str, state: int) -> Any:
        """The mask in `state`, in the form of gymnasium."""

        def bits(count: int, seed: int) -> np.ndarray:
            mask = np.array([(state + seed) >> bit & 1 for bit in range(count)], np.int8)
            return mask if mask.any() else np.eye(count, dtype=np.int8)[state % count]

        if kind == "discrete":
            return bits(4, 3)
        if kind == "uneven":
            return bits(2, 1), bits(3, 2)
        return {"move": bits(3, 5), "press": np.array([[1, state % 2], [1 - state % 2, 1]], np.int8)}

    def mask_of(self, state: int) -> Any:
        return self.legal(self.kind, state)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.steps, self.episode = 0, self.episode + 1
        return self.observe()

    def observe(self) -> tuple[Any, dict]:
        self.state = int(self.rng.integers(STATES))
        mask = self.mask_of(self.state)
        if self.where == "obs":
            return {"state": self.state, "action_mask": mask}, {}
        return self.state, {"action_mask": mask}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.steps < self.length, "stepped past the end"
        assert action in self.action_space, f"{action!r} is not in {self.action_space}"
        self.check(action)
        self.steps, self.steps_made = self.steps + 1, self.steps_made + 1
        done = self.steps == self.length
        obs, info = self.observe()
        return obs, 1.0, done and self.episode % 2 == 0, done and self.episode % 2 == 1, info

    def check(self, action: Any) -> None:
        mask = self.mask_of(self.state)
        if self.kind == "discrete":
            assert mask[action - 2], f"illegal {action} in state {self.state}"
        elif self.kind == "uneven":
            assert all(m[a] for m, a in zip(mask, action, strict=True)), f"illegal {action} in {self.state}"
        else:
            assert mask["move"][action["move"]], f"illegal {action} in {self.state}"
            assert mask["press"][[0, 1], action["press"]].all(), f"illegal {action} in {self.state}"


def _space_of(mask: Any) -> gym.Space:
    if isinstance(mask, dict):
        return spaces.Dict({key: _space_of(value) for key, value in mask.items()})
    if isinstance(mask, tuple):
        return spaces.Tuple([_space_of(value) for value in mask])
    return spaces.Box(0, 1, mask.shape, np.int8)
