"""The benchmark of stepping: what it measures and how it is shown."""

from benchmarks import stepping


def test_contenders_are_measured_in_turns() -> None:
    row = stepping.measured("wait 5 ms", 3, rounds=1, seconds=0.01)
    assert list(row["contenders"])[:4] == [stepping.HERE, stepping.SPREAD, stepping.APART, stepping.PEER]
    assert all(one["steps_per_second"] > 0 for one in row["contenders"].values())
    assert row["contenders"][stepping.HERE]["ratio"] == [1, 1, 1]
    line = stepping.table([row])[-1]
    assert line.startswith("| wait 5 ms | 3 | ") and line.count("|") == 9
