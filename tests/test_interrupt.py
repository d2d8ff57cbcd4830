"""Signals that ask a command to end, on its way to the training, in it, and behind it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from dreamer_agent.interrupt import REQUEUE, end_of, on_interrupt, requeued


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    """SIGINT raises `KeyboardInterrupt`, also where the tests run in the background, in which it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_outside_of_the_training_a_signal_ends_the_command_at_once_with_the_code_for_trying_again() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, requeued():
        signal.raise_signal(signal.SIGTERM)
    assert end.value.code == REQUEUE == 75
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_the_training_the_first_signal_is_a_wish_and_the_second_an_order() -> None:
    heard: list[int] = []
    with pytest.raises(SystemExit), requeued(), on_interrupt(heard.append):
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    with pytest.raises(KeyboardInterrupt), on_interrupt(heard.append):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert heard == [signal.SIGTERM, signal.SIGINT]


def test_behind_the_training_it_is_as_before_it() -> None:
    with pytest.raises(SystemExit), requeued():
        with on_interrupt(lambda number: None):
            pass
        signal.raise_signal(signal.SIGTERM)


def test_other_threads_leave_the_signals_alone() -> None:
    handlers = []

    def look() -> None:
        with requeued(), on_interrupt(lambda number: None):
            handlers.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [[signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]]


def test_what_a_run_raises_tells_the_signal() -> None:
    assert isinstance(end_of(signal.SIGINT), KeyboardInterrupt)
    end = end_of(signal.SIGTERM)
    assert isinstance(end, SystemExit) and end.code == REQUEUE
