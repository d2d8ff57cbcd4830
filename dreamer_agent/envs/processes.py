"""Environments in other processes, one or more in each, which work at the same time.

gymnasium's `AsyncVectorEnv` has a process for each, cannot bring back one that crashed or hangs, and starts them
by a fork, which copies the locks of JAX's threads, or by running the user's script again.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dreamer_agent.envs.child import Child, Link
from dreamer_agent.envs.host import Host
from dreamer_agent.envs.slots import SHOWN, Described, Factory
from dreamer_agent.envs.worker import MAKE, sentence
from dreamer_agent.errors import ConfigError, DreamerError, EnvironmentFault


def spread(factories: Sequence[Factory], processes: int, timeout: float, ray: str = "") -> list[RemoteSlot]:
    """Slots of the environments that `factories` make, neighbours together, in at most so many processes.

    They are on this machine, or on those of the cluster of Ray with the address `ray`. Raises `ConfigError` where
    a factory cannot be sent to another process, or Ray cannot be had; `MissingExtraError` without it.
    """
    hosts = [Host(timeout, _starter(ray)) for _ in range(min(processes, len(factories)))]
    return [RemoteSlot(one, hosts, i * len(hosts) // len(factories)) for i, one in enumerate(factories)]


def _starter(ray: str) -> Callable[[], Link]:
    """What starts a process."""
    if not ray:
        return Child
    from dreamer_agent.envs.ray_actor import RayActor

    return partial(RayActor, ray)


class RemoteSlot:
    """One environment in a process that it may share with others; see `Slot`."""

    def __init__(self, factory: Factory, hosts: list[Host], number: int):
        import cloudpickle

        if os.name != "posix":
            raise ConfigError("env.processes needs the sockets of Linux or macOS: set env.processes=0.")
        try:
            self.factory = cloudpickle.dumps(factory)
        except Exception as error:
            raise ConfigError(
                f"env.processes sends what makes the environment to another process, and this cannot be sent "
                f"({sentence(error)}): give a class or function of a module, or set env.processes=0."
            ) from error
        self.hosts, self.host = hosts, hosts[number]
        self.place = self.host.add()
        self.name = ""  # it is not made yet
        self.asked = False  # what is not answered yet

    @property
    def alive(self) -> bool:
        """See `Slot`."""
        return self in self.host.there

    def begin(self, command: str, argument: Any = None) -> None:
        """See `Slot`: it is sent with what the others of the process are asked, once any answer is waited for."""
        if self.asked:  # an answer left there when another environment failed, or at Ctrl-C
            with contextlib.suppress(Exception):
                self.finish()
        self.asked = True
        if command == MAKE:
            self.host.admit(self)
            argument = self.factory
        self.host.ask(self, command, argument)

    def finish(self) -> Any:
        """See `Slot`; `EnvironmentFault` where the process ended or is silent."""
        for host in self.hosts:  # all of them, so that they work while this one is waited for
            host.send()
        try:
            answer = self.host.answer(self)
        except EnvironmentFault:
            self.asked = False
            raise
        self.asked = False
        kind, content = pickle.loads(answer)  # of our own process
        if kind == "failed":
            raise _error_of(str(self), *content)
        if isinstance(content, Described):
            self.name = content.name
        return content

    def hurry(self) -> None:
        """See `Slot`."""
        self.host.hurry()

    def end(self) -> None:
        """End the process, those that it started, and with it the other environments there."""
        self.host.end()
        self.asked = False

    def __str__(self) -> str:
        return f"the environment {self.name}" if self.name else "an environment that is being made"


def _error_of(it: str, kind: str, content: str, lines: str) -> Exception:
    """What a process told of its error, as one of ours with its traceback as a note."""
    known = {one.__name__: one for one in DreamerError.__subclasses__()}
    error = known.get(kind, EnvironmentFault)(
        content if kind else f"{it[0].upper()}{it[1:]} raised {content}{SHOWN}"
    )
    error.add_note(f"In the process of the environment:\n{lines}")
    return error
