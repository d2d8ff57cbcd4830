"""The loop of training as one program of the device: environments, policy, replay and updates.

The rules are those of the host loop: every row is acted on, stored and counted, then the environments move on,
then the updates follow that the ratio owes. How many these are is looked up in a table which the host made, since
it depends on floating-point numbers that the device does not have.

With several seeds, every array of `Loop` has a leading axis and each seed is computed as if alone, but what
decides on the flow of the program is shared: with a predicate of its own for each seed, `vmap` would compute both
branches and copy the replay. So the seed with the fewest env steps is the clock: updates are owed, and the chunk
ends, by its count, and a seed that is a whole step of its environments ahead waits. One seed is its own clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from dreamer_agent.agent import ActState, Agent, AgentState, Metrics
from dreamer_agent.compiling import compiled
from dreamer_agent.envs import Rows
from dreamer_agent.envs.jax_adapter import JaxVectorEnv
from dreamer_agent.replay import DeviceReplay, ReplayState

Array = jax.Array


class Acting(NamedTuple):
    """The acting side: the environments' carry, their rows that wait for an action, and what is counted.

    `memory` is the policy's; `calls` and `env_steps` are int32; `score` and `length` `[E]` are those of the
    episodes under way.
    """

    env: Any
    rows: Rows
    memory: ActState
    key: Array
    calls: Array
    env_steps: Array
    score: Array
    length: Array


class Loop(NamedTuple):
    """All that a chunk changes; `replay_key` is that of the replay's samples."""

    agent: AgentState
    replay: ReplayState
    acting: Acting
    replay_key: Array


class Seen(NamedTuple):
    """What a chunk saw: sums of the metrics over its updates, and the first `episodes` of the lists `[N]`.

    Skipped updates are not in the sums, but for that of "skipped"; `skipped_ids` `[B, 2]` name the batch of the
    last one.
    """

    metrics: Metrics
    skipped_ids: Array
    episodes: Array
    env: Array
    score: Array
    length: Array


class Plan(NamedTuple):
    """What the host asks of a chunk: go on until `stop` env steps have been made.

    `due[n]` is the number of updates that should have happened by env step `first + n`; `updates` have.
    """

    first: Any
    stop: Any
    updates: Any
    due: Any


@dataclass(frozen=True, eq=False)
class Program:
    """`start` and `chunk` for these parts; `span` is the most env steps that a chunk is asked for."""

    agent: Agent
    env: JaxVectorEnv
    replay: DeviceReplay
    span: int
    seeds: int | None = None  # None: one, without a leading axis
    sharding: NamedSharding | None = None  # of that axis; None: one device

    @cached_property
    def start(self) -> Any:
        """`seed` to an `Acting` that has not stepped, jitted; as of the host's `Driver`."""
        return jax.jit(self._start)

    @cached_property
    def chunk(self) -> Any:
        """`(loop, plan)` to `(loop, seen, updates)`, jitted; the loop is donated."""
        options = {} if self.sharding is None else {"out_shardings": (self.sharding, None, None)}
        return compiled(self._chunk, donate_argnums=0, **options)

    def plan(self, first: int, stop: int, updates: int, due: Any) -> Plan:
        """The plan for env steps `first` to `stop`; `due(env_steps)` is the rule of the ratio."""
        stop = min(stop, first + self.span)
        table = [due(first + n) for n in range(self.span + self.env.num_envs)]
        return Plan(*(np.asarray(x, np.int32) for x in (first, stop, updates, table)))

    def _start(self, key: Array) -> Acting:
        carry, rows = self.env.start(key)
        zero, zeros = jnp.zeros((), jnp.int32), jnp.zeros(self.env.num_envs, jnp.int32)
        memory = self.agent.init_act(self.env.num_envs)
        return Acting(carry, rows, memory, key, zero, zero, zeros.astype(jnp.float32), zeros)

    def _chunk(self, loop: Loop, plan: Plan) -> tuple[Loop, Seen, Array]:
        """Act and learn until every seed has made `plan.stop` env steps, or an environment fails too often."""

        def going(carry: tuple[Loop, Seen, Array]) -> Array:
            acting = carry[0].acting
            return (acting.env_steps.min() < plan.stop) & ~self.env.failed(acting.env)

        def iterate(carry: tuple[Loop, Seen, Array]) -> tuple[Loop, Seen, Array]:
            loop, seen, updates = carry
            loop, seen = self._act_all(loop, seen)
            return self._learn(loop, seen, updates, plan.due[loop.acting.env_steps.min() - plan.first])

        return jax.lax.while_loop(going, iterate, (loop, self._nothing(loop), plan.updates))

    def _act_all(self, loop: Loop, seen: Seen) -> tuple[Loop, Seen]:
        if self.seeds is None:
            return self._act(loop, seen)
        ahead = loop.acting.env_steps - loop.acting.env_steps.min()
        return jax.vmap(self._act)(loop, seen, ahead < self.env.num_envs)

    def _act(self, loop: Loop, seen: Seen, go: Array | None = None) -> tuple[Loop, Seen]:
        """One step of all environments of one seed, into the replay; nothing where `go` is false."""
        old = loop.acting
        rows: Any = old.rows  # of JAX arrays
        params = {key: loop.agent.params[key] for key in self.agent.acting}
        key = jax.random.fold_in(old.key, old.calls.astype(jnp.uint32))
        explore = jnp.asarray(self.agent.collector(old.env_steps))
        memory = self.agent.act(params, key, old.memory, rows.obs, rows.is_first, explore)
        step = rows.stored() | {"latent": memory.latent.pack(), "action": memory.action}
        mask = None if go is None else jnp.broadcast_to(go, rows.reward.shape)
        replay = self.replay.add(loop.replay, step, mask)
        score = jnp.where(rows.is_first, 0.0, old.score) + rows.reward
        length = jnp.where(rows.is_first, 0, old.length + 1)
        ended = rows.is_last if mask is None else rows.is_last & mask
        seen = _with_episodes(seen, ended, score, length)
        carry, new_rows = self.env.advance(old.env, memory.action)
        env_steps = old.env_steps + (~rows.is_first).sum(dtype=jnp.int32)
        new = Acting(carry, new_rows, memory, old.key, old.calls + 1, env_steps, score, length)
        if go is not None:
            new = jax.tree.map(lambda a, b: jnp.where(go, a, b), new, old)
        return loop._replace(replay=replay, acting=new), seen

    def _learn(self, loop: Loop, seen: Seen, updates: Array, due: Array) -> tuple[Loop, Seen, Array]:
        """Updates until `due` have happened, if every seed's replay holds a window."""
        ready = self._each(self.replay.ready)(loop.replay).all()

        def update(carry: tuple[Loop, Seen, Array]) -> tuple[Loop, Seen, Array]:
            loop, seen, updates = carry
            loop, metrics, ids = self._update_all(loop)
            return loop, self._each(_with_metrics)(seen, metrics, ids), updates + 1

        return jax.lax.while_loop(lambda carry: ready & (carry[2] < due), update, (loop, seen, updates))

    @cached_property
    def _update_all(self) -> Any:
        # Jitted on its own, so that it is traced once for its shapes (`_nothing`) and for the program.
        return jax.jit(self._each(self._update))

    def _update(self, loop: Loop) -> tuple[Loop, Metrics, Array]:
        replay, batch, ids = self.replay.sample(loop.replay, loop.replay_key)
        agent, latents, metrics = self.agent.update(loop.agent, batch)
        replay = self.replay.update_latents(replay, ids, latents.pack(), metrics["skipped"] == 0)
        return loop._replace(agent=agent, replay=replay), metrics, ids

    def _each(self, function: Any) -> Any:
        return function if self.seeds is None else jax.vmap(function)

    def _nothing(self, loop: Loop) -> Seen:
        """Before a chunk. Every episode has an env step, so that their lists are long enough."""
        lead = () if self.seeds is None else (self.seeds,)
        room = self.span + 3 * self.env.num_envs  # a chunk may end late, and seeds that are ahead wait late
        _, *shapes = jax.eval_shape(self._update_all, loop)
        metrics, ids = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        integers = jnp.zeros((*lead, room), jnp.int32)
        return Seen(metrics, ids, jnp.zeros(lead, jnp.int32), integers, integers.astype(jnp.float32), integers)


def _with_episodes(seen: Seen, ended: Array, score: Array, length: Array) -> Seen:
    """`seen` with the episodes `[E]` that `ended` appended, in the order of their environments."""
    slots = jnp.where(ended, seen.episodes + jnp.cumsum(ended) - 1, seen.env.shape[0])  # beyond: dropped
    values = seen.env.at[slots], seen.score.at[slots], seen.length.at[slots]
    lists = (
        at.set(x, mode="drop") for at, x in zip(values, (jnp.arange(len(ended)), score, length), strict=True)
    )
    return Seen(seen.metrics, seen.skipped_ids, seen.episodes + ended.sum(dtype=jnp.int32), *lists)


def _with_metrics(seen: Seen, metrics: Metrics, ids: Array) -> Seen:
    """`seen` with the metrics of one more update, whose batch was `ids`."""
    skipped = metrics["skipped"] > 0
    learned = {key: jnp.where(skipped, 0.0, value) for key, value in metrics.items() if key != "skipped"}
    sums = jax.tree.map(jnp.add, seen.metrics, learned | {"skipped": metrics["skipped"]})
    return seen._replace(metrics=sums, skipped_ids=jnp.where(skipped, ids, seen.skipped_ids))
