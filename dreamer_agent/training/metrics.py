"""The metrics of a run: one writer in front of all its loggers, and reading them back."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dreamer_agent.config import Config
from dreamer_agent.errors import ConfigError, DreamerError
from dreamer_agent.registry import in_one_line
from dreamer_agent.training.loggers import LOGGERS, Logger, Positioned, Resumable, TakesImages

ALWAYS = ("jsonl", "tensorboard")


class MetricsWriter:
    """Hands every row to `metrics.jsonl`, to TensorBoard and to the loggers that `config.train.loggers` names.

    Rows after `resume_step`, where the run goes on, are forgotten; where a logger told its position at that step,
    those after `positions[name]`. A logger that raises later is dropped with one warning, and the others go on.
    Raises `ConfigError` for a logger that is unknown or cannot start.
    """

    def __init__(
        self, folder: Path, resume_step: int = 0, config: Config | None = None,
        positions: Mapping[str, int] | None = None,
    ):  # fmt: skip
        config = config or Config()
        check_loggers(config)
        self.loggers: dict[str, Logger] = {}
        for name in dict.fromkeys((*ALWAYS, *config.train.loggers)):
            self.loggers[name] = _start(name, folder, config)
        self.resume(resume_step, positions or {})

    def resume(self, step: int, positions: Mapping[str, int]) -> None:
        """Go on from env step `step`, where the loggers were at `positions`."""
        for name, logger in list(self.loggers.items()):
            if isinstance(logger, Positioned) and name in positions:
                self._guard(name, logger.rewind, int(positions[name]))
            elif isinstance(logger, Resumable):
                self._guard(name, logger.resume, step)

    def positions(self) -> dict[str, int]:
        """Where the loggers are that tell."""
        return {
            name: logger.position() for name, logger in self.loggers.items() if isinstance(logger, Positioned)
        }

    def write(self, step: int, row: dict[str, float]) -> None:
        """One row of scalars at env step `step`."""
        clean = {key: float(value) for key, value in row.items()}
        for name, logger in list(self.loggers.items()):
            self._guard(name, logger.write, step, dict(clean))

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture `[H, W, 3]` uint8, for the loggers that take pictures."""
        for logger_name, logger in list(self.loggers.items()):
            if isinstance(logger, TakesImages):
                self._guard(logger_name, logger.image, step, name, image)

    def close(self) -> None:
        """Let every logger write what it still holds; later calls do nothing."""
        for name, logger in list(self.loggers.items()):
            self._guard(name, logger.close)
        self.loggers.clear()

    def _guard(self, name: str, call: Callable[..., None], *arguments: Any) -> None:
        """`call(*arguments)`; a logger that fails is dropped, since training matters more than its log."""
        try:
            call(*arguments)
        except Exception as error:
            self.loggers.pop(name, None)
            warnings.warn(
                f"The logger '{name}' failed ({in_one_line(error)}) and is left out from here on; "
                "training goes on.",
                RuntimeWarning,
                stacklevel=3,
            )


def check_loggers(config: Config) -> None:
    """Raise a `DreamerError` if `config.train.loggers` names one that is unknown or lacks what it needs."""
    for name in config.train.loggers:
        check = getattr(LOGGERS.get(name), "check", None)
        if check is not None:
            check()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All rows of a run's `metrics.jsonl`; a last line that was not written whole is left out."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines[:-1]]
    with contextlib.suppress(json.JSONDecodeError):
        rows += [json.loads(line) for line in lines[-1:]]
    return rows


def newest_metrics(folder: Path, size: int = 1 << 16) -> list[dict[str, Any]]:
    """The rows in the last `size` bytes of a run's `metrics.jsonl`: enough to say how far it is."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    with path.open("rb") as file:
        start = max(path.stat().st_size - size, 0)
        file.seek(start)
        lines = file.read().splitlines()[1 if start else 0 :]  # the first one may have lost its beginning
    rows = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def average(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of each metric over `rows` of device scalars, fetched at once, without the NaN of skipped updates."""
    fetched = jax.device_get(rows)
    keys = fetched[0] if fetched else {}
    columns = {key: np.array([row[key] for row in fetched]) for key in keys}
    return {key: float(np.mean(x[~np.isnan(x)])) for key, x in columns.items() if not np.isnan(x).all()}


def _start(name: str, folder: Path, config: Config) -> Logger:
    try:
        return LOGGERS.get(name)(folder, config)
    except DreamerError:
        raise
    except Exception as error:
        raise ConfigError(
            f"The logger '{name}' cannot start ({in_one_line(error)}): mend that, "
            "or leave it out of train.loggers."
        ) from error
