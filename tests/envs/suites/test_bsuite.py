"""The Behaviour Suite, where it is installed: every experiment, ends, seeds, training."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import make_env
from dreamer_agent.errors import ConfigError, MissingExtraError
from tests.envs.suites.training import assert_trains, played


def test_one_setting_of_every_experiment_steps() -> None:
    pytest.importorskip("bsuite")
    from dreamer_agent.envs.suites.bsuite import tasks

    names = tasks()
    assert len(names) > 400
    for name in (name for name in names if name.endswith("/0")):
        _, rows = played(f"bsuite:{name}", 3)
        assert len(rows) == 4 and rows[0].is_first[0], name


def test_a_game_of_catch_ends_after_nine_steps() -> None:
    pytest.importorskip("bsuite")
    _, rows = played("bsuite:catch", 9)  # the number 0
    assert [t for t, row in enumerate(rows) if row.is_last[0]] == [9] and rows[9].is_terminal[0]
    assert abs(rows[9].reward[0]) == 1


def test_the_seed_draws_the_episodes() -> None:
    pytest.importorskip("bsuite")
    starts = [
        [row.obs["obs"] for row in played("bsuite:catch/0", 60, seed)[1] if row.is_first[0]] for seed in (1, 1, 2)
    ]
    assert np.array_equal(starts[0], starts[1]) and not np.array_equal(starts[0], starts[2])


def test_what_cannot_be_made_is_told() -> None:
    pytest.importorskip("bsuite")
    for id, reason in (
        ("mnist/0", "needs the pictures of MNIST, which bsuite would download"),
        ("mnist_noise/3", "needs the pictures of MNIST"),
        ("cach/0", r"no environment 'cach' \('catch' is the nearest"),
        ("catch/9999", "no environment 'catch/9999'"),
    ):
        with pytest.raises(ConfigError, match=reason):
            make_env(EnvConfig(id=f"bsuite:{id}"))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bsuite", None)
    with pytest.raises(MissingExtraError, match=r"'bsuite' is not installed.*dreamer-agent\[bsuite\]"):
        make_env(EnvConfig(id="bsuite:catch/0"))


def test_it_trains(tmp_path: Path) -> None:
    pytest.importorskip("bsuite")
    assert_trains("bsuite:catch/0", "bsuite", tmp_path)
