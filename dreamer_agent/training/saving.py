"""What a checkpoint holds of a run, and how the run goes on from it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamer_agent.errors import RunDirectoryError
from dreamer_agent.replay import Mark
from dreamer_agent.training.checkpoint import Checkpoint, Snapshot, on_host
from dreamer_agent.training.progress import Counters, Window

if TYPE_CHECKING:
    from dreamer_agent.training.loop import Trainer

RECENT = 20  # training episodes whose mean return tells how good a checkpoint is
FEWEST = 5  # of them, below which nothing is said


def snapshot(trainer: Trainer, since: Mark | None) -> Snapshot:
    """The run as it stands, the replay as the difference to `since`; nothing of the run is changed."""
    return Snapshot(
        step=trainer.counters.env_steps,
        agent=on_host(trainer.state),
        loop={
            "counters": vars(trainer.counters).copy(),
            "window": trainer.window.save(),
            "updates": trainer.updates.save(),
            "driver": trainer.driver.save(),
            "recent": list(trainer.recent),
            "evaluated": trainer.evaluated,
            "positions": trainer.writer.positions(),
            "callbacks": [saved_callback(callback) for callback in trainer.callbacks],
        },
        replay=trainer.replay.save(since),
        mark=trainer.replay.mark(),
        score=score_of(trainer),
    )


def put_back(trainer: Trainer, checkpoint: Checkpoint) -> tuple[dict[str, int], bool]:
    """Make `trainer` what it was at `checkpoint`; gives the loggers' positions then, and whether it is whole.

    It is not where the environments could not tell their state: they begin anew, and episodes under way count as
    cut.
    """
    loop = checkpoint.loop()
    try:
        trainer.counters = Counters(**loop["counters"])
        trainer.state = checkpoint.agent(trainer.state)._replace(hyper=trainer.state.hyper)
        if trainer.replay.mark().added.any():
            trainer.replay = trainer._make_replay(trainer.config)
        trainer.replay.restore(trainer.checkpoints.store.load(checkpoint.index))
        trainer.checkpoints.since = trainer.replay.mark()
        trainer.updates.restore(loop["updates"])
        trainer.window = Window.restored(loop["window"], trainer.counters)
        trainer.recent = deque(loop["recent"], RECENT)
        trainer.evaluated = loop["evaluated"]
        trainer.callback_states = loop["callbacks"]
        whole = trainer.driver.restore(loop["driver"] | {"env_steps": trainer.counters.env_steps})
        positions = {str(name): int(position) for name, position in loop["positions"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunDirectoryError(
            f"The checkpoint {checkpoint.folder} does not fit this run ({type(error).__name__}: {error}): use "
            "the configuration that it was trained with, or another run directory."
        ) from error
    if not whole:
        cut_episodes(trainer)
    trainer.known_faults = trainer._faults_told()
    return positions, whole


def cut_episodes(trainer: Trainer) -> None:
    """Begin all episodes anew; those under way are cut (truncated, not terminal)."""
    trainer.counters.cuts += 1
    trainer.replay.cut()
    trainer.driver.restart(trainer.config.seed + 7919 * trainer.counters.cuts)  # other seeds than before


def score_of(trainer: Trainer) -> float | None:
    """How good the policy is: the last evaluation where there are some, else recent training episodes."""
    if trainer.config.train.eval_every:
        return trainer.evaluated
    return float(np.mean(trainer.recent)) if len(trainer.recent) >= FEWEST else None


def saved_callback(callback: Any) -> dict[str, Any] | None:
    """What a callback wants to be kept of it."""
    get_state = getattr(callback, "get_state", None)
    return None if get_state is None else {"name": type(callback).__name__, "state": get_state()}
