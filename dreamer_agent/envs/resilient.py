"""Environments that are stepped together, each of which may fail without the others noticing.

What fails in a step is given as a row: the last good observation, no reward, truncated. At the next step the
environment is closed, made anew, and reset with a seed that follows from its own and the number of restarts.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from dreamer_agent.envs.checked import ADVICE
from dreamer_agent.envs.episode_numbers import NUMBERS
from dreamer_agent.envs.plain import pack, unpack
from dreamer_agent.envs.slots import SHOWN, Bystander, Described, LocalSlot, Slot
from dreamer_agent.envs.worker import MAKE, sentence
from dreamer_agent.errors import DreamerError, EnvironmentFault, RunDirectoryError, SpaceError
from dreamer_agent.specs import MASK

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds before the second restart in a row, doubled up to the longest


class ResilientVectorEnv(gym.vector.VectorEnv):
    """Steps the environments in `slots`, which it makes; an ended episode restarts on the next step.

    `max_faults` is how many faults in a row of one environment, with no episode in between that ended by itself,
    are mended by a restart. One more raises `EnvironmentFault`. What fails before its first good step raises its
    own error at once, and so does every fault where `max_faults` is 0. `faults` counts those of all environments,
    `last_fault` tells of the latest.
    """

    def __init__(self, slots: Sequence[Slot], max_faults: int = 0):
        self.slots, self.max_faults = list(slots), max_faults
        self.num_envs = count = len(self.slots)
        self._described = self._make_all()
        first = self._described[0]
        self.metadata = {**first.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.render_mode = first.render_mode
        self.single_observation_space, self.single_action_space = first.observation_space, first.action_space
        self.observation_space = batch_space(self.single_observation_space, count)
        self.action_space = batch_space(self.single_action_space, count)
        self.faults, self.last_fault = 0, ""
        self.not_restored: list[str] = []  # why, of those that do not go on from the state that was set
        self._given: Any = create_empty_array(self.single_observation_space, n=count, fn=np.zeros)
        self._masks: list[Any] = [None] * count
        self._numbers: list[dict[str, Any]] = [{} for _ in range(count)]  # of episodes that end in this step
        self._pictures: list[Any] = [None] * count
        self._ended, self._broken, self._proven = (np.zeros(count, bool) for _ in range(3))
        self._in_a_row, self._restarts = np.zeros(count, int), np.zeros(count, int)
        self._seeds: list[int | None] = [None] * count
        self._unanswered: list[str | None] = [None] * count  # who failed when all were asked last, and how
        self._torn = False  # after what was raised in the middle of a step: some have moved, others have not

    @property
    def envs(self) -> list[Any]:
        """The environments in this process; empty where they are in others."""
        return [slot.env for slot in self.slots if isinstance(slot, LocalSlot)]

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As of `SyncVectorEnv`: environment i is reset with `seed` + i. Options are not handed on."""
        seeds = (
            [None if seed is None else seed + i for i in range(self.num_envs)] if _is_one(seed) else list(seed)
        )
        self._torn, self._seeds = True, seeds
        self._in_a_row[self._in_a_row > self.max_faults] = 0
        self._broken |= [not slot.alive for slot in self.slots]
        for slot, one, broken in zip(self.slots, seeds, self._broken, strict=True):
            if not broken:
                slot.begin("reset", one)
        rows = [self._reset_row(i, self._seeds[i]) for i in range(self.num_envs)]
        self._ended[:] = False
        return self._batched([obs for obs, *_ in rows])

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As of `SyncVectorEnv`; see above for what fails."""
        self._torn = True
        self._numbers = [{} for _ in self.slots]
        for i, action in enumerate(iterate(self.action_space, actions)):
            command = ("reset", None) if self._ended[i] else ("step", action)
            if not self._broken[i]:
                self.slots[i].begin(*command)
        rows = [self._reset_row(i) if self._ended[i] else self._step_row(i) for i in range(self.num_envs)]
        obs, reward, terminated, truncated = zip(*rows, strict=True)
        flags = np.array(terminated, bool), np.array(truncated, bool)
        self._ended = flags[0] | flags[1]
        batch, info = self._batched(obs)
        if any(self._numbers):
            info[NUMBERS] = self._numbers  # one by one: gymnasium's batches are of the first one's type
        return batch, np.array(reward, np.float64), *flags, info

    def render(self) -> tuple[Any, ...]:
        """A picture of each environment; of one that failed, the one before."""
        for i, slot in enumerate(self.slots):
            if not self._broken[i]:
                slot.begin("render")
                try:
                    self._pictures[i] = slot.finish()
                except EnvironmentFault:
                    if slot.alive:  # else its process is gone, as its next step tells
                        raise
        return tuple(self._pictures)

    def get_state(self) -> dict[str, Any] | None:
        """Everything that the next steps depend on; None where `why_no_state` gives a reason."""
        if self._torn:
            return None
        states = self._ask_each("get_state")
        if any(one is None and not broken for one, broken in zip(states, self._broken, strict=True)):
            return None
        if self._unpackable():
            return None
        given = {"obs": pack(self._given), "masks": pack(self._masks)}
        arrays = (self._ended, self._broken, self._proven, self._in_a_row, self._restarts)
        bookkeeping = dict(
            zip(("ended", "broken", "proven", "in_a_row", "restarts"), map(np.array, arrays), strict=True)
        )
        seeds = [None if seed is None else int(seed) for seed in self._seeds]
        return {"envs": states, **given, **bookkeeping, "seeds": seeds, "faults": self.faults}

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_state`; `RunDirectoryError` where it is the state of other environments.

        One that was made anew with other constants is warned of: its episode is cut at the next step.
        """
        if len(state["envs"]) != self.num_envs:
            raise RunDirectoryError(
                f"The saved state is that of {len(state['envs'])} environments, but there are {self.num_envs}: "
                "resume with as many."
            )
        self._torn = True
        for slot, one in zip(self.slots, state["envs"], strict=True):
            if one is not None:
                slot.begin("set_state", one)
        differing = [
            None if one is None else slot.finish() for slot, one in zip(self.slots, state["envs"], strict=True)
        ]
        self._given, self._masks = unpack(state["obs"]), unpack(state["masks"])
        self._ended, self._broken, self._proven = (np.array(state[k]) for k in ("ended", "broken", "proven"))
        in_a_row, self._restarts = np.array(state["in_a_row"]), np.array(state["restarts"])
        # What ended a run may have been mended since.
        self._in_a_row = np.where(in_a_row > self.max_faults, 0, in_a_row)
        self._seeds, self.faults = list(state["seeds"]), int(state["faults"])
        self._broken |= [why is not None for why in differing]
        self.not_restored = [why for why in differing if why is not None]
        for i, why in enumerate(differing):
            if why is not None:
                warnings.warn(
                    f"Environment {i} does not go on as it was, its episode is cut: {why}.", stacklevel=2
                )
        self._torn = False

    def why_no_state(self) -> str | None:
        """What stands in the way of `get_state`, in a few words; None if nothing does."""
        unknown = next(filter(None, self._ask_each("uncaptured")), None)
        unanswered = next(filter(None, self._unanswered), None)
        torn = "environments one of which failed in the middle of a step" if self._torn else None
        return unknown or unanswered or torn or self._unpackable()

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments; their processes end."""
        for slot in self.slots:
            slot.hurry()
        live = [(i, slot) for i, slot in enumerate(self.slots) if slot.alive]
        for _, slot in live:
            slot.begin("close")
        problems = []
        for i, slot in live:
            try:
                slot.finish()
            except Exception as error:
                if isinstance(slot, LocalSlot):
                    problems.append(f"environment {i} ({self._described[i].name}) {_told(error)}")
        for slot in self.slots:
            slot.end()
        if problems:
            warnings.warn(f"Not everything was closed as it should: {'; '.join(problems)}.", stacklevel=2)

    def _make_all(self) -> list[Described]:
        """Make the environments, at the same time in several processes; none is left where one fails."""
        try:
            for slot in self.slots:
                slot.begin(MAKE)
            described = [slot.finish() for slot in self.slots]
            for one in described[1:]:
                if one[1:3] != described[0][1:3]:
                    raise SpaceError(
                        "Environments that are stepped together should have the same spaces, got "
                        f"{described[0][1:3]} and {one[1:3]}."
                    )
        except BaseException:
            for slot in self.slots:
                slot.end()
            raise
        return described

    def _step_row(self, i: int) -> tuple[Any, float, bool, bool]:
        """The row of environment i after a step that was begun unless it is broken."""
        if self._broken[i]:
            return self._last_obs(i), 0.0, False, True
        try:
            obs, reward, terminated, truncated, self._masks[i], self._numbers[i] = self.slots[i].finish()
        except Exception as error:
            self._count(i, error)
            self._broken[i] = True
            return self._last_obs(i), 0.0, False, True
        self._proven[i] = True
        if terminated or truncated:
            self._in_a_row[i] = 0
        return obs, reward, terminated, truncated

    def _reset_row(self, i: int, seed: int | None = None) -> tuple[Any, float, bool, bool]:
        """The first row of an episode of environment i, whose reset was begun unless it is broken."""
        if not self._broken[i]:
            try:
                obs, self._masks[i] = self.slots[i].finish()
                return obs, 0.0, False, False
            except Exception as error:
                self._count(i, error)
                self._broken[i], seed = True, None
        return self._restarted(i, seed), 0.0, False, False

    def _restarted(self, i: int, seed: int | None) -> Any:
        """The first observation of environment i made anew, as often as it takes."""
        while True:
            time.sleep(_pause(int(self._in_a_row[i])))
            self._restarts[i] += 1
            try:
                self._make_again(i)
                self.slots[i].begin("reset", self._fresh_seed(i) if seed is None else seed)
                obs, self._masks[i] = self.slots[i].finish()
            except Exception as error:
                self._count(i, error)
                seed = None
            else:
                self._broken[i] = False
                return obs

    def _make_again(self, i: int) -> None:
        self.slots[i].begin(MAKE)
        described = self.slots[i].finish()
        if described[1:3] != self._described[0][1:3]:
            raise EnvironmentFault(
                f"The environment {described.name} came back with other spaces: {described[1:3]}."
            )

    def _fresh_seed(self, i: int) -> int | None:
        """What follows from the seed of environment i and how often it was restarted."""
        seed = self._seeds[i]
        if seed is None:
            return None
        return int(np.random.SeedSequence([seed, int(self._restarts[i])]).generate_state(1)[0])

    def _count(self, i: int, error: Exception) -> None:
        """Count a fault of environment i, unless it is another's, and raise what ends the run."""
        if isinstance(error, Bystander):
            return
        self.faults += 1
        self._in_a_row[i] += 1
        name, times, told = self._described[i].name, int(self._in_a_row[i]), _told(error)
        self.last_fault = f"environment {i} ({name}): {told}"
        if not self._proven[i] or self.max_faults == 0:
            raise error
        if times > self.max_faults:
            here = isinstance(self.slots[i], LocalSlot)
            other = f"{self.num_envs} to be told of hangs and crashes, too" if here else "0 to see its traceback"
            raise EnvironmentFault(
                f"Environment {i} ({name}) failed {times} times in a row, with no episode in between that ended "
                f"by itself (env.max_faults={self.max_faults}); the last time: {told}. Look at it with "
                f"`dreamer-agent check`, or set env.processes={other}; the run so far is kept."
            ) from error

    def _last_obs(self, i: int) -> Any:
        """A copy of the last good observation of environment i."""
        return deepcopy(list(iterate(self.observation_space, self._given))[i])

    def _batched(self, rows: Any) -> tuple[Any, dict[str, Any]]:
        """Observations as a batch of their own, and the masks of infos where there are any."""
        self._given = concatenate(self.single_observation_space, rows, self._given)
        info: dict[str, Any] = {}
        for i, mask in enumerate(self._masks):
            if mask is not None:
                info = self._add_info(info, {MASK: mask}, i)
        self._torn = False
        return deepcopy(self._given), info

    def _ask_each(self, command: str) -> list[Any]:
        """The answers of all environments; None of a broken one, and of one that fails: its next step tells."""
        present = [i for i in range(self.num_envs) if not self._broken[i]]
        for i in present:
            self.slots[i].begin(command)
        answers: list[Any] = [None] * self.num_envs
        self._unanswered = [None] * self.num_envs
        for i in present:
            try:
                answers[i] = self.slots[i].finish()
            except Exception as error:
                self._unanswered[i] = f"environment {i} ({self._described[i].name}), which failed: {_told(error)}"
        return answers

    def _unpackable(self) -> str | None:
        """What of the last observations and masks cannot be written down; None if all can."""
        for name, value in (("an observation", self._given), ("an action mask", self._masks)):
            try:
                pack(value)
            except Exception as error:
                return f"{name} that holds a {error}" if isinstance(error, TypeError) else f"{name} ({error})"
        return None


def _is_one(seed: Any) -> bool:
    return seed is None or isinstance(seed, int | np.integer)


def _told(error: Exception) -> str:
    """What happened, without the advice."""
    told = str(error) if isinstance(error, DreamerError) else f"it raised {sentence(error)}"
    return told.removesuffix(ADVICE).removesuffix(SHOWN).rstrip(" .")


def _pause(times: int) -> float:
    """Seconds to wait before the restart after so many faults in a row."""
    return 0.0 if times < 2 else min(FIRST_PAUSE * 2.0 ** min(times - 2, 16), LONGEST_PAUSE)
