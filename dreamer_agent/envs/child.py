"""A process of this machine that answers for environments, at the other end of a pipe."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.spawn import get_executable
from typing import Any, NamedTuple, Protocol

START = "from dreamer_agent.envs.worker import main; main({handle}, {progress})"


class Asked(NamedTuple):
    """What one environment of a process is to do, see `slots.perform`."""

    place: int
    command: str
    argument: Any


class Link(Protocol):
    """A process with environments, on this machine or another, from its start to its end."""

    def send(self, asked: Sequence[Asked]) -> None:
        """Have it all done, in this order; what was sent before has been received."""

    def wait(self, seconds: float) -> bool:
        """Whether all is done, or there will be no more, after at most so many seconds."""

    def done(self) -> int:
        """How many of what was sent are known to be done."""

    def receive(self) -> list[bytes]:
        """The answers, in order. `EOFError` or `OSError` where the process has ended before."""

    def ended(self) -> str:
        """How a process ended that gives no answers any more."""

    def kill(self) -> None:
        """End it, with what it started."""


class Child:
    """A `Link` to a process that starts here, and ends with this one.

    It is Python started anew: a fork copies the locks of JAX's threads, and multiprocessing runs scripts again.
    """

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        self.poller = select.poll()  # of the connection, which makes one anew for each of its own calls
        self.poller.register(self.connection, select.POLLIN)
        self.progress, done = os.pipe()  # a byte for each that is done, of several
        os.set_blocking(self.progress, False)
        self.several, self.count = False, 0  # of what was sent last
        start = START.format(handle=theirs.fileno(), progress=done)
        with theirs, open(done, "wb"):  # both are closed here
            self.process = subprocess.Popen(
                [get_executable(), "-P", "-c", start], env={**os.environ, **surroundings()},
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno(), done], process_group=0,
            )  # fmt: skip

    def send(self, asked: Sequence[Asked]) -> None:
        """See `Link`."""
        self.several, self.count = len(asked) > 1, 0
        with contextlib.suppress(OSError):  # the process is gone: `receive` says so
            self.connection.send_bytes(pickle.dumps(list(map(tuple, asked))))

    def wait(self, seconds: float) -> bool:
        """See `Link`."""
        return bool(self.poller.poll(1e3 * seconds))

    def done(self) -> int:
        """See `Link`; 0 of one."""
        if self.several:
            with contextlib.suppress(BlockingIOError):
                self.count += len(os.read(self.progress, 1 << 16))
        return self.count

    def receive(self) -> list[bytes]:
        """See `Link`."""
        answers: list[bytes] = pickle.loads(self.connection.recv_bytes())  # of our own process
        self.done()  # takes the bytes out of the pipe
        return answers

    def ended(self) -> str:
        """See `Link`."""
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(1.0)
        return (
            f"by the signal {signal.Signals(-code).name}" if code and code < 0 else f"with the exit code {code}"
        )

    def kill(self) -> None:
        """See `Link`."""
        self.connection.close()
        os.close(self.progress)
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def surroundings() -> dict[str, str]:
    """Environment variables of a process with environments: its modules, and no accelerator, the learner's."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu"), "PYTHONPATH": path}
