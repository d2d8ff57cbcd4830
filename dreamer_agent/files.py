"""Trees of plain data in files: written whole and durably or not at all; reading them executes nothing.

A file is an npz: each array is a member, and what is not an array is JSON in a member of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from dreamer_agent.errors import RunDirectoryError

TREE = "tree"  # the member that holds the structure
ARRAY, BYTES = "array", "bytes"  # leaves of it: {"array": member}, {"bytes": member}
FOREIGN = {"bfloat16": (ml_dtypes.bfloat16, np.uint16)}  # types that an npz does not know: stored as integers
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, RecursionError, zipfile.BadZipFile)


def write_tree(path: Path, tree: Any) -> None:
    """Write nested dicts (with string keys) and lists of arrays, numbers, texts, bytes, booleans and None."""
    arrays: list[np.ndarray] = []
    structure = json.dumps(_structure(tree, arrays)).encode()
    members = {TREE: np.frombuffer(structure, np.uint8)} | {str(i): array for i, array in enumerate(arrays)}
    with replacing(path) as file:
        np.savez(file, **members)


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with replacing(path) as file:
        file.write(text.encode())


def read_tree(path: Path) -> Any:
    """What `write_tree` wrote (tuples as lists); `RunDirectoryError` for anything else, of which nothing runs."""
    try:
        with open_npz(path) as file:
            return _tree(json.loads(file[TREE].tobytes()), file)
    except DAMAGED as error:
        raise damaged(path, error) from error


def open_npz(path: Path) -> Any:
    """`numpy.load` of an npz that is data only; `ValueError` where a member is compressed."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed, as ours never are")
    return np.load(path, allow_pickle=False)


def damaged(path: Path, error: BaseException) -> RunDirectoryError:
    """The error for a file that is not what we wrote."""
    return RunDirectoryError(
        f"{path} is damaged or was not written by this library ({type(error).__name__}: {error}): copy it again "
        "from where it came from, or go back to an older checkpoint."
    )


class replacing:
    """`with replacing(path) as file`: the file appears under its name when it is whole and on disk."""

    def __init__(self, path: Path):
        self.path, self.beside = path, path.with_name(f".{path.name}.new")

    def __enter__(self) -> BinaryIO:
        self.file = self.beside.open("wb")
        return self.file

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                self.file.flush()
                os.fsync(self.file.fileno())
        finally:
            self.file.close()
            if kind is not None:
                self.beside.unlink(missing_ok=True)
        if kind is None:
            self.beside.replace(self.path)
            sync(self.path.parent)


def sync(path: Path) -> None:
    """Bring the bytes of a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path, size: int, expected: str) -> None:
    """Raise `RunDirectoryError` where a file is missing, or has another size or digest."""
    if not path.is_file() or path.stat().st_size != size or sha256(path) != expected:
        raise RunDirectoryError(f"{path} is missing or damaged.")


def digest(arrays: Iterable[tuple[str, Any]]) -> str:
    """One digest of named arrays: of their names, types, shapes and bytes."""
    out = hashlib.sha256()
    for name, array in arrays:
        array = np.ascontiguousarray(array)
        out.update(f"{name} {array.dtype} {array.shape}\n".encode())
        out.update(array.reshape(-1).view(np.uint8).data)
    return out.hexdigest()


def as_stored(array: np.ndarray) -> tuple[np.ndarray, str]:
    """`array` in a type that an npz knows, and the name of its own type where that is another one."""
    name = array.dtype.name
    return (array.view(FOREIGN[name][1]), name) if name in FOREIGN else (array, "")


def as_given(array: np.ndarray, name: str) -> np.ndarray:
    """The inverse of `as_stored`."""
    return array.view(FOREIGN[name][0]) if name else array


def _structure(tree: Any, arrays: list[np.ndarray]) -> Any:
    """`tree` as JSON, with its arrays appended to `arrays` and named by their numbers."""
    if isinstance(tree, dict):
        if not all(isinstance(key, str) for key in tree):
            raise TypeError(f"The keys of data to save should be texts; got {list(tree)}.")
        return {"dict": {key: _structure(value, arrays) for key, value in tree.items()}}
    if isinstance(tree, list | tuple):
        return [_structure(value, arrays) for value in tree]
    if tree is None or (isinstance(tree, bool | int | float | str) and not isinstance(tree, np.generic)):
        return tree
    if isinstance(tree, bytes):
        arrays.append(np.frombuffer(tree, np.uint8))
        return {BYTES: len(arrays) - 1}
    array = np.asarray(tree)
    if array.dtype.hasobject:
        raise TypeError(f"Only plain data can be saved; got a {type(tree).__name__}.")
    array, name = as_stored(array)
    arrays.append(array)
    return {ARRAY: len(arrays) - 1, "type": name}


def _tree(structure: Any, file: Any) -> Any:
    if isinstance(structure, list):
        return [_tree(value, file) for value in structure]
    if not isinstance(structure, dict):
        return structure
    if "dict" in structure:
        return {key: _tree(value, file) for key, value in structure["dict"].items()}
    if BYTES in structure:
        return file[str(structure[BYTES])].tobytes()
    return as_given(file[str(structure[ARRAY])], structure["type"])


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The leaves of nested dicts with their paths, in the order of the dicts."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, tree
