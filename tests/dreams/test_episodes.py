"""Which steps make an episode, and which windows are cut out of it."""

from __future__ import annotations

import numpy as np
import pytest

from dreamer_agent.dreams.episodes import choose_windows, fitting, length_of, split_episodes
from dreamer_agent.errors import ConfigError


def episode(length: int, base: int = 0) -> dict:
    place = np.arange(length)
    return {"is_first": place == 0, "is_last": place == length - 1, "reward": base + place}


def test_steps_are_cut_where_an_episode_begins_or_ended() -> None:
    first = np.zeros((6, 2), bool)
    last = np.zeros((6, 2), bool)
    first[[0, 3], 0] = True
    first[0, 1] = last[2, 1] = True  # here the reset that follows was not seen
    steps = [{"is_first": first[t], "is_last": last[t], "reward": np.array([t, 10 + t])} for t in range(6)]
    masks = [None, None, None, None, np.array([False, True]), None]
    found = split_episodes(steps, masks)
    assert [e["reward"].tolist() for e in found] == [[0, 1, 2], [3, 5], [10, 11, 12], [13, 14, 15]]


def test_windows_lie_inside_their_episode() -> None:
    episodes = [episode(30), episode(9, 100), episode(4, 200), episode(30, 300)]
    cut, kept = choose_windows(episodes, 12, 5, (1, 6, 20, 50), seed=0)
    assert kept == (1, 6, 20)  # no episode has 50 more steps
    rows = cut.rows["reward"]
    assert rows.shape == (12, 21) and cut.valid.shape == (12, 20)
    assert set(cut.episode.tolist()) == {0, 1, 3}  # four steps do not suffice to observe five
    for window, valid, place in zip(rows, cut.valid, cut.episode, strict=True):
        base, length = 100 * int(place), length_of(episodes[place])
        assert 4 <= window[0] - base <= length - 2
        ahead = base + length - 1 - window[0]
        assert valid.tolist() == [h <= ahead for h in range(1, 21)]
        assert window[: ahead + 1].tolist() == list(range(window[0], window[0] + min(ahead, 20) + 1))
    pairs = {(int(e), int(row[0])) for e, row in zip(cut.episode, rows, strict=True)}
    assert len(pairs) == 12  # none is there twice
    per_episode = [int((cut.episode == e).sum()) for e in (0, 1, 3)]
    assert per_episode == [4, 4, 4]
    again, _ = choose_windows(episodes, 12, 5, (1, 6, 20, 50), seed=0)
    np.testing.assert_array_equal(again.rows["reward"], rows)


def test_fewer_steps_are_observed_of_short_episodes() -> None:
    assert fitting([episode(30)], None) == 5 and fitting([episode(30)], 9) == 9
    assert fitting([episode(3), episode(4)], None) == 2 and fitting([episode(2)], None) == 1
    for episodes, observed, said in (
        ([episode(4)], 4, "The longest episode has 4 steps"),
        ([episode(1)], None, "leaves nothing to imagine"),
        ([episode(9)], 0, "observe at least one"),
    ):
        with pytest.raises(ConfigError, match=said):
            fitting(episodes, observed)
    with pytest.raises(ConfigError, match=r"No horizon of 5, 10 fits: after 2 .* have 2 at most"):
        choose_windows([episode(4)], 3, 2, (5, 10), seed=0)
