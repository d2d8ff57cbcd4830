"""What launchers work through: runs, each with a run directory, that a process of their own trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from dreamer_agent.errors import DreamerError, RunDirectoryError
from dreamer_agent.registry import in_one_line

BOTH = 2  # scores of a finished run: with sampled and with the likeliest actions; a planner's may follow
PARENT = "DREAMER_AGENT_PARENT"  # variable of a process that was started: the id of the one that did


class Work(Protocol):
    """One run, as launchers see it. Everything about how far it is lies in its run directory."""

    @property
    def shown(self) -> Mapping[str, str]:
        """What a table says of it, column by column; together they name it."""

    @property
    def folder(self) -> Path:
        """Its run directory."""

    @property
    def steps(self) -> int:
        """Its budget in env steps."""

    def check(self) -> None:
        """Raise a `DreamerError` where the run directory holds something else."""

    def finished(self) -> bool:
        """Whether it was trained for all of its steps and scored."""

    def command(self) -> list[str]:
        """What a process executes to train it or to go on; launchers add its cores ("0,1") as an argument."""


def evaluation_of(work: Work) -> dict[str, Any] | None:
    """The scores of a finished run; None until it has trained for all of its steps.

    Raises `RunDirectoryError` where they are damaged.
    """
    return evaluation_in(work.folder, work.steps)


def evaluation_in(folder: Path, steps: int) -> dict[str, Any] | None:
    """What the `evaluation.json` of a run directory says; None where it has none, or one of fewer than `steps`.

    Raises `RunDirectoryError` where it is damaged.
    """
    path = folder / "evaluation.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except ValueError:  # no JSON, or not even text
        content = None
    wrong = _wrong(content, steps)
    if wrong:
        raise RunDirectoryError(
            f"{folder} has a damaged evaluation.json ({wrong}): delete that file, and the same command scores "
            "the run anew; a baseline, which keeps nothing to go on from, it trains anew."
        )
    return content if content["env_steps"] >= steps else None


def _wrong(content: Any, steps: int) -> str:
    """What is wrong with an evaluation; empty where nothing is, or where nobody reads more than its steps."""
    if not isinstance(content, dict):
        return "it is no JSON object"
    if not _is_number(content.get("env_steps")):
        return "env_steps is no number"
    scores = content.get("scores")
    if content["env_steps"] < steps:
        return ""
    if not isinstance(scores, list) or len(scores) < BOTH:
        return "scores is no list of those with sampled and with the likeliest actions"
    means = [score.get("return_mean") if isinstance(score, dict) else None for score in scores]
    return "" if all(map(_is_number, means)) else "a score has no return_mean"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def log_of(work: Work) -> Path:
    """What its process prints; beside the run directory, which holds nothing but the run."""
    return work.folder.with_name(work.folder.name + ".log")


def mark_of(work: Work) -> Path:
    """The file that says that it was stopped early; beside the run directory, as its log is."""
    return work.folder.with_name(work.folder.name + ".stopped.json")


def why_stopped(found: Mapping[str, Any]) -> str:
    """Who stopped a run early, and for what, from what `stopped_early` gives."""
    return f"by {found['by']}, for a return of {found['return']:,.4g} at {found['env_steps']:,} env steps"


def stopped_early(work: Work) -> dict[str, Any] | None:
    """Who stopped it before it had its steps, at which env step and return; None where nobody did.

    A run that was trained to its end since is none of these.
    """
    path = mark_of(work)
    return json.loads(path.read_text()) if path.is_file() and not work.finished() else None


def start(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, cwd: str | None = None
) -> subprocess.Popen:
    """A process in a session of its own, so that no signal reaches it twice; what it prints is added to `log`.

    It finds the id of this one in the variable `PARENT`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    given = {**(os.environ if environment is None else environment), PARENT: str(os.getpid())}
    with log.open("ab") as file:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=given, cwd=cwd,
            start_new_session=True,
        )  # fmt: skip


def ended(code: int) -> str:
    """How a process ended, from its exit code."""
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def name_of(work: Work) -> str:
    """Its name in one line."""
    return " ".join(f"seed {value}" if key == "seed" else value for key, value in work.shown.items())


def told(error: Exception) -> str:
    """What went wrong, in one line; our own errors are sentences."""
    return str(error) if isinstance(error, DreamerError) else in_one_line(error)


def last_line(log: Path) -> str:
    """What a process said last."""
    lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it ended without a word")
