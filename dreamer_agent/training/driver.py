"""The acting side of the loop: environments, the policy's memory of them, and episode statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.agent import ActState, Agent
from dreamer_agent.envs import Rows, VectorEnv
from dreamer_agent.envs.arrays import from_arrays, to_arrays
from dreamer_agent.nets import Params


class Episode(NamedTuple):
    """A finished episode: the environment that it ran in, its undiscounted return and its env steps.

    `cut` is true where it was counted before it ended; `numbers` are what the environment reported of it.
    """

    env: int
    score: float
    length: int
    cut: bool = False
    numbers: Mapping[str, float] = {}


class Launched(NamedTuple):
    """Rows that the policy was handed, and its latents and actions `[E, ...]`, perhaps still being computed."""

    rows: Rows
    packed: dict[str, Any]


class Driver:
    """Steps a `VectorEnv` with an agent's policy.

    The random numbers of a step depend on `seed` and on how many calls came before, on nothing else.
    """

    def __init__(self, agent: Agent, env: VectorEnv, seed: int, explore: bool = True):
        self.agent, self.env, self.seed = agent, env, seed
        self.explore = np.bool_(explore)  # for `Agent.act`
        self.key = jax.random.PRNGKey(seed)
        self.calls = 0
        self.restart()

    def restart(self, seed: int | None = None) -> None:
        """Reset all environments and forget everything about them."""
        self.carry = _start(self.agent, self.env.num_envs)
        self.pending: list[Rows] | None = None
        self.pending = self.env.reset(self.seed if seed is None else seed)
        self.score = np.zeros(self.env.num_envs)
        self.length = np.zeros(self.env.num_envs, int)
        self.episodes: list[Episode] = []

    def rows(self, params: Params) -> Iterator[tuple[Rows, dict[str, Any]]]:
        """One step of all environments: each batch of rows, and the step to store for it."""
        return self.take(self.launch(params))

    def launch(self, params: Params) -> list[Launched]:
        """Hand the rows that wait to the policy, without waiting for its actions; `take` them before the next."""
        acting = {key: params[key] for key in self.agent.acting}
        assert self.pending is not None, "the environments failed"
        launched = []
        for rows in self.pending:
            counter = np.uint32(self.calls)
            self.carry, packed = _act(
                self.agent, acting, self.key, counter, self.carry, rows.obs, rows.is_first,
                self.explore, rows.mask,
            )  # fmt: skip
            self.calls += 1
            launched.append(Launched(rows, packed))
        return launched

    def take(self, launched: list[Launched]) -> Iterator[tuple[Rows, dict[str, Any]]]:
        """Wait for the policy: each batch of rows, and the step to store for it; then step the environments.

        On a CPU the policy may read the very memory of the observations: the environments, which may write their
        next ones there, are stepped only when it is done.
        """
        for rows, packed in launched:
            packed = jax.device_get(packed)
            self._count(rows)
            yield rows, rows.stored() | packed
        self.pending = None  # until they answer: there is nothing to go on from if they fail
        self.pending = self.env.step(packed["action"])

    def env_steps_waiting(self) -> int:
        """How many env steps the rows stand for that the policy has not seen yet."""
        return sum(env_steps(rows) for rows in self.pending or [])

    @property
    def broken(self) -> bool:
        """Whether the environments failed in their last step, so that they can only begin anew."""
        return self.pending is None

    def save(self) -> dict[str, Any]:
        """All that the next steps depend on, as plain data; "env" is None where they cannot tell their state."""
        state = env_state(self.env) if self.pending is not None else None
        out = {"seed": self.seed, "calls": self.calls, "env": state}
        if state is None:
            return out
        pending = [{key: value for key, value in rows._asdict().items()} for rows in self.pending or []]
        carry = to_arrays(self.carry)
        counts = {"score": self.score.copy(), "length": self.length.copy()}
        return out | {"pending": jax.tree.map(np.array, pending), "carry": carry, **counts}

    def restore(self, saved: dict[str, Any]) -> bool:
        """The inverse of `save`; false where the environments begin anew, since their state was not saved."""
        self.calls = int(saved["calls"])
        if saved.get("env") is None:  # the on-device loop keeps another form
            return False
        self.env.set_state(saved["env"])
        self.seed, self.key = int(saved["seed"]), jax.random.PRNGKey(int(saved["seed"]))
        self.pending = [Rows(**rows) for rows in saved["pending"]]
        self.carry = from_arrays(self.carry, saved["carry"])
        self.score, self.length, self.episodes = saved["score"], saved["length"], []
        return True

    def finished(self) -> list[Episode]:
        """The episodes that ended since the last call."""
        episodes, self.episodes = self.episodes, []
        return episodes

    def cut(self, length: int) -> None:
        """Count episodes that go on after `length` env steps as finished; counting begins anew there."""
        for index in np.flatnonzero(self.length >= length):
            self._end(index, True, {})

    def _count(self, rows: Rows) -> None:
        present = np.ones(self.env.num_envs, bool) if rows.mask is None else rows.mask
        started = present & rows.is_first
        self.score[started], self.length[started] = 0.0, 0
        self.score[present] += rows.reward[present]
        self.length[present & ~rows.is_first] += 1
        for index in np.flatnonzero(present & rows.is_last):
            reported = {name: float(values[index]) for name, values in (rows.numbers or {}).items()}
            self._end(index, False, {name: x for name, x in reported.items() if not np.isnan(x)})

    def _end(self, index: Any, cut: bool, numbers: dict[str, float]) -> None:
        score, length = float(self.score[index]), int(self.length[index])
        self.episodes.append(Episode(int(index), score, length, cut, numbers))
        self.score[index], self.length[index] = 0.0, 0


def mean_numbers(episodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each number, the mean over the episodes of which it was reported; by name, in order."""
    names = sorted({name for numbers in episodes for name in numbers})
    return {name: float(np.mean([numbers[name] for numbers in episodes if name in numbers])) for name in names}


def env_state(env: Any) -> Any:
    """What `env` gives as its state; None where it has none to give."""
    get_state = getattr(env, "get_state", None)
    return None if get_state is None else get_state()


def env_steps(rows: Rows) -> int:
    """How many env steps the rows stand for: a reset is none."""
    counted = ~rows.is_first if rows.mask is None else rows.mask & ~rows.is_first
    return int(counted.sum())


@partial(jax.jit, static_argnums=(0, 1))
def _start(agent: Agent, num_envs: int) -> ActState:
    """`Agent.init_act` as one program: many small ones take longer to compile than it takes to run them."""
    return agent.init_act(num_envs)


@partial(jax.jit, static_argnums=0)
def _act(
    agent: Agent, params: Params, key: Any, counter: Any, carry: ActState, obs: Any, is_first: Any,
    explore: Any, mask: Any,
) -> tuple[ActState, dict[str, Any]]:  # fmt: skip
    """`Agent.act`, with rows outside `mask` keeping their memory; also what to store with the step."""
    key = jax.random.fold_in(key, counter)
    new = agent.act(params, key, carry, obs, is_first, explore)
    if mask is not None:

        def choose(a: Any, b: Any) -> Any:
            return jnp.where(mask.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

        new = jax.tree.map(choose, new, carry)
    return new, {"latent": new.latent.pack(), "action": new.action}
