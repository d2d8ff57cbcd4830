"""An environment that fails as planned, shared by tests of what happens then."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LENGTH = 7
KINDS = ("raise", "nan", "shape", "dtype", "space", "nan_reward")
CRASHES = ("exit", "kill", "hang")  # of the whole process


class Faulty(gym.Env):
    """Observes random numbers; episodes of seven steps end by themselves, every other one is cut.

    `plan` says which steps go wrong, and how: they are counted from one over all environments that share the file
    `memory`, of whatever process, so that what failed once works when it is made again. "make" and "reset" count
    those calls instead.
    """

    observation_space = spaces.Dict({"numbers": spaces.Box(-1, 1, (2,), np.float32), "room": spaces.Discrete(3)})
    action_space = spaces.Discrete(2)

    def __init__(self, memory: str, plan: Mapping[str, Sequence[int]] | None = None):
        self.memory, self.plan = Path(memory), dict(plan or {})
        self.closed = False
        self.episode = 0
        if self.goes_wrong("make"):
            raise OSError("the simulator did not start")

    def count(self, what: str) -> int:
        """How often, this time included."""
        with open(f"{self.memory}.{what}", "ab", buffering=0) as file:  # at once: several processes count
            file.write(b".")
            return file.tell()

    def goes_wrong(self, what: str) -> bool:
        count = self.count(what)
        return count in self.plan.get(what, ())

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if self.goes_wrong("reset"):
            raise RuntimeError("no way back")
        self.steps, self.episode = 0, self.episode + 1
        return self.observe(), {}

    def observe(self) -> dict[str, Any]:
        numbers = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return {"numbers": numbers, "room": int(self.np_random.integers(3))}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.steps += 1
        obs, ended, reward = self.observe(), self.steps == LENGTH, float(self.np_random.normal())
        count = self.count("step")
        for kind, when in self.plan.items():
            if count in when:
                obs, reward = self.wrong(kind, obs, reward)
        return obs, reward, ended and self.episode % 2 == 0, ended and self.episode % 2 == 1, {}

    def wrong(self, kind: str, obs: Any, reward: float) -> tuple[Any, float]:
        if kind == "raise":
            raise ValueError("the arm fell off")
        if kind == "exit":
            os._exit(3)
        if kind == "kill":
            os.kill(os.getpid(), 9)
        if kind == "hang":
            time.sleep(3600)
        wrong = {
            "nan": {"numbers": np.full(2, np.nan, np.float32)},
            "shape": {"numbers": np.zeros(3, np.float32)},
            "dtype": {"room": 0.5},
            "space": {"room": 3},
        }
        return {**obs, **wrong.get(kind, {})}, float("nan") if kind == "nan_reward" else reward

    def get_state(self) -> dict[str, Any]:
        return {"random": self.np_random.bit_generator.state, "steps": self.steps, "episode": self.episode}

    def set_state(self, state: dict[str, Any]) -> None:
        self.np_random.bit_generator.state = state["random"]
        self.steps, self.episode = state["steps"], state["episode"]

    def close(self) -> None:
        self.closed = True
        if self.plan.get("close"):
            raise RuntimeError("closing is broken, too")
