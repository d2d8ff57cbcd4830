"""What runs in a process of environments: answers what is asked over a connection, and ends with its parent.

It imports neither JAX nor the learner, so that it starts quickly and takes no memory of an accelerator.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dreamer_agent.errors import ConfigError, DreamerError

MAKE = "make"  # what is asked first; the rest is `slots.perform`
ASKING = (signal.SIGINT, signal.SIGTERM)
TWICE = (
    "The function that makes environments gave the same one twice, but each needs a state of its own: make a new "
    "environment at every call, or give the environment itself."
)


def main(handle: int, progress: int) -> None:
    """Serve the connection `handle`; `progress` is the end of a pipe, which gets a byte for whatever is done.

    Ctrl-C is the parent's to handle: it says when to end.
    """
    _disregard_signals()
    threading.Thread(target=_end_with_parent, args=(handle,), daemon=True).start()
    connection: Connection = Connection(handle)
    with contextlib.suppress(EOFError, ConnectionError):
        _serve(connection, progress)


def _disregard_signals() -> None:
    """Let SIGINT and SIGTERM do nothing here, and end as ever what the environment starts.

    A handler is no more in a program that is started, where "ignored" would be, and a fork takes its own off.
    """
    for number in ASKING:
        signal.signal(number, lambda *_: None)
        signal.siginterrupt(number, False)  # a simulator's system calls are resumed
    os.register_at_fork(after_in_child=_heed_signals)


def _heed_signals() -> None:
    for number in ASKING:
        signal.signal(number, signal.SIG_DFL)


def _end_with_parent(handle: int) -> None:
    """Wait until the other end is closed, also by the parent's death, and end this process group at once."""
    waiting = select.poll()
    waiting.register(handle, 0)  # nothing but a hang-up
    waiting.poll()
    os.killpg(0, signal.SIGKILL)


def _serve(connection: Connection, progress: int) -> None:
    """Do what is asked of the environments, one after the other, and answer for all of them together."""
    envs: dict[int, Any] = {}
    while True:
        asked, answers = pickle.loads(connection.recv_bytes()), []  # of its own parent
        for place, command, argument in asked:
            answers.append(answer(envs, place, command, argument))
            if len(asked) > 1:  # else it is known whose turn it is
                os.write(progress, b".")
        connection.send_bytes(pickle.dumps(answers))
        if asked[-1][1] == "close" and not envs:
            return


def answer(envs: dict[int, Any], place: int, command: str, argument: Any) -> bytes:
    """Do what is asked of one of `envs`, and pickle what came of it, or the error."""
    return _pickled(_done(envs, place, command, argument), by_value=command == MAKE)


def _done(envs: dict[int, Any], place: int, command: str, argument: Any) -> tuple[str, Any]:
    """What the functions of the module `slots` give."""
    from dreamer_agent.envs import slots

    env = envs.get(place)
    try:
        if command == MAKE:
            _close(envs, place)
            envs[place] = _made(argument, envs)
            return "done", slots.describe(envs[place])
        if command == "close":
            envs.pop(place, None)
        assert env is not None, "it was not made"
        return "done", slots.perform(env, command, argument)
    except Exception as error:
        return "failed", told(error)
    except SystemExit as error:
        return "failed", told(slots.exited(envs.get(place), error.code, command))


def _made(factory: bytes, others: dict[int, Any]) -> Any:
    env = pickle.loads(factory)()  # by its own parent
    if any(env.unwrapped is one.unwrapped for one in others.values()):
        raise ConfigError(TWICE)
    return env


def _close(envs: dict[int, Any], place: int) -> None:
    """Close an environment that is to be made anew."""
    with contextlib.suppress(Exception, SystemExit):  # it is broken already
        if place in envs:
            envs.pop(place).close()


def _pickled(answer: Any, by_value: bool) -> bytes:
    """`by_value`, which is slower, for what may be of a script's classes: the parent knows them otherwise."""
    try:
        if not by_value:
            return pickle.dumps(answer)
        import cloudpickle

        return cloudpickle.dumps(answer)
    except Exception as error:
        return pickle.dumps(("failed", told(error)))


def told(error: Exception) -> tuple[str, str, str]:
    """The kind of an error of ours ("" for others), what to say of it, and its traceback."""
    lines = "".join(traceback.format_exception(error))
    if isinstance(error, DreamerError):
        return type(error).__name__, str(error), lines
    return "", sentence(error), lines


def sentence(error: BaseException) -> str:
    """An error in a few words, with the line of the environment that raised it."""
    shown = " ".join(str(error).split())
    shown = shown if len(shown) < 200 else f"{shown[:197]}..."
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).parents[1])
    frames = [frame for frame in frames if not frame.filename.startswith((ours, "<"))] or frames  # type: ignore[assignment]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if shown else ''}{shown.rstrip('.')}{where}"
