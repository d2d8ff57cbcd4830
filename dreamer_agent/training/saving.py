"""What a checkpoint holds of a run, and how the run goes on from it."""

from __future__ import annotations

import dataclasses
import shutil
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamer_agent.agent import EXPLORER
from dreamer_agent.envs.plain import pack, unpack
from dreamer_agent.errors import ConfigError, RunDirectoryError
from dreamer_agent.replay import Mark
from dreamer_agent.training import budget, run_directory
from dreamer_agent.training.checkpoint import Checkpoint
from dreamer_agent.training.checkpoints import Checkpoints, Snapshot
from dreamer_agent.training.driver import Episode
from dreamer_agent.training.opening import prepare_folder
from dreamer_agent.training.progress import Counters, Window

if TYPE_CHECKING:
    from dreamer_agent.training.trainer import Trainer

RECENT = 20  # training episodes whose mean return tells how good a checkpoint is
FEWEST = 5  # of them, below which nothing is said


def snapshot(trainer: Trainer, since: Mark | None) -> Snapshot:
    """The run as it stands, the replay as the difference to `since`; nothing of the run is changed."""
    return Snapshot(
        step=trainer.counters.env_steps,
        agent=trainer.placement.copied(trainer.state.named()),
        loop={
            "processes": trainer.processes,
            "more": trainer.more(),
            "counters": vars(trainer.counters).copy(),
            "window": trainer.window.save(),
            "updates": trainer.updates.save(),
            "driver": trainer.driver.save(),
            "recent": list(trainer.recent),
            "evaluated": trainer.evaluated,
            "positions": trainer.writer.positions(),
            "callbacks": [saved_callback(callback) for callback in trainer.callbacks],
        },
        replay=trainer.replay.save_later(since),
        mark=trainer.replay.mark(),
        score=score_of(trainer),
        together=trainer.together,
    )


def save_as(trainer: Trainer, folder: Path) -> None:
    """Write the run as it stands to another, empty folder, which then is a run directory of its own."""
    prepare_folder(trainer.config, folder, trainer.env)
    metrics = trainer.folder / "metrics.jsonl"
    if metrics.is_file():
        shutil.copyfile(metrics, folder / metrics.name)
    copy = Checkpoints(folder, trainer.config.train.keep_checkpoints)
    copy.save(snapshot(trainer, None))
    copy.close()
    if copy.failure:
        raise RunDirectoryError(f"{folder} could not be written ({copy.failure}): make room there.")


def tell_failure(trainer: Trainer) -> None:
    """Say where the last checkpoint could not be written."""
    checkpoints = trainer.checkpoints
    if checkpoints.failure:
        trainer.screen.say(
            f"[red]the last checkpoint could not be written[/red] ({checkpoints.failure}): training "
            f"goes on; the newest one is that of env step {checkpoints.latest() or 0:,}"
        )


def put_back(trainer: Trainer, checkpoint: Checkpoint) -> tuple[dict[str, int], bool]:
    """Make `trainer` what it was at `checkpoint`; gives the loggers' positions then, and whether it is whole.

    It is not where the environments could not tell their state: they begin anew, and episodes under way count as
    cut.
    """
    loop = checkpoint.loop()
    _check_processes(trainer, int(loop.get("processes", 1)))
    try:
        trainer.counters = Counters(**loop["counters"])
        state = trainer.learner_of(checkpoint)._replace(hyper=trainer.state.hyper)
        trainer.state = trainer.placement.state(state)
        if trainer.replay.mark().added.any():
            trainer.replay = trainer.make_replay(trainer.config)
        trainer.replay.restore(trainer.checkpoints.store.load(checkpoint.index))
        trainer.checkpoints.since = trainer.replay.mark()
        trainer.updates.restore(loop["updates"])
        trainer.window = Window.restored(loop["window"], trainer.counters)
        trainer.recent = deque(loop["recent"], RECENT)
        trainer.evaluated = loop["evaluated"]
        trainer.callback_states = loop["callbacks"]
        trainer.take_more(loop.get("more", {}))
        whole = trainer.driver.restore(loop["driver"] | {"env_steps": trainer.counters.env_steps})
        positions = {str(name): int(position) for name, position in loop["positions"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunDirectoryError(
            f"The checkpoint {checkpoint.folder} does not fit this run ({type(error).__name__}: {error}): use "
            "the configuration that it was trained with, or another run directory."
        ) from error
    if not whole:
        cut_episodes(trainer)
    trainer.known_faults = trainer.faults_told()
    return positions, whole


def _check_processes(trainer: Trainer, before: int) -> None:
    if before != trainer.processes:
        raise RunDirectoryError(
            f"The run in {trainer.folder} was trained by {_count(before)}, each with its own environments and "
            f"replay, but {_count(trainer.processes)} would go on with it: start as many, or begin another run "
            "with what it learned (init_from)."
        )


def _count(processes: int) -> str:
    return "one process" if processes == 1 else f"{processes} processes"


def cut_episodes(trainer: Trainer) -> None:
    """Begin all episodes anew; those under way are cut (truncated, not terminal)."""
    trainer.counters.cuts += 1
    trainer.replay.cut()
    trainer.driver.restart(trainer.seed + 7919 * trainer.counters.cuts)  # other seeds than before


def score_of(trainer: Trainer) -> float | None:
    """How good the policy is: the last evaluation where there are some, else its recent training episodes."""
    if trainer.config.train.eval_every:
        return trainer.evaluated
    return float(np.mean(trainer.recent)) if len(trainer.recent) >= FEWEST else None


def remember(trainer: Trainer, episodes: Sequence[Episode]) -> None:
    """Keep the returns of training episodes that have ended, but for those of an explorer."""
    if int(trainer.agent.collector(trainer.counters.env_steps)) != EXPLORER:
        trainer.recent.extend(episode.score for episode in episodes)


def saved_callback(callback: Any) -> dict[str, Any] | None:
    """What a callback wants to be kept of it, a copy; `ConfigError` where that is no plain data."""
    get_state, name = getattr(callback, "get_state", None), type(callback).__name__
    if get_state is None:
        return None
    try:
        return {"name": name, "state": pack(get_state())}
    except TypeError as error:
        raise ConfigError(
            f"What get_state() of the callback {name} gives holds a {error}: it should be plain data (dicts with "
            "texts as keys, lists, numbers, texts, arrays)."
        ) from error


def restore_callbacks(trainer: Trainer) -> None:
    """Give callbacks back what a checkpoint holds of them, if they are the same ones again."""
    states, trainer.callback_states = trainer.callback_states, []
    for callback, saved in zip(trainer.callbacks, states, strict=False):
        if saved is not None and saved["name"] == type(callback).__name__:
            callback.set_state(unpack(saved["state"]))  # type: ignore[attr-defined]


def resumed(trainer: Trainer) -> str:
    """What to say of a run that goes on."""
    where = f"resuming at env step {trainer.counters.env_steps:,}, update {trainer.counters.updates:,}"
    if trainer.whole:
        cut = len(getattr(trainer.env, "not_restored", []))
        others = f", but for {cut} environments that were made differently: their episodes are cut" if cut else ""
        return f"{where}: exactly where it was{others}"
    why = getattr(trainer.env, "why_no_state", lambda: None)()
    reason = f"{why} cannot be saved" if why else "their state was not saved"
    return f"{where}: episodes begin anew, those under way count as cut ({reason})"


def make_room(trainer: Trainer, until: int) -> None:
    """A larger replay, where the run is to be longer than it was made for and nothing was dropped yet."""
    train = dataclasses.replace(trainer.config.train, steps=max(until, trainer.config.train.steps))
    config = dataclasses.replace(trainer.config, train=train)
    if budget.kept_steps(config) > budget.kept_steps(trainer.config) and not trainer.replay.dropped:
        budget.check(config, trainer.agent, trainer.free_memory(), budget.free_disk(trainer.folder))
        trainer.save()  # what has changed until now: the larger one begins to tell anew
        trainer.checkpoints.settle()
        before, trainer.replay = trainer.replay, trainer.make_replay(config)
        trainer.replay.restore([before.save()])
        trainer.reseed()
        _go_on_from(trainer, written=before.mark().same_as(trainer.checkpoints.since))
    if config != trainer.config:
        trainer.config = config
        run_directory.prepare(trainer.folder, config)


def _go_on_from(trainer: Trainer, written: bool) -> None:
    """The next checkpoint tells what is new in a replay just made; all of it if that before was not written."""
    checkpoints = trainer.checkpoints
    trainer.saved = checkpoints.since = trainer.replay.mark() if written else None
    if not written:
        checkpoints.index = None
