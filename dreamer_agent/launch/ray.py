"""Runs as trials of Ray Tune, on this machine or on a cluster of Ray that is there already."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from dreamer_agent.errors import ConfigError
from dreamer_agent.files import write_text
from dreamer_agent.interrupt import on_interrupt
from dreamer_agent.launch.local import Launcher, Run
from dreamer_agent.launch.ray_cluster import Options, cluster
from dreamer_agent.launch.work import Work, ended, last_line, log_of, mark_of, name_of, stopped_early, why_stopped

POLL = 1.0  # seconds between looks at the trials
AHEAD = 16  # trials that wait for resources at a time
RUNGS = 16  # ASHA first compares at this part of the budget, where the sweep does not say
More = Callable[[Sequence[Run]], Sequence[Work]]


@dataclass
class RayLauncher(Launcher):
    """Has Tune work through runs; what it shows, and what becomes of them, is as with processes."""

    folder: Path = Path()  # of Ray's files
    options: Options = field(default_factory=Options)
    more: More | None = None  # gives runs that follow, once all others have begun
    queue: deque[Run] = field(default_factory=deque)
    live: Live | None = None
    shown_at: float = 0.0

    def work(self) -> None:
        """Until all are done, failed or stopped early, or a signal asks to end."""
        for run in self.runs:
            self._settle(run)
        waiting = [run for run in self.runs if run.state == "waiting"]
        told_first = [run for run in self.runs if run.state in ("done", "stopped early")]
        self.queue = deque([*told_first, *waiting] if self.options.asha is not None else waiting)
        if not waiting and not self._extend():
            self._tell(None)
            return
        self._end_file().unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        # What is not known before others have ended is asked for as late as possible.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "1" if self.more else str(AHEAD)
        with cluster(self.options) as gpus, on_interrupt(self._stop), self._shown() as self.live:
            tuner(self, gpus).fit()
            for run in self.runs:
                if run.state in ("waiting", "running"):
                    run.state = "stopped"
            self._tell(self.live)

    def following(self, gpus: float) -> dict[str, Any] | None:
        """The configuration of the next trial; None where there is none."""
        if self.stopping or not (self.queue or self._extend()):
            return None
        run = self.queue.popleft()
        return {
            "command": run.work.command() if run.state == "waiting" else [],
            "folder": str(run.work.folder.absolute()),
            "log": str(log_of(run.work).absolute()),
            "ends": [
                str(self._end_file()),
                *([str(mark_of(run.work).absolute())] if run.state == "waiting" else []),
            ],
            "cwd": os.getcwd(),
            "gpus": gpus,
        }

    def follow(self, what: str, folder: str, result: Mapping[str, Any]) -> None:
        """Take note of what Tune says of the run in `folder`; show it all once in a while."""
        if folder:
            run = self._run(folder)
            if run.state not in ("done", "stopped early", "failed"):
                {"began": self._began, "again": self._again}.get(what, self._over)(run, result)
        if folder or time.monotonic() - self.shown_at > POLL:
            self._look()
            self._tell(self.live)
            self.shown_at = time.monotonic()

    def over(self) -> bool:
        """Whether a signal has ended it, and all that ran have saved."""
        return self.stopping and not any(run.state == "running" for run in self.runs)

    def stop_early(self, folder: str, result: Mapping[str, Any]) -> None:
        """Have a run save and end, and keep in mind that it is not complete."""
        run = self._run(folder)
        if run.state == "running":
            found = {"by": "ASHA", "env_steps": int(result["env_steps"]), "return": result["return"]}
            write_text(mark_of(run.work), json.dumps(found) + "\n")

    def _run(self, folder: str) -> Run:
        return next(run for run in self.runs if str(run.work.folder.absolute()) == folder)

    def _settle(self, run: Run) -> None:
        if not run.settled() and (early := stopped_early(run.work)):
            run.state, run.why = "stopped early", why_stopped(early)

    def _extend(self) -> bool:
        """Whether there are more runs to do, which then wait."""
        while self.more and (works := self.more(self.runs)):
            found = [Run(work) for work in works]
            self.runs += found
            for run in found:
                self._settle(run)
            self.queue.extend(run for run in found if run.state == "waiting")
            if self.queue:
                return True
        return False

    def _began(self, run: Run, _: Mapping[str, Any]) -> None:
        run.state, run.began = "running", (time.monotonic(), run.step)

    def _again(self, run: Run, _: Mapping[str, Any]) -> None:
        run.look()
        run.state, run.retried = "waiting", run.retried + 1
        self.console.print(f"{name_of(run.work)}: killed at {run.step:,.0f} env steps; it goes on")

    def _over(self, run: Run, result: Mapping[str, Any]) -> None:
        """What became of a run whose trial is over."""
        run.look()
        if run.over():
            mark_of(run.work).unlink(missing_ok=True)
        elif early := stopped_early(run.work):
            run.state, run.why = "stopped early", why_stopped(early)
        elif self.stopping:
            run.state = "stopped"
        else:
            how = ended(int(result["code"])) if "code" in result else f"killed {run.retried + 1} times"
            run.state = "failed"
            run.why = f"{last_line(log_of(run.work))} ({how}, see {log_of(run.work)})"

    def _end_file(self) -> Path:
        """What asks all trials to end; every node sees the folder, as it does the runs."""
        return self.folder.absolute() / "end"

    def _stop(self, _: int) -> None:
        self.stopping = True
        self._end_file().touch()
        self.console.print(
            "stopping: all runs save first; a second Ctrl-C ends this command and leaves them to it"
        )


def tuner(launcher: RayLauncher, gpus: float) -> Any:
    """Tune with all that it calls; `ConfigError` for parameters that ASHA does not know."""
    from ray import tune

    from dreamer_agent.launch.ray_parts import End, Order, Progress, Trial

    options = launcher.options
    return tune.Tuner(
        tune.with_resources(Trial, {"cpu": options.cpus, "gpu": gpus}),
        tune_config=tune.TuneConfig(
            search_alg=Order(lambda: launcher.following(gpus)),
            scheduler=None if options.asha is None else asha_of(launcher),
            num_samples=-1,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(launcher.folder.absolute()), verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=launcher.retries),
            callbacks=[Progress(launcher.follow)], stop=End(launcher.over),
        ),
    )  # fmt: skip


def asha_of(launcher: RayLauncher) -> Any:
    """ASHA over the budget of the runs; it first compares at a sixteenth of it."""
    from dreamer_agent.launch.ray_parts import Asha

    most = max(run.work.steps for run in launcher.runs)
    given = {"grace_period": max(most // RUNGS, 1), **(launcher.options.asha or {})}
    try:
        return Asha(launcher.stop_early, most, **given)
    except (TypeError, AssertionError) as error:
        raise ConfigError(f"ASHA cannot be used as asked: {' '.join(str(error).split())}") from error


def launch_on_ray(
    works: Sequence[Work], folder: Path, options: Options, console: Console | None = None, retries: int = 0,
    more: More | None = None,
) -> list[Run]:  # fmt: skip
    """Work through `works` as trials of Ray Tune; what is finished is left as it is, what was begun goes on.

    `folder` takes Ray's files; it and the run directories lie where all nodes see them. A trial whose process or
    worker was killed is tried again up to `retries` times; one that fails stops no other. Runs that ASHA has
    stopped are "stopped early", now and in later calls with ASHA; those that a signal to this process has ended
    are "stopped" and have saved. `more` is asked for further runs once all others have begun.
    """
    launcher = RayLauncher(
        [Run(work) for work in works], len(works), console or Console(), retries, folder=folder, options=options,
        more=more,
    )  # fmt: skip
    launcher.work()
    return launcher.runs
