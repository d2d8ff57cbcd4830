"""The checkpoints of a run: written by a thread beside the training; the last ones stay, and the best.

A checkpoint is made under another name and gets its own when all of it is on disk.
"""

from __future__ import annotations

import json
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from dreamer_agent.errors import RunDirectoryError
from dreamer_agent.files import digest, replacing, sha256, sync, write_tree
from dreamer_agent.registry import in_one_line
from dreamer_agent.replay import Index, Mark, ReplayStore, Saved
from dreamer_agent.training.checkpoint import (
    AGENT,
    BEST,
    COMMIT,
    FORMAT,
    LOOP,
    REPLAY,
    Checkpoint,
    checkpointer,
    complete,
    sound,
)
from dreamer_agent.training.lock import locked
from dreamer_agent.training.memory import trim
from dreamer_agent.version import VERSION

DAMAGED_FOLDER = "damaged"


class Snapshot(NamedTuple):
    """All of a run after `step` env steps, as copies: `agent` arrays, the `loop` as plain data, the replay.

    `replay()` gives the difference to the checkpoint before, `mark` is where that ends, `score` the mean return
    that tells how good the policy is (None: unknown), `together` whether the run was one of a population.
    """

    step: int
    agent: dict[str, Any]
    loop: dict[str, Any]
    replay: Callable[[], Saved]
    mark: Mark
    score: float | None = None
    together: bool = False


class Checkpoints:
    """Writes the checkpoints of one run in a thread of its own; the last `keep` and the best one stay.

    One is written at a time: `save` waits for the one before. One that cannot be written leaves the older ones
    whole and is told by `failure`; the next one then holds what it should have held. `learner` is false where
    another process of the run writes the learner, which is the same in all.
    """

    def __init__(self, run: Path, keep: int = 2, learner: bool = True):
        self.run, self.keep, self.learner = run.absolute(), keep, learner
        self.folder = self.run / "checkpoints"
        self.store = ReplayStore(self.run / REPLAY)
        self.index: Index | None = None  # of the last checkpoint, to which the next one is a difference
        self.since: Mark | None = None
        self.best_score: float | None = None
        self.failure = ""  # why the last one could not be written
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.writing: Future[None] | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = locked(self.run)
        for folder in (self.folder, self.run / BEST):
            _tidy(folder)
        self.best_score = self._known_best()

    def latest(self) -> int | None:
        """The env step of the newest complete checkpoint."""
        return max(complete(self.folder), default=None)

    def newest(self, before_skips: bool = False, updates: int | None = None) -> Checkpoint | None:
        """The newest checkpoint that is whole with its replay, from which the run goes on; None without one.

        With `before_skips`, the newest after an update that was not skipped; with `updates`, that after so many.
        What lies there from later is moved aside or, in the replay, removed. `RunDirectoryError` where there are
        checkpoints, but none is whole.
        """
        steps = complete(self.folder)
        for checkpoint in sound(self.run, with_replay=True):
            if before_skips and checkpoint.commit.get("skipped_in_a_row"):
                continue
            if updates is not None and checkpoint.updates != updates:
                continue
            for step in steps:
                if step > checkpoint.step:
                    self._set_aside(step)
            self.index = checkpoint.index
            self.store.keep(self._indices())
            return checkpoint
        if steps and not before_skips and updates is None:
            raise RunDirectoryError(
                f"None of the checkpoints in {self.folder} is whole (env steps {', '.join(map(str, steps))}): "
                "copy them again from where the run was trained, or give a new run directory."
            )
        if updates is not None:
            for step in steps:
                self._set_aside(step)
        if not complete(self.folder):
            self.store.keep([])
        return None

    def save(self, snapshot: Snapshot) -> None:
        """Begin to write; the caller settled before it took the replay's difference to `since`."""
        self.settle()
        self.writing = self.thread.submit(self._write, snapshot)

    def settle(self) -> None:
        """Wait until what is being written is on disk, or has failed (`failure`)."""
        writing, self.writing = self.writing, None
        if writing is None:
            return
        try:
            writing.result()
            self.failure = ""
        except Exception as error:  # of the disk, mostly; training matters more
            self.failure = in_one_line(error)
            traceback.clear_frames(error.__traceback__)  # which hold the snapshot
            if isinstance(error, RunDirectoryError):  # what was written before cannot be built upon
                self.index = self.since = None

    def close(self) -> None:
        """Wait for what is being written."""
        self.settle()
        self.thread.shutdown()
        self.lock.close()

    def _write(self, snapshot: Snapshot) -> None:
        name = str(snapshot.step)
        index = self.store.append(snapshot.replay(), self.index)
        new = self.folder / f".{name}"
        shutil.rmtree(new, ignore_errors=True)
        try:
            new.mkdir()
            if self.learner:
                with checkpointer() as writer:
                    writer.save(new / AGENT, args=ocp.args.StandardSave(snapshot.agent))
            write_tree(new / LOOP, snapshot.loop)
            self._commit(new, snapshot, {"replay": index.to_json()})
            _exchange(new, self.folder / name)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        self.index, self.since = index, snapshot.mark
        self._keep_best(snapshot)
        for step in complete(self.folder)[: -self.keep]:
            _remove(self.folder / str(step))
        self.store.keep(self._indices())
        trim()

    def _commit(self, folder: Path, snapshot: Snapshot, more: dict[str, Any]) -> None:
        """Bring all files of `folder` to disk and write down what they are."""
        files = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            sync(path)
            files[str(path.relative_to(folder))] = [path.stat().st_size, sha256(path)]
        for path in folder.rglob("*"):
            if path.is_dir():
                sync(path)
        content = {
            "format": FORMAT,
            "version": VERSION,
            "env_steps": snapshot.step,
            "updates": int(snapshot.agent["step"]),
            "skipped_in_a_row": int(snapshot.agent["skips"].in_a_row),
            "score": snapshot.score,
            "together": snapshot.together,
            "agent": digest(_named(snapshot.agent)),
            "files": files,
        }
        with replacing(folder / COMMIT) as file:
            file.write(json.dumps(content | more, indent=1).encode())

    def _keep_best(self, snapshot: Snapshot) -> None:
        """Keep the learner of `snapshot` as the best one, where it is."""
        if not self.learner or snapshot.score is None:
            return
        if self.best_score is not None and snapshot.score <= self.best_score:
            return
        folder, name = self.run / BEST, str(snapshot.step)
        new = folder / f".{name}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        shutil.copytree(self.folder / name / AGENT, new / AGENT, copy_function=_link)
        self._commit(new, snapshot, {})
        _exchange(new, folder / name)
        for step in complete(folder):
            if step != snapshot.step:
                _remove(folder / str(step))
        self.best_score = snapshot.score

    def _known_best(self) -> float | None:
        for checkpoint in sound(self.run, best=True):
            return checkpoint.commit.get("score")
        return None

    def _indices(self) -> list[Index]:
        """Of all checkpoints but those whose commit record is damaged, which nobody can go on from."""
        indices = []
        for step in complete(self.folder):
            with suppress(RunDirectoryError):
                indices.append(Checkpoint(self.folder / str(step)).index)
        return indices

    def _set_aside(self, step: int) -> None:
        """Move a damaged checkpoint out of the way, in place of one that was there."""
        aside = self.run / DAMAGED_FOLDER
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        (self.folder / str(step)).rename(aside / str(step))


def _exchange(new: Path, folder: Path) -> None:
    """Give `new` the name `folder`, in place of what is there."""
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _tidy(folder: Path) -> None:
    """Remove what a write that was killed has left in `folder`; what it was about to replace is put back."""
    for old in folder.glob(".*.old"):
        name = folder / old.name[1:].removesuffix(".old")
        if not name.exists():
            old.rename(name)
    for leftover in folder.glob(".[0-9]*"):
        shutil.rmtree(leftover)


def _remove(folder: Path) -> None:
    """Remove a checkpoint; it has lost its name before its first file is gone."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone)


def _named(agent: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(agent)[0]:
        yield jax.tree_util.keystr(path), leaf


def _link(source: str, target: str) -> None:
    """A second name for a file that is never written again; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
