"""A process with environments in it, as the run sees it; `worker` is what runs there."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from multiprocessing import Pipe
from multiprocessing.spawn import get_executable
from typing import TYPE_CHECKING, Any

from dreamer_agent.envs.slots import Bystander
from dreamer_agent.envs.worker import MAKE
from dreamer_agent.errors import EnvironmentFault

if TYPE_CHECKING:
    from dreamer_agent.envs.processes import RemoteSlot

FIRST_ANSWER = 5  # times the timeout: it includes starting Python, and importing and making the environment
CLOSING = 5.0  # seconds that an environment has for closing
START = "from dreamer_agent.envs.worker import main; main({handle}, {progress})"


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
