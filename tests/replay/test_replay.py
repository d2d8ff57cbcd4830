"""Both replays beside a naive model: for each stream, the plain list of all steps that ever entered it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from dreamer_agent.replay import HostReplay, replay_bytes
from tests.compiling import quick_jit
from tests.replay.cases import Naive, adds, cases, make_batch_latents, row
from tests.replay.stores import LAYOUT, OnDevice, Store, assert_same, both, filled, make_step

BYTES_OF_ONE_STEP = (2 * 3 + 3 * 4) + (2 * 4 + 4) + 4 + 3 + (5 * 2 + 4)


@both
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_batches_are_windows_of_one_stream_and_hold_what_was_added(store: Store, data: Any) -> None:
    case = data.draw(cases(store))
    replay, naive = case.replay(store), Naive(case.num_envs)
    for step, mask in adds(case):
        replay.add(step, mask)
        naive.add(step, mask)
        possible = naive.starts(case.length, case.size)
        assert replay.ready() == bool(possible)
        if not possible:
            continue
        batch, ids = replay.sample()
        assert ids.shape == (case.batch_size, 2)
        assert {tuple(pair) for pair in ids.tolist()} <= set(possible)
        windows = [naive.window(stream, start, case.size) for stream, start in ids.tolist()]
        assert_same(batch, jax.tree.map(lambda *x: np.stack(x), *windows))


@both
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_step_is_trained_on_when_sampling_keeps_pace(store: Store, data: Any) -> None:
    case = data.draw(cases(store, online=True))
    replay, naive = case.replay(store), Naive(case.num_envs)
    trained: set[tuple[int, int]] = set()
    for step, mask in adds(case):
        replay.add(step, mask)
        naive.add(step, mask)
        if replay.ready():
            for _ in range(case.num_envs):  # an add completes at most one window a stream
                _, ids = replay.sample()
                for stream, start in ids.tolist():
                    trained |= {(stream, start + case.context + i) for i in range(case.stride)}
    for stream, steps in enumerate(naive.streams):
        complete = (len(steps) - case.context) // case.stride * case.stride
        assert {(stream, case.context + i) for i in range(complete)} <= trained


@both
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_fresh_windows_come_once_and_oldest_first_and_overwritten_ones_are_skipped(
    store: Store, data: Any
) -> None:
    case = data.draw(cases(store, online=True))
    replay, naive = case.replay(store), Naive(case.num_envs)
    for step, mask in adds(case):
        replay.add(step, mask)
        naive.add(step, mask)
    possible = naive.starts(case.length, case.size)
    fresh = sorted((start, stream) for stream, start in possible if start % case.stride == 0)
    got: list[tuple[int, int]] = []
    while len(got) < len(fresh):
        _, ids = replay.sample()
        got += [(start, stream) for stream, start in ids.tolist()]
    assert got[: len(fresh)] == fresh


@both
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_latents_go_to_the_trained_rows_that_are_still_held(store: Store, data: Any) -> None:
    case = data.draw(cases(store))
    more = data.draw(st.integers(0, 40))
    replay, naive = case.replay(store), Naive(case.num_envs)
    for step, mask in adds(case):
        replay.add(step, mask)
        naive.add(step, mask)
    if not replay.ready():
        return
    _, ids = replay.sample()
    for number in range(more):  # these overwrite some or all of the sampled rows
        step = make_step(case.num_envs, 1000 + number)
        replay.add(step)
        naive.add(step, None)

    def latent(stream: int, number: int) -> dict[str, np.ndarray]:
        return {
            "deter": np.full(5, 100 * (stream + 1) + number, ml_dtypes.bfloat16),
            "stoch": np.full(4, 200 + stream, np.uint8),
        }

    trained = {(stream, start + case.context + i) for stream, start in ids.tolist() for i in range(case.stride)}
    rows = [
        jax.tree.map(lambda *x: np.stack(x), *(latent(s, n + case.context + i) for i in range(case.stride)))
        for s, n in ids.tolist()
    ]
    replay.update_latents(ids, jax.tree.map(lambda *x: np.stack(x), *rows))
    for stream, steps in enumerate(naive.streams):
        for number in range(max(0, len(steps) - case.length), len(steps)):
            expected = latent(stream, number) if (stream, number) in trained else steps[number]["latent"]
            assert_same(row(replay.data["latent"], (stream, number % case.length)), expected)


@both
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_restored_replay_goes_on_identically(store: Store, data: Any) -> None:
    case = data.draw(cases(store))
    before = data.draw(st.integers(0, 7))
    first, second = case.replay(store), case.replay(store)
    for step, mask in adds(case):
        first.add(step, mask)
    for _ in range(before if first.ready() else 0):
        first.sample()
    second.restore([first.save()])
    for number in range(6):
        for replay in (first, second):
            replay.add(make_step(case.num_envs, 500 + number))
        assert first.ready() == second.ready()
        if first.ready():
            (batch, ids), (other_batch, other_ids) = first.sample(), second.sample()
            assert_same(other_batch, batch)
            np.testing.assert_array_equal(other_ids, ids)
            latents = {key: value[:, case.context :] for key, value in make_batch_latents(batch).items()}
            for replay in (first, second):
                replay.update_latents(ids, latents)


@both
def test_the_same_seed_gives_the_same_samples_and_another_seed_others(store: Store) -> None:
    replays = [filled(store, 20, seed=seed, online=False) for seed in (5, 5, 6)]
    ids = [np.concatenate([replay.sample()[1] for _ in range(10)]) for replay in replays]
    np.testing.assert_array_equal(ids[0], ids[1])
    assert not np.array_equal(ids[0], ids[2])
    assert not np.array_equal(ids[0][:3], ids[0][3:6])  # nor does a sample repeat the one before


@both
def test_starts_are_uniform_over_all_streams_and_steps(store: Store) -> None:
    replay = store(LAYOUT, 3, 3 * 20, 50, 4, 1, online=False, seed=1)
    masks = [np.array([True, number < 12, number % 2 == 0]) for number in range(33)]
    for number, mask in enumerate(masks):  # streams of 33 (wrapped), 12 and 17 steps
        replay.add(make_step(3, number), mask)
    possible = {(0, 13 + i) for i in range(16)} | {(1, i) for i in range(8)} | {(2, i) for i in range(13)}
    counts = dict.fromkeys(possible, 0)
    draws = 200 * 50
    for _ in range(200):
        for stream, start in replay.sample()[1].tolist():
            counts[stream, start] += 1
    expected = draws / len(possible)
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    assert statistic < chi2.ppf(0.999, len(possible) - 1)


@both
def test_masked_adds_reach_only_the_streams_of_the_mask(store: Store) -> None:
    replay = store(LAYOUT, 3, 60, 1, 4)
    step = make_step(3, 0)
    replay.add(step, np.array([True, False, True]))
    replay.add(make_step(3, 1), np.array([False, False, True]))
    assert replay.added.tolist() == [1, 0, 2]
    assert replay.data["reward"][:, 0].tolist() == [step["reward"][0], 0.0, step["reward"][2]]
    assert replay.data["reward"][2, 1] == make_step(3, 1)["reward"][2]
    assert not replay.data["reward"][:2, 1:].any()


def served_last(store: Store, first: list[int], total: int) -> dict[int, list[bool]]:
    """`is_last` of every window (by its start) of one stream that starts episodes at the steps `first`."""
    replay = store(LAYOUT, 1, 20, 4, 3, online=False)
    for number in range(total):
        step = make_step(1, number, first=0.0, last=0.0)
        replay.add(step | {"is_first": np.array([number in first])})
    out = {}
    for _ in range(60):
        batch, ids = replay.sample()
        for (_, start), flags in zip(ids.tolist(), batch["is_last"], strict=True):
            out[start] = flags.tolist()
    return out


@both
def test_a_row_followed_by_an_is_first_is_served_as_is_last(store: Store) -> None:
    served = served_last(store, first=[0, 4, 7], total=9)
    for start, flags in served.items():
        assert flags == [step in (3, 6) for step in range(start, start + 4)]
    # 3 is the last column of the window that starts at 0: its follower lies outside of the window.
    assert set(served) == {0, 1, 2, 3, 4, 5}


@both
def test_the_newest_step_does_not_look_at_what_the_ring_held_before(store: Store) -> None:
    # The ring of 20 is full: the slot after the newest step (number 20) holds step 1, an is_first.
    served = served_last(store, first=[1], total=21)
    assert served[17] == [False] * 4
    assert served[1] == [False] * 4
    assert set(served) == set(range(1, 18))


@both
def test_cut_closes_every_stream(store: Store) -> None:
    replay = store(LAYOUT, 2, 40, 8, 3, online=False)
    for number in range(5):
        replay.add(make_step(2, number, 0.0, 0.0), np.array([True, number < 4]))
    terminal = replay.data["is_terminal"].copy()
    replay.cut()
    np.testing.assert_array_equal(replay.data["is_terminal"], terminal)  # a truncation, no end of the task
    seen = set()
    for _ in range(20):
        batch, ids = replay.sample()
        for (stream, start), flags in zip(ids.tolist(), batch["is_last"], strict=True):
            newest = 4 - stream
            assert flags.tolist() == [step == newest for step in range(start, start + 4)]
            seen.add((stream, start))
    assert seen == {(0, 0), (0, 1), (1, 0)}


@both
def test_cut_of_an_empty_replay_changes_nothing(store: Store) -> None:
    replay = store(LAYOUT, 2, 40, 8, 3)
    replay.cut()
    assert not replay.data["is_last"].any()
    assert not replay.ready()


@both
@pytest.mark.parametrize(("num_envs", "capacity"), [(1, 10), (3, 33), (4, 4000)])
def test_replay_bytes_is_what_the_arrays_take(store: Store, num_envs: int, capacity: int) -> None:
    replay = store(LAYOUT, num_envs, capacity, 2, 4)
    taken = sum(leaf.nbytes for leaf in jax.tree.leaves(replay.data))
    assert replay_bytes(LAYOUT, 1) == BYTES_OF_ONE_STEP
    assert (
        replay_bytes(LAYOUT, capacity // num_envs * num_envs)
        == taken
        == BYTES_OF_ONE_STEP * replay.length * num_envs
    )


@both
def test_deter_is_kept_in_bfloat16(store: Store) -> None:
    replay = filled(store, 9)
    batch, _ = replay.sample()
    assert batch["latent"]["deter"].dtype == ml_dtypes.bfloat16
    assert batch["latent"]["stoch"].dtype == np.uint8
    # A float32 number is rounded to the eight significant bits of the stored type.
    ids, latents = (
        np.array([[0, 0]]),
        {"deter": np.full((1, 4, 5), 1.00390625, np.float32), "stoch": np.zeros((1, 4, 4))},
    )
    replay.update_latents(ids, latents)
    np.testing.assert_array_equal(replay.data["latent"]["deter"][0, 1:5].astype(np.float32), 1.0)


@both
def test_a_stream_that_holds_no_window_is_refused(store: Store) -> None:
    store(LAYOUT, 2, 2 * 6, 1, 4)
    with pytest.raises(ValueError, match="5 steps"):
        store(LAYOUT, 2, 2 * 6 - 1, 1, 4)


@both
def test_a_step_with_other_names_is_refused(store: Store) -> None:
    replay, step = filled(store, 0), make_step(2, 0)
    step["obs"].pop("image")
    with pytest.raises(ValueError, match="image"):
        replay.add(step)


@pytest.mark.parametrize("steps", [7, 20, 45])
@pytest.mark.parametrize(("source", "target"), [(HostReplay, OnDevice), (OnDevice, HostReplay)])
def test_what_one_replay_saved_the_other_restores(source: Store, target: Store, steps: int) -> None:
    first, second = filled(source, steps), filled(target, 0)
    for _ in range(2):
        first.sample()
    second.restore([first.save()])
    assert_same(second.save(), first.save())
    assert second.dropped == first.dropped
    fresh = 2 if steps == 45 else 0  # of four held windows in each stream, two samples have served six
    np.testing.assert_array_equal(second.sample()[1][:fresh], first.sample()[1][:fresh])


def test_samples_under_vmap_are_those_of_each_replay_alone() -> None:
    one, other = (filled(OnDevice, steps, seed=seed) for steps, seed in ((13, 1), (30, 2)))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), one.state, other.state)
    keys = jnp.stack([one.key, other.key])
    state, batch, ids = quick_jit(jax.vmap(one.replay.sample))(stacked, keys)
    for index, alone in enumerate((one, other)):
        expected, expected_ids = alone.sample()
        np.testing.assert_array_equal(ids[index], expected_ids)
        assert_same(row(batch, index), expected)
        assert_same(row(state, index), row(alone.state, ...))
