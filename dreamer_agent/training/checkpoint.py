"""Checkpoints: a consistent cut of a run, written beside the training, complete or not there.

    checkpoints/STEP/agent/       the learner's arrays, by Orbax
    checkpoints/STEP/loop.npz     the rest of the run: environments, policy memory, counters, what is in flight
    checkpoints/STEP/commit.json  format, versions, the replay's index, and the digest of every file
    replay/*.npz                  the replay, which grows by what is new (`replay.store`)
    best/STEP/                    the learner of the checkpoint with the best return

A checkpoint is made under another name and gets its own when all of it is on disk. Everything is data: nothing
that is read is executed.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from dreamer_agent.agent import AgentState
from dreamer_agent.errors import RunDirectoryError
from dreamer_agent.files import DAMAGED, check_file, read_tree
from dreamer_agent.replay import Index, ReplayStore

FORMAT = 2  # of checkpoints; older formats are read, newer ones refused. 2: with averaged parameters
COMMIT, LOOP, AGENT = "commit.json", "loop.npz", "agent"
REPLAY, BEST = "replay", "best"


class Checkpoint:
    """One complete checkpoint on disk."""

    def __init__(self, folder: Path):
        self.folder, self.step = folder, int(folder.name)
        try:
            self.commit: dict[str, Any] = json.loads((folder / COMMIT).read_text())
            self.files = {
                str(name): (int(size), str(code)) for name, (size, code) in self.commit["files"].items()
            }
            self.format = int(self.commit["format"])
        except (*DAMAGED, AttributeError) as error:
            raise RunDirectoryError(
                f"{folder / COMMIT} is missing or damaged ({type(error).__name__})."
            ) from error

    @property
    def updates(self) -> int:
        """Updates that were made before it."""
        return int(self.commit["updates"])

    @property
    def index(self) -> Index:
        """The files of its replay."""
        try:
            return Index.from_json(self.commit["replay"])
        except DAMAGED as error:
            raise RunDirectoryError(
                f"{self.folder / COMMIT} names no replay ({type(error).__name__})."
            ) from error

    def check(self, store: ReplayStore | None = None) -> None:
        """Raise `RunDirectoryError` where a file, also of the replay in `store`, is not what was written."""
        if self.format > FORMAT:
            raise NewerFormatError(
                f"The checkpoint {self.folder} has the format {self.format}, this version of dreamer_agent reads "
                f"up to {FORMAT}: install the version that wrote it ({self.commit.get('version')}) or a newer."
            )
        for name, (size, expected) in self.files.items():
            check_file(self.folder / name, size, expected)
        if store is not None:
            store.check(self.index)

    def agent(self, like: AgentState) -> AgentState:
        """The learner, in the shapes of `like`."""
        template = jax.tree.map(ocp.utils.to_shape_dtype_struct, like.named())
        if self.format < 2:
            del template["average"], template["hyper"]["average"]
        try:
            with checkpointer() as reader:
                restored = reader.restore(self.folder / AGENT, args=ocp.args.StandardRestore(template))
        except ValueError as error:
            raise RunDirectoryError(
                f"The checkpoint in {self.folder} does not fit this model ({_first_line(error)}): "
                "use the configuration that it was trained with, or another run directory."
            ) from error
        # Orbax binds arrays to their device, and programs would be compiled once more for such.
        restored = jax.tree.map(lambda x: jnp.array(np.asarray(x)), restored)
        if self.format < 2:  # the average begins with what there is
            restored["average"] = jax.tree.map(jnp.copy, restored["params"])
            restored["hyper"]["average"] = jnp.ones(())
        return AgentState(**restored)

    def raw_agent(self) -> dict[str, Any]:
        """The learner as nested dicts of arrays, whatever its shapes."""
        with checkpointer() as reader:
            return reader.restore(self.folder / AGENT, args=ocp.args.StandardRestore())

    def loop(self) -> dict[str, Any]:
        """The rest of the run."""
        return read_tree(self.folder / LOOP)


def checkpointer() -> ocp.Checkpointer:
    """Orbax's, for this process alone: it waits for no other one of the run."""
    if jax.process_count() == 1:
        return ocp.Checkpointer(ocp.StandardCheckpointHandler())
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


class NewerFormatError(RunDirectoryError):
    """A checkpoint of a later version: no reason to fall back to an older one."""


def complete(folder: Path) -> list[int]:
    """The env steps of the complete checkpoints in `folder`, in order; not looked at any closer."""
    return sorted(int(path.parent.name) for path in folder.glob(f"*/{COMMIT}") if path.parent.name.isdigit())


def sound(run: Path, with_replay: bool = False, best: bool = False) -> Iterator[Checkpoint]:
    """The undamaged checkpoints of a run, the newest first; a damaged one is passed over with a warning."""
    folder = run.absolute() / (BEST if best else "checkpoints")
    store = ReplayStore(run.absolute() / REPLAY) if with_replay else None
    for step in reversed(complete(folder)):
        try:
            checkpoint = Checkpoint(folder / str(step))
            checkpoint.check(store)
        except NewerFormatError:
            raise
        except RunDirectoryError as error:
            warnings.warn(f"The checkpoint at env step {step:,} is passed over: {error}", stacklevel=3)
        else:
            yield checkpoint


def newest(run: Path, best: bool = False) -> Checkpoint:
    """The newest undamaged checkpoint of a run, to take its weights; `RunDirectoryError` where there is none."""
    for checkpoint in sound(run, best=best):
        return checkpoint
    what = (
        "best checkpoint (no episode of its policy had ended when one was written)"
        if best
        else "whole checkpoint"
    )
    raise RunDirectoryError(f"There is no {what} in {run}: train first, or give another run directory.")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
