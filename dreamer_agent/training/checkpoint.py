"""Checkpoints through Orbax: arrays and plain numbers, written atomically, never unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from dreamer_agent.agent import AgentState
from dreamer_agent.errors import RunDirectoryError


class Checkpoints:
    """The checkpoints of one run, named by their env step; the last `keep` stay.

    Without `create` the folder is only read: `RunDirectoryError` where it is not there.
    """

    def __init__(self, folder: Path, keep: int = 2, create: bool = True):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=create, enable_async_checkpointing=False)
        self.folder = folder.absolute()
        if not create and not folder.is_dir():
            raise self._nothing()
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def latest(self) -> int | None:
        """The env step of the newest complete checkpoint."""
        return self.manager.latest_step()

    def save(self, step: int, state: AgentState, replay: Any, counters: dict[str, Any]) -> None:
        """Write the learner, the replay (a tree of arrays) and the counters."""
        args = ocp.args.Composite(
            agent=ocp.args.StandardSave(state._asdict()),
            replay=ocp.args.StandardSave(replay),
            counters=ocp.args.JsonSave(counters),
        )
        self.manager.save(step, args=args)
        self.manager.wait_until_finished()

    def restore_agent(self, like: AgentState, step: int | None = None) -> AgentState:
        """The learner at `step` (the newest by default), in the shapes of `like`."""
        step = self._known(step)
        template = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        args = ocp.args.Composite(agent=ocp.args.StandardRestore(template))
        try:
            restored = self.manager.restore(step, args=args)["agent"]
        except ValueError as error:
            raise RunDirectoryError(
                f"The checkpoint in {self.folder} does not fit this model ({_first_line(error)}): "
                "use the configuration that it was trained with, or another run directory."
            ) from error
        return AgentState(**restored)

    def restore_raw(self, step: int | None = None) -> dict[str, Any]:
        """The learner at `step` as nested dicts of arrays, whatever its shapes."""
        args = ocp.args.Composite(agent=ocp.args.StandardRestore())
        return self.manager.restore(self._known(step), args=args)["agent"]

    def restore_rest(self, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """The replay's arrays and the counters at `step`."""
        args = ocp.args.Composite(replay=ocp.args.StandardRestore(), counters=ocp.args.JsonRestore())
        restored = self.manager.restore(self._known(step), args=args)
        return restored["replay"], restored["counters"]

    def close(self) -> None:
        """Wait for writes and free the manager."""
        self.manager.close()

    def _known(self, step: int | None) -> int:
        found = self.latest() if step is None else step
        if found is None:
            raise self._nothing()
        return found

    def _nothing(self) -> RunDirectoryError:
        return RunDirectoryError(
            f"There is no checkpoint in {self.folder}: train first, or give another run directory."
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
