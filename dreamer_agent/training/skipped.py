"""Updates that were not finite: counted, their batches kept, and a way back where they do not end."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from dreamer_agent.errors import NumericsError
from dreamer_agent.files import write_tree
from dreamer_agent.training.saving import restore_callbacks
from dreamer_agent.training.updates import SkippedUpdate

if TYPE_CHECKING:
    from dreamer_agent.training.trainer import Trainer

SKIPPED, KEPT_SKIPPED = "skipped", 3  # batches of skipped updates that are kept to be looked at


def look_at_skips(trainer: Trainer) -> None:
    """Count updates that were not finite; go back to a checkpoint where there were too many in a row."""
    in_a_row = count_skips(trainer)
    if in_a_row >= trainer.config.train.max_skipped:
        roll_back(trainer, in_a_row)


def count_skips(trainer: Trainer) -> int:
    """Count updates that were not finite and keep their batches; the number of the last ones in a row."""
    skipped, trainer.updates.skipped = trainer.updates.skipped, []
    total, in_a_row = trainer.updates.skips
    trainer.counters.skipped = total
    if not skipped:
        return in_a_row
    with contextlib.suppress(OSError):  # of a full disk
        for each in skipped[-KEPT_SKIPPED:]:
            keep_batch(trainer.folder / SKIPPED, each, trainer.replay)
    numbers = f"update {skipped[-1].number:,}, {total:,} in all, {in_a_row:,} in a row"
    trainer.screen.say(f"skipped an update whose loss or gradient is not finite ({numbers}); its batch is kept")
    return in_a_row


def roll_back(trainer: Trainer, in_a_row: int) -> None:
    """Go back to the last checkpoint before the trouble, once; then `NumericsError`."""
    problem = (
        f"The loss or the gradient of {in_a_row:,} updates in a row was not finite (batches in "
        f"{trainer.folder / SKIPPED})"
    )
    trainer.checkpoints.settle()
    checkpoint = None if trainer.counters.rollbacks else trainer.checkpoints.newest(before_skips=True)
    if checkpoint is None:
        again = ", again after going back to a checkpoint" if trainer.counters.rollbacks else ""
        raise NumericsError(
            f"{problem}{again}: look for huge observations and rewards there, or lower "
            "optimizer.learning_rate (--allow optimizer.learning_rate lets this run go on with another)."
        )
    trainer.screen.say(f"{problem}: back to the checkpoint at env step {checkpoint.step:,}, with other batches")
    positions = trainer.resume_from(checkpoint)
    trainer.counters.rollbacks += 1
    key = jax.random.fold_in(trainer.state.key, trainer.counters.rollbacks)
    trainer.state = trainer.placement.state(trainer.state._replace(key=key))
    trainer.reseed()
    restore_callbacks(trainer)
    trainer.writer.resume(trainer.counters.env_steps, positions)
    trainer.saved = None


def keep_batch(folder: Path, skipped: SkippedUpdate, replay: Any) -> None:
    """Write the batch of a skipped update to `folder`, in place of the oldest one there."""
    batch = replay.gather(skipped.ids) if skipped.batch is None else skipped.batch
    folder.mkdir(exist_ok=True)
    content = {"update": skipped.number, "ids": skipped.ids, "batch": batch}
    write_tree(folder / f"update-{skipped.number:09d}.npz", content)
    for path in sorted(folder.glob("update-*.npz"))[:-KEPT_SKIPPED]:
        path.unlink()
