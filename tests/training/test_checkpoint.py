"""Checkpoints on their own: complete or not there, whatever breaks while they are written or afterwards."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import threading
import warnings
import weakref
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent import files
from dreamer_agent.agent import AgentState, Skips
from dreamer_agent.errors import RunDirectoryError
from dreamer_agent.replay import HostReplay
from dreamer_agent.training import checkpoints as module
from dreamer_agent.training.checkpoint import Checkpoint, complete, newest, sound
from dreamer_agent.training.checkpoints import Checkpoints, Snapshot
from dreamer_agent.training.mesh import Placement
from tests.replay.stores import LAYOUT, assert_same, make_step


def state(number: float) -> AgentState:
    """A learner of one number."""
    zero = jnp.zeros((), jnp.int32)
    value = [jnp.full((4,), number) for _ in range(5)]
    skips = Skips(zero, jnp.copy(zero))
    params, average, moments = {"w": value[0]}, {"w": value[1]}, {"m": value[2]}
    return AgentState(zero + int(number), params, {}, average, moments, value[3], {}, value[4], skips)


def copied(learner: AgentState) -> dict[str, Any]:
    """As a trainer hands it over."""
    return Placement().copied(learner.named())


class Run:
    """A run that only counts, beside a real replay."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self.replay, self.step = folder, HostReplay(LAYOUT, 2, 40, 3, 4), 0
        self.checkpoints = Checkpoints(folder, keep)

    def go_on(self, score: float | None = None, wait: bool = True) -> None:
        self.step += 100
        for number in range(6):
            self.replay.add(make_step(2, self.step + number))
        self.checkpoints.settle()
        changes, mark = self.replay.save_later(self.checkpoints.since), self.replay.mark()
        loop = {"step": self.step, "array": np.arange(self.step)}
        self.checkpoints.save(Snapshot(self.step, copied(state(self.step)), loop, changes, mark, score))
        if wait:
            self.checkpoints.settle()

    def restored(self) -> tuple[int, Any]:
        """Env step and replay of the newest checkpoint, as another process would find them."""
        again = Checkpoints(self.folder)
        found = again.newest()
        replay = HostReplay(LAYOUT, 2, 40, 3, 4)
        replay.restore(again.store.load(found.index))
        agent = found.agent(state(0))
        assert found.loop()["step"] == found.step == int(agent.step)
        np.testing.assert_array_equal(agent.params["w"], np.full(4, found.step))
        again.close()
        return found.step, replay.save()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    for _ in range(3):
        run.go_on()
    return run


def test_the_last_ones_stay_and_the_newest_holds_everything(run: Run) -> None:
    assert complete(run.folder / "checkpoints") == [200, 300] == [c.step for c in sound(run.folder)][::-1]
    step, replay = run.restored()
    assert step == 300
    assert_same(replay, run.replay.save())
    commit = json.loads((run.folder / "checkpoints/300/commit.json").read_text())
    assert commit["format"] == 2 and commit["env_steps"] == 300 and commit["updates"] == 300
    assert set(commit["files"]) > {"loop.npz"} and any(name.startswith("agent/") for name in commit["files"])


def every_file(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("how", ["flipped", "cut short", "gone"])
def test_any_damage_to_the_newest_falls_back_to_the_one_before(run: Run, tmp_path: Path, how: str) -> None:
    newest_files = {f"checkpoints/300/{name}" for name in every_file(run.folder / "checkpoints/300")}
    older = [each.name for each in Checkpoint(run.folder / "checkpoints/200").index.files]
    replay_files = {f"replay/{name}" for name in every_file(run.folder / "replay") if name not in older}
    assert len(newest_files) > 5 and len(replay_files) == 1
    for name in sorted(newest_files | replay_files):
        copy = Run(shutil.copytree(run.folder, tmp_path / name.replace("/", "-")))
        path = copy.folder / name
        content = bytearray(path.read_bytes())
        if how == "gone":
            path.unlink()
        elif content or how == "flipped":
            half = len(content) // 2
            content[half:] = b"" if how == "cut short" else bytes(byte ^ 1 for byte in content[half:]) + b"!"
            path.write_bytes(content)
        if how == "cut short" and not content:
            continue  # it was empty
        if how == "gone" and name.endswith("commit.json"):
            assert complete(copy.folder / "checkpoints") == [200]
            assert copy.restored()[0] == 200
            continue
        with pytest.warns(UserWarning, match="env step 300 is passed over"):
            assert copy.restored()[0] == 200
        assert (copy.folder / "damaged/300").is_dir()
        assert every_file(copy.folder / "replay") == sorted(older)  # nothing newer than the checkpoint is left


def test_without_a_whole_checkpoint_the_run_does_not_begin_anew(run: Run) -> None:
    for step in (200, 300):
        (run.folder / f"checkpoints/{step}/loop.npz").write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(RunDirectoryError, match=r"None .* is whole .*200, 300.*copy"):
        Checkpoints(run.folder).newest()
    with pytest.warns(UserWarning), pytest.raises(RunDirectoryError, match="no whole checkpoint"):
        newest(run.folder)


def test_a_kill_leaves_nothing_half_written(run: Run) -> None:
    (run.folder / "checkpoints/.400").mkdir()
    (run.folder / "checkpoints/.400/loop.npz").write_bytes(b"half")
    (run.folder / "replay/.steps-000004.npz.new").write_bytes(b"half")
    (run.folder / "replay/steps-000004.npz").write_bytes(b"whole, but of no checkpoint")
    (run.folder / "checkpoints/300").rename(run.folder / "checkpoints/.300.old")  # as it is replaced
    assert run.restored()[0] == 300
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) == ["200", "300"]
    assert not any("000004" in path.name for path in (run.folder / "replay").iterdir())


def test_a_full_disk_costs_one_checkpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = run.restored()
    for target, name in ((files.np, "savez"), (module.ocp.Checkpointer, "save"), (module.os, "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, full)
            run.go_on()
        assert "No space left" in str(run.checkpoints.failure)
        step, replay = run.restored()
        assert step == before[0]
        assert_same(replay, before[1])
    run.go_on()
    assert not run.checkpoints.failure
    step, replay = run.restored()
    assert step == run.step
    assert_same(replay, run.replay.save())


def test_writing_goes_on_beside_and_holds_what_was_there_at_the_call(run: Run, monkeypatch) -> None:
    gate, write = threading.Event(), module.write_tree
    monkeypatch.setattr(module, "write_tree", lambda *x: (gate.wait(30), write(*x)))
    replay, step = run.replay, run.step + 100
    donate = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    held = state(step)
    for number in range(6):
        replay.add(make_step(2, number))
    expected = replay.save()
    snapshot = Snapshot(
        step, copied(held), {"step": step}, replay.save_later(run.checkpoints.since), replay.mark(), None
    )
    run.checkpoints.save(snapshot)
    held = donate(held)
    replay.add(make_step(2, 99))
    replay.cut()
    assert complete(run.folder / "checkpoints") == [200, 300]  # it is still being written
    gate.set()
    run.checkpoints.settle()
    found, restored = run.restored()
    assert found == step
    assert_same(restored, expected)


def test_the_best_is_kept_beside_the_last_ones(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    for score in (None, 3.0, 7.0, 5.0, 6.0, 7.0):
        run.go_on(score)
    assert complete(run.folder / "best") == [300] and complete(run.folder / "checkpoints") == [500, 600]
    best = newest(run.folder, best=True)
    assert best.step == 300 and best.commit["score"] == 7.0
    np.testing.assert_array_equal(best.agent(state(0)).params["w"], np.full(4, 300))
    run.checkpoints = Checkpoints(run.folder)  # as after a restart
    run.checkpoints.newest()
    run.go_on(6.5)
    assert complete(run.folder / "best") == [300]
    run.go_on(8.0)
    assert complete(run.folder / "best") == [800]


def test_a_checkpoint_before_skipped_updates_is_found(run: Run) -> None:
    path = run.folder / "checkpoints/300/commit.json"
    commit = json.loads(path.read_text())
    path.write_text(json.dumps(commit | {"skipped_in_a_row": 3}))
    again = Checkpoints(run.folder)
    assert again.newest(before_skips=True).step == 200
    assert complete(run.folder / "checkpoints") == [200]


def test_a_newer_format_is_refused_and_nothing_is_passed_over(run: Run) -> None:
    path = run.folder / "checkpoints/300/commit.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99, "version": "7.0"}))
    again = Checkpoints(run.folder)
    for read in (lambda: newest(run.folder), again.newest):
        with warnings.catch_warnings(), pytest.raises(RunDirectoryError, match=r"format 99.*\(7\.0\)"):
            warnings.simplefilter("error")
            read()
    again.close()
    assert complete(run.folder / "checkpoints") == [200, 300]


def test_another_shape_is_refused_by_the_name_of_the_array(run: Run) -> None:
    like = state(0)._replace(params={"w": jnp.zeros(5)})
    with pytest.raises(RunDirectoryError, match=r"does not fit this model.*w"):
        newest(run.folder).agent(like)


def test_damage_to_an_older_checkpoint_harms_nobody(run: Run) -> None:
    commit = run.folder / "checkpoints/200/commit.json"
    for content in ("", "[]", '{"files": {"x": [1]}, "format": 1}'):
        commit.write_text(content)
        assert run.restored()[0] == run.step
        run.go_on()
        assert not run.checkpoints.failure and run.restored()[0] == run.step
        commit = run.folder / f"checkpoints/{run.step - 100}/commit.json"


def test_no_file_of_the_replay_is_ever_written_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by a checkpoint of everything, after those before it could not be built upon."""
    held = {path.name: path.read_bytes() for path in (run.folder / "replay").iterdir()}
    run.checkpoints.index = run.checkpoints.since = None

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.ocp.Checkpointer, "save", fails)
        run.go_on()
    assert {name: (run.folder / "replay" / name).read_bytes() for name in held} == held
    assert run.restored()[0] == 300


def test_what_is_not_ours_is_left_alone(run: Run) -> None:
    ours_not = run.folder / "checkpoints/.DS_Store"
    ours_not.write_bytes(b"of a file manager")
    assert run.restored()[0] == 300 and ours_not.is_file()


def test_the_checkpoint_after_so_many_updates_is_found(run: Run) -> None:
    again = Checkpoints(run.folder)
    assert again.newest(updates=200).step == 200
    assert complete(run.folder / "checkpoints") == [200]
    assert again.newest(updates=150) is None and complete(run.folder / "checkpoints") == []
    again.close()


def test_a_second_process_is_told_before_it_changes_anything(run: Run) -> None:
    code = "import sys, pathlib, dreamer_agent.training.lock as m; m.check_free(pathlib.Path(sys.argv[1]))"
    told = subprocess.run([sys.executable, "-c", code, str(run.folder)], capture_output=True, text=True)
    assert told.returncode and "is being trained by another process" in told.stderr


def test_a_failure_holds_nothing_of_what_could_not_be_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.np, "savez", fails)
    mark = run.replay.mark()
    run.replay.add(make_step(2, 1))
    array = np.zeros(1000)
    alive = weakref.ref(array)
    run.checkpoints.save(Snapshot(999, copied(state(9)), {"a": array}, run.replay.save_later(), mark))
    del array
    run.checkpoints.settle()
    assert "No space" in run.checkpoints.failure and alive() is None


def test_the_same_step_may_be_written_again(run: Run) -> None:
    run.replay.cut()
    run.step -= 100
    run.go_on()
    step, replay = run.restored()
    assert step == 300
    assert_same(replay, run.replay.save())
