"""Environments in other processes, one or more in each, which work at the same time.

gymnasium's `AsyncVectorEnv` has a process for each, cannot bring back one that crashed or hangs, and starts them
by a fork, which copies the locks of JAX's threads, or by running the user's script again.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.spawn import get_executable
from typing import Any

from dreamer_agent.envs.slots import SHOWN, Bystander, Described, Factory
from dreamer_agent.envs.worker import MAKE, sentence
from dreamer_agent.errors import ConfigError, DreamerError, EnvironmentFault

FIRST_ANSWER = 5  # times the timeout: it includes starting Python, and importing and making the environment
CLOSING = 5.0  # seconds that an environment has for closing
START = "from dreamer_agent.envs.worker import main; main({handle}, {progress})"


def spread(factories: Sequence[Factory], processes: int, timeout: float) -> list[RemoteSlot]:
    """Slots of the environments that `factories` make, neighbours together, in at most so many processes.

    Raises `ConfigError` where a factory cannot be sent to another process.
    """
    hosts = [Host(timeout) for _ in range(min(processes, len(factories)))]
    return [RemoteSlot(one, hosts, i * len(hosts) // len(factories)) for i, one in enumerate(factories)]


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


class Host:
    """One process and what it is asked: a message for all its environments together, answered by one.

    It starts with the first environment that is made there, and is ended where one of them does not answer in
    `timeout` seconds. Each has that time for itself, up to twice as much where it is not the first in turn.
    """

    def __init__(self, timeout: float):
        self.timeout, self.deadline, self.allowed = timeout, 0.0, 0.0
        self.places = 0
        self.there: list[RemoteSlot] = []  # whose environments are made, or being made
        self.waiting: list[tuple[RemoteSlot, str, Any]] = []  # to be sent
        self.sent: list[tuple[RemoteSlot, str, Any]] = []  # not answered yet; done with the first `done`
        self.done = 0
        self.answers: dict[RemoteSlot, bytes] = {}
        self.lost: dict[RemoteSlot, EnvironmentFault] = {}  # why there will be none
        self.process: subprocess.Popen | None = None
        self.connection: Any = None
        self.poller = select.poll()  # of the connection, which makes one anew for each of its own calls
        self.progress = -1  # a pipe with a byte for each that is done, of several

    def add(self) -> int:
        """The number of one more place."""
        self.places += 1
        return self.places - 1

    def admit(self, slot: RemoteSlot) -> None:
        """Have a process for an environment to be made anew; a fresh one where it is there alone."""
        if self.there in ([], [slot]):
            self.end()
            self._start()
        if slot not in self.there:
            self.there.append(slot)
        self.lost.pop(slot, None)

    def ask(self, slot: RemoteSlot, command: str, argument: Any) -> None:
        """Ask for something at the next `send`."""
        self.answers.pop(slot, None)
        if slot in self.there:
            self.waiting.append((slot, command, argument))

    def send(self) -> None:
        """Hand over what was asked, after what was sent before is answered."""
        if self.waiting and self.sent:
            self._receive()
        if self.waiting:
            self.sent, self.waiting, self.done = self.waiting, [], 0
            self._allow()
            asked = [(slot.place, command, argument) for slot, command, argument in self.sent]
            with contextlib.suppress(OSError):  # the process is gone: `_receive` says so
                self.connection.send_bytes(pickle.dumps(asked))

    def answer(self, slot: RemoteSlot) -> bytes:
        """What was answered for one environment; `EnvironmentFault` where nothing will be."""
        while slot not in self.answers:
            if slot not in self.there:
                raise self.lost.get(slot) or EnvironmentFault(f"The process of {slot} was not started.")
            self._receive()
        return self.answers.pop(slot)

    def hurry(self) -> None:
        """Wait at most `CLOSING` seconds for each answer from now on."""
        self.timeout = min(self.timeout, CLOSING)
        self.deadline = min(self.deadline, time.monotonic() + CLOSING)

    def end(self, blamed: RemoteSlot | None = None, why: str = "") -> None:
        """End the process, and those that it started; `why` tells of the environment that is to be `blamed`."""
        if self.process is None:
            return
        for slot in self.there:
            kind = EnvironmentFault if slot is blamed or not why else Bystander
            self.lost[slot] = kind(why or f"The process of {slot} has ended: reset the environments.")
        self.there, self.waiting, self.sent = [], [], []
        self.connection.close()
        os.close(self.progress)
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def _start(self) -> None:
        """Start Python anew: a fork copies the locks of JAX's threads, and multiprocessing runs scripts again."""
        self.connection, theirs = Pipe()
        self.poller = select.poll()
        self.poller.register(self.connection, select.POLLIN)
        self.progress, done = os.pipe()
        os.set_blocking(self.progress, False)
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        # The accelerator is the learner's.
        environment = {"JAX_PLATFORMS": "cpu", **os.environ, "PYTHONPATH": path}
        start = START.format(handle=theirs.fileno(), progress=done)
        with theirs, open(done, "wb"):  # both are closed here
            self.process = subprocess.Popen(
                [get_executable(), "-P", "-c", start], env=environment,
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno(), done], process_group=0,
            )  # fmt: skip

    def _allow(self) -> None:
        """Give the environment whose turn it is its time."""
        self.allowed = self.timeout * (FIRST_ANSWER if self._turn[1] == MAKE else 1)
        self.deadline = time.monotonic() + self.allowed

    def _receive(self) -> None:
        """Wait for the answers to what was sent; end the process where it ended itself or is silent."""
        try:
            while not self.poller.poll(1e3 * max(0.0, self.deadline - time.monotonic())):
                if not self._advanced():
                    self._silent()
                    return
                self._allow()
            answers = pickle.loads(self.connection.recv_bytes())  # of our own process
        except (EOFError, OSError):
            self._gone()
            return
        self._advanced()
        self.answers |= {slot: answer for (slot, *_), answer in zip(self.sent, answers, strict=True)}
        self.sent = []

    def _advanced(self) -> bool:
        """Count the environments that are done; whether there are more than before."""
        before = self.done
        if len(self.sent) > 1:
            with contextlib.suppress(BlockingIOError):
                self.done += len(os.read(self.progress, 1 << 16))
        return self.done > before

    @property
    def _turn(self) -> tuple[RemoteSlot, str]:
        """Whose turn it is, and at what."""
        slot, command, _ = self.sent[min(self.done, len(self.sent) - 1)]
        return slot, command

    def _silent(self) -> None:
        slot, command = self._turn
        it = str(slot)
        why = (
            f"{it[0].upper()}{it[1:]} did not answer its {command} within {self.allowed:g} s: raise env.timeout "
        )
        self.end(slot, why + "if it needs longer.")

    def _gone(self) -> None:
        self._advanced()
        slot, command = self._turn
        code: int | None = None
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.process.wait(1.0)
        how = f"by the signal {signal.Signals(-code).name}" if code and code < 0 else f"with the exit code {code}"
        why = (
            f"The process of {slot} ended {how} during its {command}: set env.processes=0 to see it end this one."
        )
        self.end(slot, why)


def _error_of(it: str, kind: str, content: str, lines: str) -> Exception:
    """What a process told of its error, as one of ours with its traceback as a note."""
    known = {one.__name__: one for one in DreamerError.__subclasses__()}
    error = known.get(kind, EnvironmentFault)(
        content if kind else f"{it[0].upper()}{it[1:]} raised {content}{SHOWN}"
    )
    error.add_note(f"In the process of the environment:\n{lines}")
    return error
