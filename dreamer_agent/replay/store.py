"""A replay on disk: files that are written once, each with what came since the one before.

Steps go to `steps-*.npz`, later writes into them (latents above all) to `changed-*.npz`. An `Index`, which the
checkpoint holds, names its files with their digests. A file that no index names is as good as not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent.files import check_file, read_tree, sha256, write_tree
from dreamer_agent.replay.saved import Saved
from dreamer_agent.replay.trees import Tree

WASTE = 2.0  # files of changes are sorted out when they hold so many times the rows that there are
MERGED = 256e6  # bytes of changes up to which files are put together


@dataclass(frozen=True)
class File:
    """One file: its name, size and digest, its rows, and up to which step of each stream it holds some."""

    name: str
    bytes: int
    sha256: str
    rows: int
    added: list[int]


@dataclass(frozen=True)
class Index:
    """All of a replay at one moment: its counters, and the files of its steps and changes in their order."""

    number: int  # of its newest files
    length: int
    added: list[int]
    served: list[int]
    samples: int
    steps: list[File] = field(default_factory=list)
    changed: list[File] = field(default_factory=list)

    @property
    def files(self) -> list[File]:
        """Both kinds."""
        return [*self.steps, *self.changed]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Index:
        """The inverse of `to_json`."""
        files = {key: [File(**each) for each in content[key]] for key in ("steps", "changed")}
        return cls(**{**content, **files})


class ReplayStore:
    """The files of one replay in `folder`. Only one process may write there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def append(self, saved: Saved, before: Index | None) -> Index:
        """Write `saved`, the difference to what `before` names, to new files.

        Raises `OSError` where the disk is full, `RunDirectoryError` where an older file cannot be read; what
        `before` names is untouched.
        """
        self.folder.mkdir(exist_ok=True)
        number = self._next_number()
        name = f"{number:06d}"
        oldest = (saved.added - saved.length).clip(0)
        steps = [each for each in before.steps if (np.array(each.added) > oldest).any()] if before else []
        changed = list(before.changed) if before else []
        if saved.steps["reward"].size:
            content = {"first": saved.first, "added": saved.added, "steps": saved.steps}
            steps.append(self._write(f"steps-{name}", content, len(saved.steps["reward"]), saved.added))
        if saved.changed["step"].size:
            changed.append(self._write(f"changed-{name}", saved.changed, len(saved.changed["step"]), saved.added))
        counts = saved.added.tolist(), saved.served.tolist()
        held = int(np.minimum(saved.added, saved.length).sum())
        if sum(each.rows for each in changed) > WASTE * held:  # paid for by what was written since the last time
            changed = self._sorted_out(name, changed, saved.added, oldest)
        return Index(number, saved.length, *counts, int(saved.samples), steps, changed)

    def load(self, index: Index) -> Iterator[Saved]:
        """What `index` names, for `HostReplay.restore`: all steps, then the changes; one file at a time.

        Raises `RunDirectoryError` for a file that is not data.
        """
        served, samples = np.array(index.served), index.samples
        for each in index.steps:
            content = read_tree(self.folder / each.name)
            first, added = content["first"], content["added"]
            yield Saved(index.length, first, added, served, samples, content["steps"], {})
        added = np.array(index.added)
        for each in index.changed:
            changed = read_tree(self.folder / each.name)
            yield Saved(index.length, added, added, served, samples, {}, changed)
        if not index.files:
            yield Saved(index.length, added, added, served, samples, {}, {})

    def check(self, index: Index) -> None:
        """Raise `RunDirectoryError` where a file is missing or is not the one that was written."""
        for each in index.files:
            check_file(self.folder / each.name, each.bytes, each.sha256)

    def keep(self, indices: Iterable[Index]) -> None:
        """Remove every file that none of `indices` names."""
        named = {each.name for index in indices for each in index.files}
        for path in self.folder.glob("*.npz*"):
            if path.name not in named:
                path.unlink()

    def _next_number(self) -> int:
        """One that no file has: what an older checkpoint names is never written over."""
        return 1 + max((int(path.name.split("-")[1][:6]) for path in self.folder.glob("*-*.npz")), default=0)

    def _write(self, name: str, content: Tree, rows: int, added: np.ndarray) -> File:
        path = self.folder / f"{name}.npz"
        write_tree(path, content)
        return File(path.name, path.stat().st_size, sha256(path), rows, added.tolist())

    def _sorted_out(self, name: str, files: list[File], added: np.ndarray, oldest: np.ndarray) -> list[File]:
        """`files` without the rows that later ones replace or that are no longer held, put together."""
        parts: list[tuple[File, np.ndarray]] = []
        seen = np.zeros(0, np.int64)
        for each in reversed(files):
            changed = read_tree(self.folder / each.name)
            keys = changed["step"] * len(added) + changed["stream"]
            wanted = ~np.isin(keys, seen) & (changed["step"] >= oldest[changed["stream"]])
            seen = np.union1d(seen, keys)
            parts.insert(0, (each, wanted))
        out: list[File] = []
        for group in _groups(parts):
            if len(group) == 1 and group[0][1].all():
                out.append(group[0][0])
                continue
            rows = [_rows(read_tree(self.folder / each.name), wanted) for each, wanted in group]
            merged = _joined(rows)
            if len(merged["step"]):
                out.append(self._write(f"changed-{name}-{len(out)}", merged, len(merged["step"]), added))
        return out


def _groups(parts: list[tuple[File, np.ndarray]]) -> Iterator[list[tuple[File, np.ndarray]]]:
    """Neighbours that hold at most `MERGED` bytes of wanted rows together, so that few are in memory at once."""
    group: list[tuple[File, np.ndarray]] = []
    size = 0.0
    for file, wanted in parts:
        wanted_bytes = file.bytes * wanted.mean()
        if group and size + wanted_bytes > MERGED:
            yield group
            group, size = [], 0.0
        group.append((file, wanted))
        size += wanted_bytes
    if group:
        yield group


def _rows(tree: Any, wanted: np.ndarray) -> Any:
    return {key: _rows(value, wanted) for key, value in tree.items()} if isinstance(tree, dict) else tree[wanted]


def _joined(trees: list[Any]) -> Any:
    if isinstance(trees[0], dict):
        return {key: _joined([tree[key] for tree in trees]) for key in trees[0]}
    return np.concatenate(trees)
