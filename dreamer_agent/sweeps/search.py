"""Optuna as the source of further points on the random axis of a sweep, once those that were drawn have begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent.errors import ConfigError, missing_extra
from dreamer_agent.launch.local import Run
from dreamer_agent.launch.work import stopped_early
from dreamer_agent.sweeps.found import found_in, keep_found, with_found
from dreamer_agent.sweeps.points import Point, points_of
from dreamer_agent.sweeps.runs import SweepRun, runs_of
from dreamer_agent.sweeps.sweep import Sweep


class Search:
    """Suggests up to `samples` points. Nothing is kept but the points: what they scored lies in their runs.

    The value of a point is the mean score of all its runs, over seeds and the other axes. Raises `ConfigError`
    for a sweep without exactly one random axis, `MissingExtraError` without Optuna.
    """

    def __init__(self, sweep: Sweep, folder: Path, given: Any):
        if (
            not isinstance(given, Mapping)
            or set(given) - {"samples", "seed"}
            or not _whole(given.get("samples"), 1)
        ):
            raise ConfigError(
                f"The sweep's ray has optuna: {given!r}: write {{samples: 20}}, and a seed if you like."
            )
        if not _whole(given.get("seed", 0), 0):
            raise ConfigError(f"Optuna's seed is {given['seed']!r}: give a whole number from 0 on.")
        axes = [axis for axis in sweep.axes if "random" in axis]
        if len(axes) != 1:
            raise ConfigError(
                f"Optuna suggests points of a random axis, and the sweep '{sweep.name}' has {len(axes)} of them: "
                "give it one."
            )
        try:
            import optuna
        except ImportError as error:
            raise missing_extra("optuna", "ray") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.sweep, self.folder, self.values = sweep, folder, axes[0]["random"]["values"]
        self.samples, self.seed = given["samples"], given.get("seed", 0)
        points_of(axes)  # tells what is wrong with them
        self.distributions = {key: _distribution(optuna, content) for key, content in self.values.items()}

    def left(self) -> int:
        """How many points it may still suggest."""
        return max(self.samples - len(found_in(self.folder)), 0)

    def largest(self) -> list[SweepRun]:
        """As many runs as the sweep will have, at points that are drawn instead of those to come."""
        return runs_of(with_found(self.sweep, self.folder, self.left()), self.folder)

    def __call__(self, runs: Sequence[Run]) -> list[SweepRun]:
        """The runs of one more point, after what `runs` came to; none once all points are suggested."""
        known = {run.work.folder for run in runs}
        new: list[SweepRun] = []
        while self.left() and not new:  # a point that is there already brings no run
            keep_found(self.folder, [*found_in(self.folder), self.suggest(runs)])
            new = [run for run in runs_of(self.sweep, self.folder) if run.folder not in known]
        return new

    def suggest(self, runs: Sequence[Run]) -> Point:
        """Optuna's next point; the same one after the same scores."""
        import optuna

        sampler = optuna.samplers.TPESampler(seed=self.seed + len(found_in(self.folder)), constant_liar=True)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for point in self._points():
            members = [run for run in runs if _belongs(run, point)]
            if members and self._inside(point):
                study.add_trial(self._told(optuna, point, members))
        params = study.ask(self.distributions).params
        return {key: _decoded(self.values[key], value) for key, value in params.items()}

    def _points(self) -> list[Point]:
        """Those on the random axis: drawn and found."""
        grown = with_found(self.sweep, self.folder)
        return points_of([axis for axis in grown.axes if "random" in axis])

    def _inside(self, point: Point) -> bool:
        """Whether the axis could give a point; it may have been another one when the point was found."""
        for key, content in self.values.items():
            (kind, numbers), *_ = content.items()
            good = (
                point[key] in numbers
                if kind == "choice"
                else float(numbers[0]) <= point[key] <= float(numbers[1])
            )
            if not good:
                return False
        return True

    def _told(self, optuna: Any, point: Point, members: Sequence[Run]) -> Any:
        """What came of a point, as Optuna has it."""
        states, trial = [run.state for run in members], optuna.trial.TrialState
        content: dict[str, Any] = {
            "params": {key: _encoded(self.values[key], value) for key, value in point.items()},
            "distributions": self.distributions,
        }
        if "failed" in states:
            return optuna.trial.create_trial(state=trial.FAIL, **content)
        if set(states) == {"done"}:
            return optuna.trial.create_trial(value=float(np.mean([_score(run) for run in members])), **content)
        if set(states) <= {"done", "stopped early"}:
            step = min(found["env_steps"] for run in members if (found := stopped_early(run.work)))
            mean = float(np.mean([_score(run) for run in members]))
            return optuna.trial.create_trial(state=trial.PRUNED, intermediate_values={step: mean}, **content)
        return optuna.trial.create_trial(state=trial.RUNNING, **content)


def _belongs(run: Run, point: Point) -> bool:
    assert isinstance(run.work, SweepRun)
    held = run.work.setting.point
    return all(held.get(key) == value for key, value in point.items())


def _score(run: Run) -> float:
    """The score of a finished run; of one that was stopped early, the return for which it was."""
    assert isinstance(run.work, SweepRun)
    early = stopped_early(run.work)
    found = run.work.evaluation() if early is None else None  # it may be damaged where it was stopped
    if found is not None:
        return float(found["scores"][0]["return_mean"])
    assert early is not None
    return float(early["return"])


def _distribution(optuna: Any, content: Mapping[str, Any]) -> Any:
    """Optuna's form of an axis' distribution; of a choice the numbers of its values."""
    (kind, numbers), *_ = content.items()
    if kind == "choice":
        return optuna.distributions.CategoricalDistribution(tuple(range(len(numbers))))
    low, high = (float(number) for number in numbers)
    if kind == "integers":
        return optuna.distributions.IntDistribution(int(low), int(high))
    return optuna.distributions.FloatDistribution(low, high, log=kind == "loguniform")


def _encoded(content: Mapping[str, Any], value: Any) -> Any:
    return content["choice"].index(value) if "choice" in content else value


def _decoded(content: Mapping[str, Any], value: Any) -> Any:
    return content["choice"][value] if "choice" in content else value


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
