"""What `dreamer-agent envs` knows of suites and extras."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from dreamer_agent.envs import SUITES
from dreamer_agent.envs.catalogue import GROUPS, LIBRARIES, check_installed, tasks_of
from dreamer_agent.envs.sources import OBJECT
from dreamer_agent.errors import ConfigError, MissingExtraError

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())


def test_every_suite_and_group_has_an_extra() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert not [name for name in extras if "_" in name]  # which older versions of pip do not find
    assert {name for name in SUITES if name != OBJECT} >= LIBRARIES.keys()
    for library in (*LIBRARIES.values(), *GROUPS.values()):
        assert not library.modules or library.extra in extras


@pytest.mark.parametrize("suite", sorted({*LIBRARIES, *GROUPS}))
def test_the_tasks_of_what_is_installed_are_listed(suite: str) -> None:
    if not (LIBRARIES | GROUPS)[suite].installed:
        pytest.skip("not installed")
    tasks = tasks_of(suite)
    assert tasks and all(task.startswith(f"{suite}:") == (suite in LIBRARIES) for task in tasks)


def test_what_an_environment_needs_is_told_before_it_is_made(monkeypatch) -> None:
    known = LIBRARIES | GROUPS
    for name in ("dmc", "box2d", "classic", "toy-text"):
        held = LIBRARIES if name in LIBRARIES else GROUPS
        monkeypatch.setitem(held, name, replace(known[name], modules=("json", f"no_{name}")))
    with pytest.raises(MissingExtraError, match=r"'no_dmc' is not installed.*dreamer-agent\[dmc\]"):
        check_installed("dmc:walker_walk")
    with pytest.raises(MissingExtraError, match=r"'no_box2d' is not installed.*dreamer-agent\[box2d\]"):
        check_installed("LunarLander-v3")
    for env in ("CartPole-v1", "FrozenLake-v1", "toy:catch", "dream:runs/1", "mine:Thermostat", "Unknown-v0"):
        check_installed(env)


def test_a_suite_without_a_list_says_so() -> None:
    with pytest.raises(ConfigError, match="The suite 'python' does not list its tasks"):
        tasks_of(OBJECT)
