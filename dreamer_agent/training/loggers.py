"""Where the scalars of a run go: the contract of a logger, the registry, and the three that ship.

`metrics.jsonl` and TensorBoard are written for every run; `train.loggers` names those beside them. Nothing leaves
the machine unless a logger that does so was named there.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dreamer_agent.config import Config
from dreamer_agent.errors import missing_extra
from dreamer_agent.registry import Registry
from dreamer_agent.values import to_dict


class Logger(Protocol):
    """Takes the rows of one run. An error in `write` or `close` ends the logger with a warning, not the run."""

    def write(self, step: int, row: dict[str, float]) -> None:
        """Scalars by name (`docs/metrics.md`; some may be NaN) at env step `step`."""

    def close(self) -> None:
        """Called once, when training has ended."""


@runtime_checkable
class Resumable(Protocol):
    """A logger that also wants to know where its run goes on."""

    def resume(self, step: int) -> None:
        """Called before the first row: the run goes on from env step `step` (0: it starts); forget later rows."""


@runtime_checkable
class Positioned(Protocol):
    """A logger that knows where in its output it is: a resumed run then has every row once."""

    def position(self) -> int:
        """After the rows so far; written with every checkpoint."""

    def rewind(self, position: int) -> None:
        """Instead of `resume`: forget what came after `position`."""


@runtime_checkable
class TakesImages(Protocol):
    """A logger that also takes pictures."""

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture `[H, W, 3]` uint8 at env step `step`."""


LoggerFactory = Callable[[Path, Config], Logger]
LOGGERS: Registry[LoggerFactory] = Registry("logger")


def register_logger(name: str, *, replace: bool = False) -> Callable[[LoggerFactory], LoggerFactory]:
    """Register `factory(run_directory, config) -> Logger` under `name`, for `train.loggers=[name]`.

    Where the factory has a `check()`, it is called before the run directory is made, to raise what would keep the
    logger from starting. Raises `ConfigError` where another logger has the name, unless `replace` is set.
    """
    return LOGGERS.register(name, replace=replace)


@register_logger("jsonl")
class Jsonl:
    """`metrics.jsonl` in the run directory: one JSON object a line, null for what is not finite.

    Rows that cannot be written, since the disk is full, are kept and written with the next one.
    """

    def __init__(self, folder: Path, config: Config):
        self.path = folder / "metrics.jsonl"
        self.written = self.path.stat().st_size if self.path.exists() else 0
        self.waiting = b""

    def resume(self, step: int) -> None:
        """Drop the rows after `step`, and a line torn by a kill."""
        if self.path.exists():
            rows = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
            self.path.write_text("".join(line + "\n" for line in rows))
            self.written = self.path.stat().st_size

    def position(self) -> int:
        """Bytes, with rows that wait to be written: they are tried once more."""
        self.close()
        return self.written + len(self.waiting)

    def rewind(self, position: int) -> None:
        """Drop what follows; a file that is shorter, since it was tampered with, stays as it is."""
        self.waiting = b""
        if self.path.exists():
            self.written = min(position, self.path.stat().st_size)
            os.truncate(self.path, self.written)

    def write(self, step: int, row: dict[str, float]) -> None:
        """Append one line."""
        finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
        self.waiting += json.dumps({"step": step, **finite}).encode() + b"\n"
        self._flush()

    def close(self) -> None:
        """Write what waits."""
        if self.waiting:
            self._flush()

    def _flush(self) -> None:
        try:
            with self.path.open("ab") as file:
                self.written = min(self.written, os.fstat(file.fileno()).st_size)
                file.truncate(self.written)  # a line that was torn by a full disk
                file.write(self.waiting)
        except OSError as error:
            warnings.warn(f"Metrics cannot be written ({error}): they are kept in memory for now.", stacklevel=2)
        else:
            self.written, self.waiting = self.written + len(self.waiting), b""


@register_logger("tensorboard")
class TensorBoard:
    """TensorBoard events in the run directory; does nothing where tensorboardX is not installed.

    They are written at once, by whoever writes: the thread of tensorboardX's `SummaryWriter` ends when the disk
    is full, and training would wait for it for ever. After that a new file is begun, since the old one is torn.
    """

    def __init__(self, folder: Path, config: Config):
        self.folder, self.purge_step = folder, 0

    def resume(self, step: int) -> None:
        """Hide the rows after `step`."""
        self.close()  # a new file of events says what to hide
        self.purge_step = step + 1 if step else 0  # TensorBoard hides the purge step itself too

    @functools.cached_property
    def _events(self) -> Any:
        try:
            import tensorboardX  # noqa: F401  (what is meant by "installed")
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
        except ImportError:  # the learner runs without it
            return None
        nanoseconds = f".{time.time_ns() % 10**9:09d}"  # the name has seconds, in which there may be two files
        events = EventsWriter(str(self.folder / "events"), nanoseconds)
        if self.purge_step:
            log = SessionLog(status=SessionLog.START)
            events.write_event(Event(wall_time=time.time(), step=self.purge_step, session_log=log))
            self.purge_step = 0
        return events

    def write(self, step: int, row: dict[str, float]) -> None:
        """One point of each curve."""
        self._add(step, lambda summary: [summary.scalar(key, value) for key, value in row.items()])

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture `[H, W, 3]` uint8."""
        self._add(step, lambda summary: [summary.image(name, image, dataformats="HWC")])

    def close(self) -> None:
        """End the file of events, if there is one."""
        events = vars(self).pop("_events", None)
        if events:
            events.close()

    def _add(self, step: int, summaries: Callable[[Any], list[Any]]) -> None:
        try:
            if not self._events:
                return
            from tensorboardX import summary
            from tensorboardX.proto.event_pb2 import Event

            for one in summaries(summary):
                self._events.write_event(Event(wall_time=time.time(), step=step, summary=one))
            self._events.flush()
        except OSError as error:
            vars(self).pop("_events", None)
            warnings.warn(f"TensorBoard's events cannot be written ({error}): they are left out.", stacklevel=2)


@register_logger("wandb")
class WandB:
    """A run of Weights & Biases, named after the run directory; resuming the directory continues it.

    Its environment variables hold, such as WANDB_MODE, WANDB_ENTITY, WANDB_PROJECT (else "dreamer_agent") and
    WANDB_DIR (else the run directory).
    """

    def __init__(self, folder: Path, config: Config):
        folder, wandb = folder.resolve(), self.check()
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "dreamer_agent"),
            dir=os.environ.get("WANDB_DIR", str(folder)),
            name=folder.name,
            id=_wandb_id(folder),
            resume="allow",
            reinit="create_new",  # neither joins nor ends a run that the user has open
            config=to_dict(config),
            allow_val_change=True,  # a resumed run may have more steps
        )

    @staticmethod
    def check() -> Any:
        """The module `wandb`; raises `MissingExtraError` where it is not installed."""
        try:
            import wandb
        except ImportError as error:
            raise missing_extra("wandb", "wandb") from error
        return wandb

    def write(self, step: int, row: dict[str, float]) -> None:
        """One point of each chart. W&B ignores steps before its newest: a resumed run fills up from there."""
        self.run.log(row, step=step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture `[H, W, 3]` uint8."""
        self.run.log({name: self.check().Image(image)}, step=step)

    def close(self) -> None:
        """Send what is left and end the run."""
        self.run.finish()


def _wandb_id(folder: Path) -> str:
    """The id of the run in `folder`, kept there. A random part keeps apart what other machines call the same."""
    path = folder / "wandb_id.txt"
    if not path.exists():
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.name)[:48]
        path.write_text(f"{name}-{uuid.uuid4().hex[:8]}\n")
    return path.read_text().strip()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):  # a line torn by a kill
        return math.inf
