"""Craftax with its preset, where it is installed; what holds of all JAX-native libraries is in test_suites."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamer_agent.config import load_config
from tests.envs.suites.training import assert_trains


def test_it_trains(tmp_path: Path) -> None:
    pytest.importorskip("craftax")
    assert_trains("craftax:Craftax-Classic-Symbolic-v1", "craftax", tmp_path)


def test_the_preset_is_that_of_crafter_for_a_million_steps() -> None:
    craftax, crafter = load_config(["craftax"]), load_config(["crafter"])
    assert craftax.train.steps == 1_000_000 and craftax.env.num_envs == crafter.env.num_envs
    assert craftax.model == crafter.model and craftax.replay.ratio == crafter.replay.ratio
