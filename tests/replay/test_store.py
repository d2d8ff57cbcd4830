"""The files of a replay: what they hold, how much is written, and that damage is noticed."""

from __future__ import annotations

import itertools
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamer_agent.errors import RunDirectoryError
from dreamer_agent.files import read_tree, write_tree
from dreamer_agent.replay import HostReplay, ReplayStore
from dreamer_agent.replay.store import Index
from tests.replay.cases import make_batch_latents
from tests.replay.stores import LAYOUT, assert_same, make_step


def replay_of(length: int = 30) -> HostReplay:
    return HostReplay(LAYOUT, 2, 2 * length, 3, 4)


def go_on(replay: HostReplay, steps: int, seed: int = 0) -> None:
    for number in range(steps):
        replay.add(make_step(2, 1000 * seed + number))
        if replay.ready():
            batch, ids = replay.sample()
            replay.update_latents(ids, {key: x[:, 1:] for key, x in make_batch_latents(batch).items()})


def written(store: ReplayStore, replay: HostReplay, rounds: int, steps: int) -> list[Index]:
    indices: list[Index] = []
    mark = None
    for number in range(rounds):
        go_on(replay, steps, number)
        indices.append(store.append(replay.save(mark), indices[-1] if indices else None))
        mark = replay.mark()
    return indices


@pytest.mark.parametrize("steps", [3, 12])
def test_what_the_files_hold_is_the_replay_also_when_steps_were_dropped(tmp_path: Path, steps: int) -> None:
    store, replay, again = ReplayStore(tmp_path), replay_of(), replay_of()
    index = written(store, replay, 12, steps)[-1]
    again.restore(store.load(Index.from_json(index.to_json())))
    assert_same(again.save(), replay.save())
    (batch, ids), (other_batch, other_ids) = replay.sample(), again.sample()
    assert_same(other_batch, batch)
    np.testing.assert_array_equal(ids, other_ids)


def test_every_checkpoint_holds_what_was_then(tmp_path: Path) -> None:
    store, replay, mark = ReplayStore(tmp_path), replay_of(), None
    indices: list[Index] = []
    then = []
    for number in range(8):
        go_on(replay, 6, number)
        indices.append(store.append(replay.save(mark), indices[-1] if indices else None))
        mark = replay.mark()
        then.append(replay.save())
    for index, expected in zip(indices, then, strict=True):
        again = replay_of()
        again.restore(store.load(index))
        assert_same(again.save(), expected)


def test_steps_are_written_once_and_files_that_nothing_names_are_removed(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path)
    indices = written(store, replay_of(), 10, 5)
    for before, after in itertools.pairwise(indices):
        new = [each for each in after.steps if each not in before.steps]
        assert len(new) == 1 and new[0].rows == 10
    assert sum(each.rows for each in indices[-1].changed) <= 2 * 60
    assert len(indices[-1].steps) == 6  # thirty steps of two streams are held
    store.keep(indices[-2:])
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {each.name for index in indices[-2:] for each in index.files}


def test_damage_is_noticed(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path)
    index = written(store, replay_of(), 2, 5)[-1]
    store.check(index)
    path = tmp_path / index.steps[0].name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunDirectoryError, match=r"steps-000001\.npz is missing or damaged"):
        store.check(index)
    path.unlink()
    with pytest.raises(RunDirectoryError, match="missing"):
        store.check(index)


def test_a_tree_survives_its_file(tmp_path: Path) -> None:
    import ml_dtypes

    tree = {
        "a/b": [np.arange(3, dtype=ml_dtypes.bfloat16), None, True, 2**100, 0.1, "text", b"\x00\x01"],
        "nested": {"scalar": np.float32(0.3), "empty": np.zeros((0, 4), np.uint8), "nan": float("nan")},
        "dict": {"array": {}},
    }
    write_tree(tmp_path / "tree.npz", tree)
    read = read_tree(tmp_path / "tree.npz")
    assert read["a/b"][1:] == tree["a/b"][1:] and read["dict"] == {"array": {}}
    assert read["a/b"][0].dtype == ml_dtypes.bfloat16 and read["a/b"][0].tolist() == [0, 1, 2]
    assert read["nested"]["scalar"] == np.float32(0.3) and read["nested"]["scalar"].dtype == np.float32
    assert read["nested"]["empty"].shape == (0, 4) and np.isnan(read["nested"]["nan"])


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_hostile_is_executed_and_it_gets_a_sentence(tmp_path: Path) -> None:
    trap, path = tmp_path / "executed", tmp_path / "hostile.npz"
    with pytest.raises(TypeError, match="plain data"):
        write_tree(path, {"object": Trap(trap)})
    pickled = np.array([Trap(trap)], object)
    for make in (
        lambda: np.savez(path, tree=pickled),
        lambda: np.savez(path, tree=np.frombuffer(b'{"array": 0, "type": ""}', np.uint8), **{"0": pickled}),
        lambda: path.write_bytes(pickle.dumps(Trap(trap))),
        lambda: path.write_bytes(b"PK\x03\x04 and no more"),
        lambda: np.savez(path, tree=np.frombuffer(b"[" * 100_000, np.uint8)),
        lambda: np.savez(path, tree=np.frombuffer(b'{"array": 7, "type": ""}', np.uint8)),
        lambda: np.savez_compressed(path, tree=np.zeros(10**7, np.uint8)),
        lambda: _claim(path, 10**15),
    ):
        make()
        with pytest.raises(RunDirectoryError, match="is damaged or was not written by this library"):
            read_tree(path)
    assert not trap.exists()


def _claim(path: Path, size: int) -> None:
    """An array that says it is larger than any memory."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (size,)}
    with zipfile.ZipFile(path, "w") as archive, archive.open("tree.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, header)
