"""What is saved of a replay: differences, copies that are made later, and putting them back, in both replays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamer_agent.replay import HostReplay
from dreamer_agent.replay.copying import LaterCopy
from tests.replay.cases import Naive, adds, cases, make_batch_latents
from tests.replay.stores import Store, assert_same, both, filled, make_step


@both
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_differences_in_order_give_what_one_whole_save_gives(store: Store, data: Any) -> None:
    case = data.draw(cases(store))
    replay, other = case.replay(store), case.replay(store)
    saved, mark = [], None
    for number, (step, mask) in enumerate(adds(case)):
        replay.add(step, mask)
        if data.draw(st.booleans()) and replay.ready():
            batch, ids = replay.sample()
            latents = {key: value[:, case.context :] for key, value in make_batch_latents(batch).items()}
            replay.update_latents(ids, latents)
        if data.draw(st.integers(0, 4)) == 0:
            replay.cut()
        if number % 5 == 4:
            saved.append(replay.save(mark))
            mark = replay.mark()
    saved.append(replay.save(mark))
    other.restore(saved)
    assert_same(other.save(), replay.save())


@both
def test_a_difference_holds_what_changed_and_nothing_else(store: Store) -> None:
    replay = filled(store, 12)
    mark = replay.mark()
    replay.add(make_step(2, 50))
    nothing_written = replay.save(mark)
    assert nothing_written.steps["reward"].shape == (2,) and nothing_written.first.tolist() == [12, 12]
    assert nothing_written.changed["step"].size == 0
    mark = replay.mark()
    latents = {"deter": np.ones((1, 4, 5), ml_dtypes.bfloat16), "stoch": np.full((1, 4, 4), 7, np.uint8)}
    replay.update_latents(np.array([[1, 3]]), latents)
    changed = replay.save(mark).changed
    assert changed["stream"].tolist() == [1] * 4 and changed["step"].tolist() == [4, 5, 6, 7]
    np.testing.assert_array_equal(changed["latent"]["stoch"], 7)
    replay.cut()
    closed = replay.save(mark).changed
    assert closed["stream"].tolist() == [0, 1, 1, 1, 1, 1] and closed["step"].tolist() == [12, 4, 5, 6, 7, 12]
    assert closed["is_last"][[0, -1]].all()


@both
def test_a_difference_alone_is_no_replay(store: Store) -> None:
    replay = filled(store, 12)
    mark = replay.mark()
    replay.add(make_step(2, 50))
    with pytest.raises(ValueError, match="begin at"):
        filled(store, 0).restore([replay.save(mark)])


@both
def test_what_is_saved_does_not_change_with_the_replay(store: Store) -> None:
    replay = filled(store, 12)
    saved = replay.save()
    before = jax.tree.map(np.copy, saved)
    replay.add(make_step(2, 99))
    replay.cut()
    replay.sample()
    assert_same(saved, before)


@both
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_copy_that_is_made_later_holds_what_was_there_when_it_was_asked_for(store: Store, data: Any) -> None:
    case = data.draw(cases(store))
    replay, mark, waiting = case.replay(store), None, []
    for number, (step, mask) in enumerate(adds(case)):
        replay.add(step, mask)
        if number % 3 == 2:
            waiting.append((replay.save_later(mark), replay.save(mark)))
            mark = data.draw(st.sampled_from([None, replay.mark()]))
        if replay.ready():
            batch, ids = replay.sample()
            latents = {key: value[:, case.context :] for key, value in make_batch_latents(batch).items()}
            replay.update_latents(ids, latents)
        if data.draw(st.integers(0, 4)) == 0:
            replay.cut()
        if waiting and data.draw(st.booleans()):
            later, expected = waiting.pop(0)
            assert_same(later(), expected)
    for later, expected in waiting:
        assert_same(later(), expected)


def test_rows_are_copied_by_one_thread_while_another_writes_over_them() -> None:
    replay, steps = filled(HostReplay, 0, length=8000), [make_step(2, number) for number in range(7)]
    for number in range(9000):
        replay.add(steps[number % 7])
    expected, later = replay.save(), replay.save_later()
    with ThreadPoolExecutor(1) as writer:
        copied, number = writer.submit(later), 0
        while not copied.done() or number < 9000:  # over all of it, ahead of the copying and behind it
            replay.add(steps[number % 5])
            number += 1
    assert_same(copied.result(), expected)


def test_a_copy_that_cannot_be_made_ends_and_costs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = filled(HostReplay, 12)
    later = replay.save_later()

    def fails(*_: Any) -> None:
        raise MemoryError("nothing left")

    with monkeypatch.context() as patch:
        patch.setattr(LaterCopy, "_copy", fails)
        with pytest.raises(MemoryError):
            later()
    replay.add(make_step(2, 50))
    assert all(copy.done for copy in replay.copies)
    assert replay.save().steps["reward"].shape == (2 * 13,)


@both
def test_only_the_used_part_of_the_rings_is_saved(store: Store) -> None:
    assert filled(store, 7).save().steps["reward"].shape == (2 * 7,)
    assert filled(store, 45).save().steps["reward"].shape == (2 * 20,)


@both
@pytest.mark.parametrize("steps", [9, 20, 33])
def test_shorter_streams_keep_the_newest_saved_steps(store: Store, steps: int) -> None:
    old, new, naive = filled(store, steps), filled(store, 0, length=8), Naive(2)
    for number in range(steps):
        naive.add(make_step(2, number), None)
    new.restore([old.save()])
    for _ in range(20):
        batch, ids = new.sample()
        assert ids[:, 1].min() >= steps - 8
        windows = [naive.window(stream, start, 5) for stream, start in ids.tolist()]
        assert_same(batch, jax.tree.map(lambda *x: np.stack(x), *windows))


@both
def test_a_replay_of_another_layout_or_with_longer_full_streams_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="cannot grow"):
        filled(store, 0, length=30).restore([filled(store, 25, length=20).save()])
    with pytest.raises(ValueError, match="2 streams"):
        filled(store, 0, num_envs=3).restore([filled(store, 9, num_envs=2).save()])
    saved = filled(store, 9).save()
    saved.steps["obs"]["more"] = saved.steps["obs"].pop("image")
    with pytest.raises(ValueError, match="more"):
        filled(store, 0).restore([saved])
