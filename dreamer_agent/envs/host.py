"""A process with environments in it, as the run sees it; `worker` is what runs there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dreamer_agent.envs.child import Asked, Child, Link
from dreamer_agent.envs.slots import Bystander
from dreamer_agent.envs.worker import MAKE
from dreamer_agent.errors import EnvironmentFault

if TYPE_CHECKING:
    from dreamer_agent.envs.processes import RemoteSlot

FIRST_ANSWER = 5  # times the timeout: it includes starting Python, and importing and making the environment
CLOSING = 5.0  # seconds that an environment has for closing


class Host:
    """One process and what it is asked, for all its environments together; `start` gives the link to a new one.

    It starts with the first environment that is made there, and is ended where one of them does not answer in
    `timeout` seconds. Each has that time for itself, up to twice as much where it is not the first in turn.
    """

    def __init__(self, timeout: float, start: Callable[[], Link] = Child):
        self.timeout, self.deadline, self.allowed = timeout, 0.0, 0.0
        self.start = start
        self.places = 0
        self.there: list[RemoteSlot] = []  # whose environments are made, or being made
        self.waiting: list[tuple[RemoteSlot, str, Any]] = []  # to be sent
        self.sent: list[tuple[RemoteSlot, str, Any]] = []  # not answered yet; done with the first `done`
        self.done = 0
        self.answers: dict[RemoteSlot, bytes] = {}
        self.lost: dict[RemoteSlot, EnvironmentFault] = {}  # why there will be none
        self.link: Link | None = None

    def add(self) -> int:
        """The number of one more place."""
        self.places += 1
        return self.places - 1

    def admit(self, slot: RemoteSlot) -> None:
        """Have a process for an environment to be made anew; a fresh one where it is there alone."""
        if self.there in ([], [slot]):
            self.end()
            self.link = self.start()
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
            assert self.link is not None
            self.link.send([Asked(slot.place, command, argument) for slot, command, argument in self.sent])

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
        if self.link is None:
            return
        for slot in self.there:
            kind = EnvironmentFault if slot is blamed or not why else Bystander
            self.lost[slot] = kind(why or f"The process of {slot} has ended: reset the environments.")
        self.there, self.waiting, self.sent = [], [], []
        self.link.kill()
        self.link = None

    def _allow(self) -> None:
        """Give the environment whose turn it is its time."""
        self.allowed = self.timeout * (FIRST_ANSWER if self._turn[1] == MAKE else 1)
        self.deadline = time.monotonic() + self.allowed

    def _receive(self) -> None:
        """Wait for the answers to what was sent; end the process where it ended itself or is silent."""
        assert self.link is not None
        try:
            while not self.link.wait(max(0.0, self.deadline - time.monotonic())):
                if not self._advanced():
                    self._silent()
                    return
                self._allow()
            answers = self.link.receive()
        except (EOFError, OSError):
            self._gone()
            return
        self.answers |= {slot: answer for (slot, *_), answer in zip(self.sent, answers, strict=True)}
        self.sent = []

    def _advanced(self) -> bool:
        """Count the environments that are done; whether there are more than before."""
        assert self.link is not None
        before, self.done = self.done, self.link.done()
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
        assert self.link is not None
        how = self.link.ended()
        why = (
            f"The process of {slot} ended {how} during its {command}: set env.processes=0 to see it end this one."
        )
        self.end(slot, why)
