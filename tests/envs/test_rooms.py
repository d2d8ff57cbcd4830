"""Four rooms: walls, shortest ways, and episodes that end at the goal."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import make_env
from dreamer_agent.envs.rooms import LAYOUT, Rooms, RoomsState, shortest_ways
from dreamer_agent.errors import ConfigError

UP, RIGHT, DOWN, LEFT = range(4)


def test_shortest_ways_of_a_ring_with_a_shortcut() -> None:
    """Five places in a ring, walked one way only, and a door from 1 to 4."""
    after = np.array([[1, 0], [2, 4], [3, 2], [4, 3], [0, 4]])
    assert shortest_ways(after).tolist() == [
        [0, 1, 2, 3, 2], [2, 0, 1, 2, 1], [3, 4, 0, 1, 2], [2, 3, 4, 0, 1], [1, 2, 3, 4, 0],
    ]  # fmt: skip
    alone = shortest_ways(np.array([[0], [0]]))
    assert alone.tolist() == [[0, -1], [1, 0]]


def test_ways_lead_through_doors() -> None:
    rooms = Rooms()
    cell = {tuple(place): index for index, place in enumerate(rooms.cells.tolist())}
    assert len(cell) == sum(row.count(".") for row in LAYOUT) == 103
    assert rooms.distances[cell[0, 0], cell[0, 4]] == 4
    assert rooms.distances[cell[0, 4], cell[0, 6]] == 6  # around by the door in row 2
    assert rooms.distances[cell[0, 0], cell[10, 10]] == 20
    assert (rooms.distances == rooms.distances.T).all() and (rooms.distances >= 0).all()
    assert rooms.after[cell[0, 0]].tolist() == [cell[0, 0], cell[0, 1], cell[1, 0], cell[0, 0]]
    assert rooms.after[cell[0, 4]][RIGHT] == cell[0, 4] and rooms.after[cell[2, 4]][RIGHT] == cell[2, 5]


@pytest.mark.parametrize("distance", [None, 1, 10, 20])
def test_starts_and_goals_are_as_far_apart_as_asked(distance: int | None) -> None:
    rooms = Rooms(distance)
    states, obs = jax.jit(jax.vmap(rooms.reset))(jax.random.split(jax.random.PRNGKey(0), 200))
    apart = rooms.distances[states.agent, states.goal]
    assert (apart == distance).all() if distance else (apart > 0).all() and len(set(apart.tolist())) > 15
    assert len(set(zip(states.agent.tolist(), states.goal.tolist(), strict=True))) > 15
    np.testing.assert_array_equal(obs["agent"], rooms.cells[states.agent])
    np.testing.assert_array_equal(rooms.cell_at(obs["goal"]), states.goal)


def test_the_solution_takes_as_many_steps_as_it_is_far() -> None:
    rooms, count = Rooms(), 300
    table = jnp.asarray(rooms.solution())
    state, _ = jax.vmap(rooms.reset)(jax.random.split(jax.random.PRNGKey(1), count))
    apart = rooms.distances[state.agent, state.goal]
    step = jax.jit(jax.vmap(rooms.step, (None, 0, 0)))
    arrived = np.zeros(count, int)
    for time in range(1, rooms.distances.max() + 1):
        state, _, reward, terminated, truncated = step(None, state, {"action": table[state.agent, state.goal]})
        assert not truncated.any() and (reward == terminated).all()
        arrived = np.where((arrived == 0) & np.asarray(terminated), time, arrived)
    np.testing.assert_array_equal(arrived, apart)


def test_the_goal_ends_an_episode_and_the_limit_cuts_it() -> None:
    rooms = Rooms(time_limit=3)
    cell = {tuple(place): index for index, place in enumerate(rooms.cells.tolist())}
    _, obs, reward, terminated, _ = rooms.step(None, RoomsState(cell[0, 0], cell[0, 1]), {"action": RIGHT})
    assert reward == 1 and terminated and obs["agent"].tolist() == [0, 1] == obs["goal"].tolist()
    env = make_env(EnvConfig(id="toy:rooms", num_envs=2, kwargs={"distance": 20, "time_limit": 3}))
    (rows,) = env.reset(0)
    for _ in range(3):
        assert not rows.is_last.any()
        (rows,) = env.step({"action": np.array([UP, LEFT], np.int32)})
    assert rows.is_last.all() and not rows.is_terminal.any() and (rows.reward == 0).all()


@pytest.mark.parametrize("distance", [0, -1, 90])
def test_a_distance_that_there_is_not_is_refused(distance: int) -> None:
    with pytest.raises(ConfigError, match=rf"are {distance} steps apart: ask for 1 to \d+"):
        Rooms(distance)


def test_the_goal_may_be_seen_from_where_the_agent_is() -> None:
    rooms = Rooms(relative=True, start=[10, 4], goal=[0, 6])
    state, obs = rooms.reset(jax.random.PRNGKey(0))
    assert obs["offset"].tolist() == [0, 12] and rooms.goal_of(obs).tolist() == [0, 6]  # ten up, two to the right
    _, obs, *_ = rooms.step(None, state, {"action": UP})
    assert obs["offset"].tolist() == [1, 12] and rooms.goal_of(obs).tolist() == [0, 6]
    assert all((obs[name] < spec.classes).all() for name, spec in rooms.obs_specs.items())
    assert Rooms().goal_of({"agent": obs["agent"], "goal": 3}) == 3


def test_start_and_goal_may_be_fixed() -> None:
    rooms = Rooms(start=[10, 4], goal=(10, 6))
    _, obs = jax.vmap(rooms.reset)(jax.random.split(jax.random.PRNGKey(0), 5))
    assert obs["agent"].tolist() == [[10, 4]] * 5 and obs["goal"].tolist() == [[10, 6]] * 5
    assert rooms.distances[tuple(rooms.pairs[0])] == 28  # through all three doors
    assert len(Rooms(goal=[0, 0]).pairs) == 102  # from anywhere else
    assert set(rooms.distances[tuple(Rooms(distance=5, start=[0, 0]).pairs.T)].tolist()) == {5}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"start": [2, 11]}, "start .* is no free cell"),
        ({"goal": [5, 0]}, "goal .* is no free cell"),
        ({"goal": [10]}, "is no free cell"),
        ({"start": [0, 0], "goal": [0, 0]}, "do not go together"),
        ({"start": [0, 0], "goal": [0, 4], "distance": 5}, "do not go together"),
    ],
)
def test_cells_that_there_are_not_are_refused(asked: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Rooms(**asked)
