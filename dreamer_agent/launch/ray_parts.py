"""What Ray Tune calls: the trial of a run, the order of the trials, early stopping, progress. Imports Ray."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.schedulers.trial_scheduler import TrialScheduler
from ray.tune.search import Searcher

from dreamer_agent.interrupt import REQUEUE
from dreamer_agent.launch.devices import MEMORY, Share
from dreamer_agent.launch.work import ended, start

POLL = 1.0  # seconds between a trial's looks at its process
STEPS, RETURN, CODE = "env_steps", "return", "code"  # what trials report


class Trial(tune.Trainable):
    """Looks after the process of one run, and reports what it logs.

    Its configuration: `command` (none for a run that is only reported), `folder`, `log`, `cwd`, `gpus`, and
    `ends`, files that ask it to end once one of them is there.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Start the process."""
        self.given = config
        self.rows = Rows(Path(config["folder"]) / "metrics.jsonl")
        self.last: dict[str, float] = {STEPS: 0.0}
        self.process: subprocess.Popen | None = None
        if config["command"] and not self._asked():
            environment = environment_for(config["gpus"])
            self.process = start(config["command"], Path(config["log"]), environment, config["cwd"])

    def step(self) -> dict[str, Any]:
        """Wait for the next return that is logged, or for the end of the process.

        Raises `RuntimeError` where it was killed or asked to end by somebody else: Tune tries again.
        """
        while True:
            asked = self._asked()
            code = self._end() if asked else 0 if self.process is None else self.process.poll()
            found = self.rows.next()
            if found is not None:
                self.last = found
                return dict(found)
            if code is not None:
                if (code < 0 or code == REQUEUE) and not asked:
                    raise RuntimeError(ended(code))
                return {**self.last, CODE: code, "done": True}
            time.sleep(POLL)

    def cleanup(self) -> None:
        """End the process where it still runs."""
        self._end()

    def _asked(self) -> bool:
        return any(Path(path).exists() for path in self.given["ends"])

    def _end(self) -> int:
        """Have the process save and end; gives its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait()


class Rows:
    """The logged returns of a run, one after the other, each once."""

    def __init__(self, path: Path):
        self.path = path
        self.at, self.step = 0, -1.0  # bytes and env steps that were read
        self.found: deque[dict[str, float]] = deque()

    def next(self) -> dict[str, float] | None:
        """Env steps and return of the next one; None where there is none yet."""
        if not self.found:
            with contextlib.suppress(OSError):  # it will be there, or the process says what is wrong
                self._read()
        return self.found.popleft() if self.found else None

    def _read(self) -> None:
        with self.path.open("rb") as file:
            if self.path.stat().st_size < self.at:  # the run went back to its checkpoint
                self.at = 0
            file.seek(self.at)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.at += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                row = json.loads(line)
                if row.get("episode/return") is not None and row["step"] > self.step:
                    self.step = row["step"]
                    self.found.append({STEPS: row["step"], RETURN: row["episode/return"]})


def environment_for(gpus: float) -> dict[str, str]:
    """The variables of a process with so many GPUs, or a part of one, which Ray has chosen."""
    share = Share(memory=MEMORY * gpus if 0 < gpus < 1 else MEMORY)
    return share.environment() | ({} if gpus else {"CUDA_VISIBLE_DEVICES": ""})


class Unsaved:
    """Tune saves what it is given, to restore it; run directories do that here."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Order(Unsaved, Searcher):
    """Trials in the order in which `following` gives their configurations, until it gives None."""

    def __init__(self, following: Callable[[], dict[str, Any] | None]):
        super().__init__()
        self.following = following

    def suggest(self, trial_id: str) -> Any:
        """The configuration of the next trial."""
        found = self.following()
        return Searcher.FINISHED if found is None else found

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Nothing: `following` looks at the run directories."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is worth it."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""


class Asha(Unsaved, ASHAScheduler):
    """Tune's ASHA on returns over env steps; whom it would stop is given to `stop`, so that it saves first."""

    def __init__(self, stop: Callable[[str, Mapping[str, Any]], None], most: int, **given: Any):
        super().__init__(time_attr=STEPS, metric=RETURN, mode="max", max_t=most, stop_last_trials=False, **given)
        self.stop = stop
        self.stopped: set[str] = set()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        """Take note of a result, of a trial that goes on until it ends by itself."""
        folder = trial.config["folder"]
        if folder not in self.stopped:
            decision = super().on_trial_result(tune_controller, trial, result)
            if decision == TrialScheduler.STOP:
                self.stopped.add(folder)
                self.stop(folder, result)
        return TrialScheduler.CONTINUE


class End(Unsaved, tune.Stopper):
    """Ends all once `over` says so: trials that wait then need no worker to learn it."""

    def __init__(self, over: Callable[[], bool]):
        self.over = over

    def __call__(self, trial_id: str, result: dict) -> bool:
        """No trial is stopped for its results."""
        return False

    def stop_all(self) -> bool:
        """Asked several times a second."""
        return self.over()


class Progress(Unsaved, tune.Callback):
    """Tells `follow` of every change: "began", "ended", "again", "failed" or "" (time goes on), and of which."""

    def __init__(self, follow: Callable[[str, str, Mapping[str, Any]], None]):
        self.follow = follow

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
        """Its worker is there."""
        self.follow("began", trial.config["folder"], {})

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
        """Its process has ended."""
        self.follow("ended", trial.config["folder"], trial.last_result)

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
        """Its process or its worker was killed, and it is tried again."""
        self.follow("again", trial.config["folder"], {})

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
        """It was killed once too often."""
        self.follow("failed", trial.config["folder"], {})

    def on_step_end(self, iteration: int, trials: list, **_: Any) -> None:
        """Several times a second."""
        self.follow("", "", {})
