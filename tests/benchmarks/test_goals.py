"""Success within d + slack steps: of the shortest way always, of one step too few never."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from benchmarks.goals import Chooser, at_random, shortest, success
from dreamer_agent.envs.rooms import Rooms


@pytest.mark.parametrize(("distance", "relative"), [(5, False), (20, True)])
def test_the_shortest_way_takes_just_as_many_steps(distance: int, relative: bool) -> None:
    way = shortest(Rooms(relative=relative))
    assert success(way, distance, slack=0, tasks=50, relative=relative).value == 1.0
    assert success(way, distance, slack=-1, tasks=50, relative=relative).value == 0.0


def test_random_moves_rarely_arrive() -> None:
    assert success(at_random(), 5, tasks=100).value < 0.3
    assert success(at_random(), 20, tasks=100).value < 0.02


def test_an_episode_begins_once_and_memory_is_handed_on() -> None:
    """Two moves of the solution and then none: enough for two steps, not for three."""
    way = shortest(Rooms())

    def choose(key, memory, obs, is_first):
        memory = jnp.where(is_first, 0, memory) + 1
        _, action = way.choose(key, (), obs, is_first)
        back = (action["action"] + 2) % 4
        return memory, {"action": jnp.where(memory <= 2, action["action"], back)}

    twice = Chooser(lambda count: jnp.full(count, 99), choose)
    assert success(twice, 2, slack=3, tasks=20).value == 1.0
    assert success(twice, 3, slack=0, tasks=20).value == 0.0
