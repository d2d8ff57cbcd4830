"""The place of one environment among those that are stepped together, in this process; `processes` has others.

Every slot is asked by `begin` and answers at `finish`, so that several processes work at the same time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import gymnasium as gym

from dreamer_agent.envs.checked import CheckedEnv
from dreamer_agent.envs.episode_numbers import numbers_of
from dreamer_agent.envs.state import capture, restore, uncaptured
from dreamer_agent.envs.worker import MAKE
from dreamer_agent.errors import EnvironmentFault
from dreamer_agent.interrupt import REQUEUE
from dreamer_agent.specs import MASK

Factory = Callable[[], CheckedEnv]
SHOWN = ": mend that; env.processes=0 shows its traceback."


class Bystander(EnvironmentFault):
    """Told of an environment that was lost with the process that it shared with the one at fault."""


class Described(NamedTuple):
    """What is known of an environment once it is made."""

    name: str
    observation_space: gym.Space
    action_space: gym.Space
    metadata: dict[str, Any]
    render_mode: str | None


class Slot(Protocol):
    """One environment. `begin` may return before the work is done; whatever it raises, `finish` raises."""

    @property
    def alive(self) -> bool:
        """Whether there is something to ask."""

    def begin(self, command: str, argument: Any = None) -> None:
        """Ask for `make` (anew, if there is one), or for what `perform` does."""

    def finish(self) -> Any:
        """The answer."""

    def hurry(self) -> None:
        """Wait at most `CLOSING` seconds from now on for what was asked and for what will be."""

    def end(self) -> None:
        """Free what is left, without asking."""


def describe(env: CheckedEnv) -> Described:
    """What its slot tells of an environment that was made."""
    spaces = env.observation_space, env.action_space
    return Described(env.name, *spaces, dict(env.metadata), env.render_mode)


def perform(env: CheckedEnv, command: str, argument: Any) -> Any:
    """What a slot is asked to do with its environment; of infos, it gives masks and a last step's numbers."""
    if command == "step":
        obs, reward, terminated, truncated, info = env.step(argument)
        numbers = numbers_of(info) if terminated or truncated else {}
        return obs, reward, terminated, truncated, info.get(MASK), numbers
    if command == "reset":
        obs, info = env.reset() if argument is None else env.reset(seed=argument, options=None)
        return obs, info.get(MASK)
    if command == "render":
        return env.render()
    if command == "get_state":
        return capture(env)
    if command == "set_state":
        return restore(env, argument)
    if command == "uncaptured":
        return uncaptured(env)
    return env.close()


def exited(env: CheckedEnv | None, code: Any, command: str) -> EnvironmentFault:
    """The fault of an environment that would have ended its process by `sys.exit`."""
    name = f"The environment {env.name}" if env else "An environment that was being made"
    return EnvironmentFault(f"{name} called sys.exit({code!r}) during its {command}.")


class LocalSlot:
    """An environment in this process. `lent` belongs to the user: it is never made anew nor closed."""

    def __init__(self, factory: Factory, lent: bool = False):
        self.factory, self.lent = factory, lent
        self.env: CheckedEnv | None = None
        self.asked: tuple[str, Any] = ("", None)

    @property
    def alive(self) -> bool:
        """See `Slot`."""
        return self.env is not None

    def begin(self, command: str, argument: Any = None) -> None:
        """Remember it: the work is done at `finish`, one environment after the other."""
        self.asked = (command, argument)

    def finish(self) -> Any:
        """See `Slot`; `EnvironmentFault` where the environment would end this process by `sys.exit`."""
        command, argument = self.asked
        try:
            if command == MAKE:
                self._make()
                assert self.env is not None
                return describe(self.env)
            assert self.env is not None
            return None if command == "close" and self.lent else perform(self.env, command, argument)
        except SystemExit as error:
            if error.code == REQUEUE:  # a signal's, see `interrupt`
                raise
            raise exited(self.env, error.code, command) from error

    def hurry(self) -> None:
        """See `Slot`: what is done here cannot be left."""

    def end(self) -> None:
        """See `Slot`."""

    def _make(self) -> None:
        if self.env is not None and self.lent:
            return
        if self.env is not None:
            self.begin("close")
            with contextlib.suppress(Exception):  # it is broken already
                self.finish()
        self.env = self.factory()
