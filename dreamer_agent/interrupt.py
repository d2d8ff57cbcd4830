"""Signals that ask a run to end: the step at hand is finished and all is saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

REQUEUE = 75  # exit code of a run that was asked to end: EX_TEMPFAIL of sysexits.h, "try again later"
ASKING = (signal.SIGINT, signal.SIGTERM)

_asked = threading.Event()


def asked() -> bool:
    """Whether a signal has asked this process to end, which now saves."""
    return _asked.is_set()


@contextmanager
def on_interrupt(first: Callable[[int], None]) -> Iterator[None]:
    """Call `first` with the number of the first SIGINT (Ctrl-C) or SIGTERM; later ones act as ever.

    Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ASKING}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, _: Any) -> None:
        restore()
        _asked.set()
        first(number)

    for number in ASKING:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


@contextmanager
def requeued() -> Iterator[None]:
    """Have SIGTERM raise `SystemExit` (75) at once, as Ctrl-C raises `KeyboardInterrupt`.

    For the way of a command to its training and from there on: `on_interrupt` takes over in between. Does nothing
    outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: Any) -> None:
        raise end_of(number)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_of(number: int) -> BaseException:
    """What a run raises once it has saved: as Python does for Ctrl-C, an exit for a scheduler otherwise."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(REQUEUE)
