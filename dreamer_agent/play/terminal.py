"""The game in a terminal: pictures of half blocks, numbers below, single keys."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.color import Color
from rich.console import Console, Group
from rich.live import Live
from rich.style import Style
from rich.table import Table
from rich.text import Text

from dreamer_agent.errors import ConfigError
from dreamer_agent.play.controls import DOWN, LEFT, RIGHT, UP, Binding
from dreamer_agent.play.recording import Recorder
from dreamer_agent.play.session import HUMAN, POLICY, Moment, Session, Side

ESCAPES = {"\x1b[A": UP, "\x1b[B": DOWN, "\x1b[C": RIGHT, "\x1b[D": LEFT}
WINDOWS = {"H": UP, "P": DOWN, "M": RIGHT, "K": LEFT}
LINES = 8  # of the terminal that are not pictures
HELD = 0.3  # seconds that a key counts as held: terminals do not tell when it is let go


def play(session: Session, recorder: Recorder, fps: float = 10.0, console: Console | None = None) -> None:
    """Play until q is pressed. Space runs and pauses, any key of an action acts.

    Raises `ConfigError` where there is no terminal.
    """
    if not sys.stdin.isatty():
        raise ConfigError("There is no terminal to play in: start it in one, or play in the browser.")
    console = console or Console()
    game = _Game(session, recorder)
    with single_keys(), Live(game.shown(console), console=console, screen=True, auto_refresh=False) as live:
        while not game.done:
            began = time.monotonic()
            game.hear(read_key(0.0 if game.running else 0.2))
            if game.running and not session.over:
                game.step()
            live.update(game.shown(console), refresh=True)
            if game.running:
                game.hear(read_key(max(0.0, 1 / fps - (time.monotonic() - began))))


class _Game:
    """What keys have come to."""

    def __init__(self, session: Session, recorder: Recorder):
        self.session, self.recorder = session, recorder
        self.running = self.done = False
        self.who, self.since = HUMAN, 0.0
        self.touched: Binding | None = None
        self.message = ""
        recorder.add(session.moment)

    def hear(self, key: str | None) -> None:
        """Do what `key` stands for."""
        if key is None:
            return
        self.message = ""
        commands = {
            " ": self._run, "r": self._again, "n": self.step, "p": self._change, "l": self._look, "q": self._end,
            "\x03": self._end,
        }  # fmt: skip
        if key in self.session.bindings:
            self.who, self.touched, self.since = HUMAN, self.session.bindings[key], time.monotonic()
            if not self.running:
                self.step()
        elif key in commands:
            commands[key]()

    def step(self) -> None:
        """One step, by a person with the key pressed last."""
        values: list[Any] | None = None
        if self.who == HUMAN:
            values = [control.idle for control in self.session.controls]
            if self.touched and time.monotonic() - self.since < HELD:
                values[self.touched.control] = self.touched.value
        self.recorder.add(self.session.step(self.who, values))

    def shown(self, console: Console) -> Group:
        """The whole screen."""
        moment = self.session.moment
        table = Table.grid(padding=(0, 2))
        sides = [("dreamed", moment.dream)] + ([("real", moment.real)] if moment.real else [])
        wide = max((console.width - 2 * len(sides)) // len(sides), 8)
        high = max(console.height - LINES, 4)
        table.add_row(*(_caption(name, side) for name, side in sides))
        table.add_row(*(blocks(side.frame, wide, high) for _, side in sides))
        return Group(table, *self._words(moment))

    def _words(self, moment: Moment) -> Iterator[Text]:
        thoughts = moment.thoughts
        yield Text(
            f"step {moment.steps}   value {thoughts.value:.2f}   goes on {thoughts.goes_on:.2f}   "
            f"uncertainty {thoughts.entropy:.2f} nats   player {self.who}{'' if self.running else '   paused'}"
        )
        names = {LEFT: "←", RIGHT: "→", UP: "↑", DOWN: "↓"}
        keys = " ".join(names.get(key, key) for key in self.session.bindings)
        look = ", l looks at reality" if moment.real else ""
        yield Text(f"{keys} act, space runs, n steps, p policy, r anew{look}, q ends", style="dim")
        ended = "The dream has ended: r begins another." if self.session.over else ""
        yield Text(self.message or ended, style="bold red")

    def _run(self) -> None:
        self.running = not self.running

    def _again(self) -> None:
        self.recorder.add(self.session.reset())

    def _change(self) -> None:
        self.who = POLICY if self.who == HUMAN else HUMAN

    def _look(self) -> None:
        try:
            self.recorder.add(self.session.peek())
        except ConfigError as error:
            self.message = str(error)

    def _end(self) -> None:
        self.done = True


def blocks(frame: np.ndarray, wide: int, high: int) -> Text:
    """A picture `[H, W, 3]` in at most `wide` columns and `high` lines, two pixels to a letter."""
    from PIL import Image

    scale = min(wide / frame.shape[1], 2 * high / frame.shape[0])
    size = (max(round(frame.shape[1] * scale), 1), max(round(frame.shape[0] * scale / 2), 1) * 2)
    pixels = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))
    text = Text()
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        text.append("\n")
    text.rstrip()
    return text


def _caption(name: str, side: Side) -> Text:
    ended = ", ended" if side.ended else ""
    return Text(f"{name}   reward {side.reward:.2f}   return {side.total:.2f}{ended}", style="bold")


@contextmanager
def single_keys() -> Iterator[None]:
    """Keys reach the program as they are pressed, and do not show."""
    if sys.platform == "win32":
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def read_key(seconds: float) -> str | None:
    """The next key, arrows by their names; None where none comes within `seconds`."""
    if sys.platform == "win32":
        return _read_windows(seconds)
    import os
    import select

    number = sys.stdin.fileno()
    if not select.select([number], [], [], seconds)[0]:
        return None
    text = os.read(number, 32).decode(errors="ignore")
    for escape, name in ESCAPES.items():
        if text.startswith(escape):
            return name
    return text[:1] or "q"  # nothing more can come: the terminal is gone


def _read_windows(seconds: float) -> str | None:
    import msvcrt  # type: ignore[import-not-found,unused-ignore]

    keyboard: Any = msvcrt
    until = time.monotonic() + seconds
    while not keyboard.kbhit():
        if time.monotonic() >= until:
            return None
        time.sleep(0.01)
    key = keyboard.getwch()
    return WINDOWS.get(keyboard.getwch()) if key in ("\x00", "\xe0") else key
