"""The command that is kept with a result names no path of the machine."""

from benchmarks.speed.__main__ import anonymous


def test_paths_are_left_out_of_the_command():
    words = ["update", "--peer", "dreamerv3=/some/where", "--peer-python", "/usr/bin/python", "--rounds", "3"]
    kept = "python -m benchmarks.speed update --peer dreamerv3=PATH --peer-python PATH --rounds 3"
    assert anonymous(words) == kept
    assert (
        anonymous(["gpu", "--flags", "name=--xla_flag"])
        == "python -m benchmarks.speed gpu --flags name=--xla_flag"
    )
