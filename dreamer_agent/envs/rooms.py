"""A grid with a goal, whose shortest ways are known: how far ahead an agent can find its way."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.errors import ConfigError
from dreamer_agent.specs import ArraySpec

LAYOUT = (  # the four rooms of Sutton, Precup and Singh (1999) without the lower door: a way around
    ".....#.....",
    ".....#.....",
    "...........",
    ".....#.....",
    ".....#.....",
    "#.####.....",
    ".....###.##",
    ".....#.....",
    ".....#.....",
    ".....#.....",
    ".....#.....",
)
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left
UNREACHED = -1


class RoomsState(NamedTuple):
    """The cells of the agent and of the goal, as numbers of free cells."""

    agent: Any
    goal: Any


class Rooms:
    """Four rooms with three doors; walk from a start to a goal, each drawn anew for each episode.

    Observations "agent" and "goal" are row and column, `[2]` of 11 values each; if `relative`, the latter is
    "offset", how far down and right the goal lies from the agent, plus 10. Actions are up, right, down and left,
    and into a wall nothing moves. The reward is 1 at the goal, which ends the episode (terminal);
    `time_limit` steps cut it. With `distance` the shortest way from start to goal has that many steps, else any;
    `start` and `goal` fix them, row and column. Raises `ConfigError` for what no two cells have.
    """

    def __init__(
        self, distance: int | None = None, time_limit: int | None = 60, start: Sequence[int] | None = None,
        goal: Sequence[int] | None = None, relative: bool = False,
    ):  # fmt: skip
        free = np.array([[cell == "." for cell in row] for row in LAYOUT])
        self.cells = np.argwhere(free).astype(np.int32)
        self.after = _neighbours(self.cells)
        self.distances = shortest_ways(self.after)
        wanted = self.distances > 0 if distance is None else self.distances == distance
        if distance == 0 or not wanted.any():
            raise ConfigError(
                f"No start and goal of these rooms are {distance} steps apart: ask for 1 to "
                f"{self.distances.max()}."
            )
        wanted = wanted & self._at("start", start)[:, None] & self._at("goal", goal)
        self.pairs = np.argwhere(wanted).astype(np.int32)
        if not len(self.pairs):
            raise ConfigError(
                f"start={start}, goal={goal} and distance={distance} do not go together: leave one out."
            )
        self.relative, side = relative, len(LAYOUT)
        place, offset = ArraySpec("discrete", (2,), side), ArraySpec("discrete", (2,), 2 * side - 1)
        self.obs_specs = {"agent": place, **({"offset": offset} if relative else {"goal": place})}
        self.act_specs = {"action": ArraySpec("discrete", (), len(MOVES))}
        self.time_limit = time_limit

    def reset(self, key: Any) -> tuple[RoomsState, dict[str, Any]]:
        """A start and a goal, all pairs that are far enough apart equally likely."""
        start, goal = jnp.asarray(self.pairs)[jax.random.randint(key, (), 0, len(self.pairs))]
        state = RoomsState(start, goal)
        return state, self._observe(state)

    def step(self, key: Any, state: RoomsState, action: dict[str, Any]) -> tuple[Any, ...]:
        """Move, where there is no wall."""
        state = RoomsState(jnp.asarray(self.after)[state.agent, action["action"]], state.goal)
        arrived = state.agent == state.goal
        return state, self._observe(state), arrived.astype(jnp.float32), arrived, jnp.zeros((), bool)

    def solution(self) -> np.ndarray:
        """The first action of a shortest way, int32 `[cells, goals]`, to where it leads from each cell."""
        return self.distances[self.after].argmin(1).astype(np.int32)

    def goal_of(self, obs: dict[str, Any]) -> Any:
        """Row and column of the goal in observations `[..., 2]`."""
        return obs["agent"] + obs["offset"] - (len(LAYOUT) - 1) if self.relative else obs["goal"]

    def cell_at(self, places: Any) -> Any:
        """The numbers `[...]` of the free cells at rows and columns `[..., 2]`."""
        side = len(LAYOUT)
        numbers = np.full((side, side), UNREACHED, np.int32)
        numbers[tuple(self.cells.T)] = np.arange(len(self.cells))
        return jnp.asarray(numbers)[places[..., 0], places[..., 1]]

    def _at(self, name: str, cell: Sequence[int] | None) -> np.ndarray:
        """Which cells `[cells]` are meant; all, if none is given."""
        wanted = None if cell is None else np.ravel(cell).tolist()
        found = np.array([wanted is None or free == wanted for free in self.cells.tolist()])
        if not found.any():
            raise ConfigError(
                f"The {name} {cell} is no free cell of these rooms: give row and column, such as [10, 4]."
            )
        return found

    def _observe(self, state: RoomsState) -> dict[str, Any]:
        agent, goal = jnp.asarray(self.cells)[jnp.stack([state.agent, state.goal])]
        if self.relative:
            return {"agent": agent, "offset": goal - agent + len(LAYOUT) - 1}
        return {"agent": agent, "goal": goal}


def _neighbours(cells: np.ndarray) -> np.ndarray:
    """The cell `[cells, moves]` that each move leads to."""
    numbers = {tuple(cell): index for index, cell in enumerate(cells.tolist())}
    return np.array(
        [
            [numbers.get((row + down, column + right), numbers[row, column]) for down, right in MOVES]
            for row, column in cells.tolist()
        ],
        np.int32,
    )


def shortest_ways(after: np.ndarray) -> np.ndarray:
    """How many moves lead from each cell to each other, int32 `[cells, cells]`, by breadth-first search.

    `after` `[cells, moves]` is where each move leads to; -1 stands for never.
    """
    distances = np.full((len(after), len(after)), UNREACHED, np.int32)
    for start in range(len(after)):
        distances[start, start] = 0
        waiting = deque([start])
        while waiting:
            cell = waiting.popleft()
            for neighbour in after[cell]:
                if distances[start, neighbour] == UNREACHED:
                    distances[start, neighbour] = distances[start, cell] + 1
                    waiting.append(neighbour)
    return distances
