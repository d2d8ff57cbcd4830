"""Updates in flight: several in one dispatch, launched without waiting, written back one dispatch later.

JAX returns from a call before it is computed, and the device works off what it is given in order. Program order
in one thread is therefore all it takes for the host to go on while an update runs, and what is seen stays a
function of step counters.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.agent import ALONE, Agent, AgentState, Division, Metrics, Skips
from dreamer_agent.compiling import compiled
from dreamer_agent.config import Config
from dreamer_agent.replay import HostReplay, replay_bytes
from dreamer_agent.training.budget import layout_of
from dreamer_agent.training.mesh import Placement
from dreamer_agent.training.progress import Stopwatch
from dreamer_agent.world_model import CONTEXT

MOST_UPDATES = 16  # of one dispatch, where the configuration does not say
MOST_BYTES = 256e6  # of its batches

Array = jax.Array
Tree = dict[str, Any]


class Flight(NamedTuple):
    """A dispatch that was launched: ids of its K batches `[K, B, 2]`, latents `[K, B, T, ...]`, mean metrics.

    `skipped` `[K]` and `skips` tell of updates that were not finite, `first` is the number of the first update.
    `batches` are what it was given, None in a run that was resumed since.
    """

    first: int
    ids: np.ndarray
    latents: Tree
    metrics: Metrics
    skipped: Any
    skips: Any
    batches: Tree | None = None


class SkippedUpdate(NamedTuple):
    """An update whose loss or gradient was not finite: its number, and its batch `[B, C + T, ...]`."""

    number: int
    ids: np.ndarray
    batch: Tree | None


class Updates:
    """Launches dispatches of `count` updates and writes their latents back to the replay.

    The batches of a dispatch are all sampled before any of its updates writes back, and without what the dispatch
    before it, which may still be running, has to write back: that follows as soon as the new one is launched.
    With `overlap` off, every launch is waited for; nothing else differs.
    """

    def __init__(self, agent: Agent, count: int, overlap: bool, clock: Stopwatch, placement: Placement):
        self.count, self.overlap, self.clock, self.placement = count, overlap, clock, placement
        self.program = program_of(agent, self.placement)
        self.flight: Flight | None = None
        self.done: list[Metrics] = []  # of dispatches that were written back: reading these waits for nothing
        self.skips = Skips(0, 0)  # as of the last dispatch that was written back
        self.skipped: list[SkippedUpdate] = []  # of the dispatches written back; whoever looks empties it

    def launch(self, state: AgentState, replay: HostReplay, number: int) -> tuple[AgentState, Metrics]:
        """The state after `count` more updates, the first with this `number`, and the means of their metrics.

        Both are on their way. The arrays of `state` are used up.
        """
        with self.clock("replay"):
            batches, ids = sample_many(replay, self.count)
            given = self.placement.batches(batches)  # may share the arrays' memory, which nobody writes to again
        state, latents, metrics, skipped, skips = self.program(state, given)
        before = self.flight
        self.flight = Flight(number, ids, latents, metrics, skipped, skips, batches)
        if not self.overlap:
            self._wait(self.flight)
        self._write_back(before, replay)
        return state, metrics

    def finish(self, replay: HostReplay) -> None:
        """Wait for what is in flight, and write it back."""
        before, self.flight = self.flight, None
        self._write_back(before, replay)

    def save(self) -> Tree:
        """What is in flight, waited for, and the metrics of dispatches that no row has yet; as plain data."""
        self.wait()
        flight = self.flight
        if flight is not None:
            latents = self.placement.own_rows(flight.latents)
            flight = jax.device_get(flight._replace(latents=latents, batches=None))
        return {
            "flight": None if flight is None else flight._asdict() | {"skips": list(flight.skips)},
            "done": jax.device_get(self.done),
            "skips": list(self.skips),
        }

    def restore(self, saved: Tree) -> None:
        """The inverse of `save`."""
        flight = saved["flight"]
        self.flight = None if flight is None else Flight(**flight)
        self.done, self.skips, self.skipped = saved["done"], Skips(*map(int, saved["skips"])), []

    def wait(self) -> None:
        """Wait for what is in flight."""
        if self.flight is not None:
            self._wait(self.flight)

    def _wait(self, flight: Flight) -> None:
        with self.clock("update"):
            jax.block_until_ready((flight.latents, flight.metrics))

    def _write_back(self, flight: Flight | None, replay: HostReplay) -> None:
        if flight is None:
            return
        self._wait(flight)
        with self.clock("replay"):
            latents = self.placement.own_rows(flight.latents)
            skipped, skips = jax.device_get((flight.skipped, flight.skips))
            for index, ids in enumerate(flight.ids):
                if skipped[index]:
                    batch = flight.batches and jax.tree.map(lambda x, i=index: x[i], flight.batches)
                    self.skipped.append(SkippedUpdate(flight.first + index, ids, batch))
                else:
                    replay.update_latents(ids, jax.tree.map(lambda x, i=index: x[i], latents))
        self.done.append(flight.metrics)
        self.skips = Skips(*map(int, skips))


def program_of(agent: Agent, placement: Placement) -> Any:
    """`update_many` for `agent`, compiled when it is first called; the arrays of its `state` are used up."""
    function = partial(update_many, agent, division=placement.division)
    return compiled(function, donate_argnums=0, **placement.options(agent))


def update_many(
    agent: Agent, state: AgentState, batches: Tree, division: Division = ALONE
) -> tuple[AgentState, Tree, Metrics, Array, Skips]:
    """One update after the other on `batches` `[K, B, C + T, ...]`, on the devices of `division`.

    Gives the new state, the packed posterior latents `[K, B, T, ...]`, the means of the metrics over K but for
    skipped updates, which of them were skipped `[K]`, and how many in all.
    """

    def one(state: AgentState, batch: Tree) -> tuple[AgentState, tuple[Tree, Metrics]]:
        state, latents, metrics = agent.update(state, batch, division)
        return state, (latents.pack(), metrics)

    state, (latents, metrics) = jax.lax.scan(one, state, batches)
    skipped = metrics.pop("skipped")
    means = jax.tree.map(lambda x: jnp.nanmean(x, 0), metrics)
    return state, latents, means, skipped, jax.tree.map(jnp.copy, state.skips)


def sample_many(replay: HostReplay, count: int) -> tuple[Tree, np.ndarray]:
    """`count` batches of the replay as it is, `[K, B, C + T, ...]`, and their ids `[K, B, 2]`."""
    samples = [replay.sample() for _ in range(count)]
    ids = np.stack([ids for _, ids in samples])
    if count == 1:
        return jax.tree.map(lambda x: x[None], samples[0][0]), ids
    return jax.tree.map(lambda *x: np.stack(x), *[batch for batch, _ in samples]), ids


def updates_per_dispatch(config: Config, agent: Agent) -> int:
    """How many updates a dispatch makes: a fixed function of the configuration.

    As configured, or else the whole updates that the ratio owes for one step of all environments: at least one,
    at most 16, and no more than 256 MB of batches.
    """
    if config.train.updates_per_dispatch:
        return config.train.updates_per_dispatch
    owed = config.updates_per_env_step * config.env.num_envs
    steps = config.replay.batch_size * (CONTEXT + config.replay.batch_length)
    fit = MOST_BYTES / replay_bytes(layout_of(agent), steps)
    return max(int(min(owed, MOST_UPDATES, fit)), 1)
