"""The place of one environment among those that are stepped together: in this process, or in one of its own.

Every slot is asked by `begin` and answers at `finish`, so that isolated environments work at the same time.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.spawn import get_executable
from typing import Any, NamedTuple, Protocol

import gymnasium as gym

from dreamer_agent.envs.checked import CheckedEnv
from dreamer_agent.envs.episode_numbers import numbers_of
from dreamer_agent.envs.state import capture, restore, uncaptured
from dreamer_agent.envs.worker import MAKE, sentence
from dreamer_agent.errors import ConfigError, DreamerError, EnvironmentFault
from dreamer_agent.interrupt import REQUEUE
from dreamer_agent.specs import MASK

Factory = Callable[[], CheckedEnv]
FIRST_ANSWER = 5  # times the timeout: it includes starting Python, and importing and making the environment
CLOSING = 5.0  # seconds that an isolated environment has for closing
SHOWN = ": mend that; env.isolate=false shows its traceback."
START = "from dreamer_agent.envs.worker import main; main({handle})"


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
            name = f"The environment {self.env.name}" if self.env else "An environment that was being made"
            raise EnvironmentFault(f"{name} called sys.exit({error.code!r}) during its {command}.") from error

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


class IsolatedSlot:
    """An environment in a process of its own, which is ended where it does not answer in `timeout` seconds.

    Raises `ConfigError` where the factory cannot be sent to another process.
    """

    def __init__(self, factory: Factory, timeout: float):
        import cloudpickle

        if os.name != "posix":
            raise ConfigError("env.isolate=true needs the sockets of Linux or macOS: set env.isolate=false.")
        try:
            self.factory = cloudpickle.dumps(factory)
        except Exception as error:
            raise ConfigError(
                f"env.isolate=true sends what makes the environment to another process, and this cannot be sent "
                f"({sentence(error)}): give a class or function of a module, or set env.isolate=false."
            ) from error
        self.timeout, self.deadline, self.allowed = timeout, 0.0, 0.0
        self.name = ""  # it is not made yet
        self.process: subprocess.Popen | None = None
        self.connection: Any = None
        self.asked = ""  # what is not answered yet
        self.how_ended = f"The process of {self._it} was not started."

    @property
    def alive(self) -> bool:
        """See `Slot`."""
        return self.process is not None

    def begin(self, command: str, argument: Any = None) -> None:
        """See `Slot`."""
        if command == MAKE:
            self.end()
            self._start()
            argument = self.factory
        elif self.asked:  # an answer left there when another environment failed, or at Ctrl-C
            with contextlib.suppress(Exception):
                self.finish()
        self.asked = command
        self.allowed = self.timeout * (FIRST_ANSWER if command == MAKE else 1)
        self.deadline = time.monotonic() + self.allowed
        if self.connection is not None:
            with contextlib.suppress(OSError):  # its process is gone: `finish` says so
                self.connection.send((command, argument))

    def finish(self) -> Any:
        """See `Slot`; `EnvironmentFault` where the process ended or is silent."""
        asked = self.asked
        if self.connection is None:
            raise EnvironmentFault(self.how_ended)
        try:
            if not self.connection.poll(max(0.0, self.deadline - time.monotonic())):
                raise self._silent(asked)
            answer = self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._gone(asked) from error
        self.asked = ""
        kind, content = pickle.loads(answer)  # of our own process
        if kind == "failed":
            raise _error_of(self._it, *content)
        if isinstance(content, Described):
            self.name = content.name
        return content

    def hurry(self) -> None:
        """See `Slot`."""
        self.timeout = min(self.timeout, CLOSING)
        self.deadline = min(self.deadline, time.monotonic() + CLOSING)

    def end(self) -> None:
        """End the process, and those that it started."""
        if self.process is None:
            return
        self.how_ended = f"The process of {self._it} has ended: reset the environments."
        self.connection.close()
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process, self.connection, self.asked = None, None, ""

    @property
    def _it(self) -> str:
        return f"the environment {self.name}" if self.name else "an environment that is being made"

    def _start(self) -> None:
        """Start Python anew: a fork copies the locks of JAX's threads, and multiprocessing runs scripts again."""
        self.connection, theirs = Pipe()
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        # The accelerator is the learner's.
        environment = {"JAX_PLATFORMS": "cpu", **os.environ, "PYTHONPATH": path}
        with theirs:
            self.process = subprocess.Popen(
                [get_executable(), "-P", "-c", START.format(handle=theirs.fileno())], env=environment,
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], process_group=0,
            )  # fmt: skip

    def _silent(self, asked: str) -> EnvironmentFault:
        self.end()
        self.how_ended = (
            f"{self._it[0].upper()}{self._it[1:]} did not answer its {asked} within {self.allowed:g} s: raise "
            "env.timeout if it needs longer."
        )
        return EnvironmentFault(self.how_ended)

    def _gone(self, asked: str) -> EnvironmentFault:
        code: int | None = None
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.process.wait(1.0)
        self.end()
        how = f"by the signal {signal.Signals(-code).name}" if code and code < 0 else f"with the exit code {code}"
        self.how_ended = (
            f"The process of {self._it} ended {how} during its {asked}: set env.isolate=false to see it end "
            "this one."
        )
        return EnvironmentFault(self.how_ended)


def _error_of(it: str, kind: str, content: str, lines: str) -> Exception:
    """What a process told of its error, as one of ours with its traceback as a note."""
    known = {one.__name__: one for one in DreamerError.__subclasses__()}
    error = known.get(kind, EnvironmentFault)(
        content if kind else f"{it[0].upper()}{it[1:]} raised {content}{SHOWN}"
    )
    error.add_note(f"In the process of the environment:\n{lines}")
    return error
