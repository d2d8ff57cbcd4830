"""JAX-native environments as a `VectorEnv`, and as pure functions for programs on the device."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.envs.arrays import from_arrays, to_arrays
from dreamer_agent.envs.interface import check_repeat, interface_of_specs
from dreamer_agent.envs.protocol import LARGEST_REWARD, Actions, JaxEnv, Rows
from dreamer_agent.errors import EnvironmentFault
from dreamer_agent.specs import is_mask

NEVER_GOOD = 2**30  # faults in a row, as they are counted for what is wrong from the first reset on


class Faults(NamedTuple):
    """Counts of rows that were not finite, or had a mask without a legal action; each int32 `[E]`.

    `in_a_row` are those with no episode in between that ended by itself; `kind` is the place, in
    `JaxVectorEnv.checked`, of what was wrong last.
    """

    total: Any
    in_a_row: Any
    kind: Any


class Carry(NamedTuple):
    """All environments between two steps, arrays `[E, ...]`; `obs` are the last rows', `time` counts steps."""

    key: Any
    state: Any
    done: Any
    time: Any
    obs: dict[str, Any]
    faults: Faults


class JaxVectorEnv:
    """`num_envs` copies of a `JaxEnv`, vmapped and jitted; an ended episode restarts on the next step.

    A faulty row shows the last good observation, with no reward, and is truncated. `max_faults` of them in a row
    of one environment, with no episode in between that ended by itself, are mended so; one more is an error, and
    so is a fault of the first reset. `start` and `advance` are pure functions, for programs that hold the
    environments themselves; their `Rows` are JAX arrays, and `failed` tells them when to stop.
    """

    def __init__(self, env: JaxEnv, num_envs: int, action_repeat: int = 1, max_faults: int = 0):
        self.env, self.num_envs, self.repeat, self.max_faults = env, num_envs, action_repeat, max_faults
        self.obs_specs, self.act_specs = env.obs_specs, env.act_specs
        own = getattr(env, "interface", None)
        self.interface = own or interface_of_specs(env.obs_specs, env.act_specs)
        check_repeat(self.interface, action_repeat)
        self.checked = [*self.obs_specs, "reward", *filter(is_mask, self.obs_specs)]
        self._start, self._advance = jax.jit(self.start), jax.jit(self.advance)
        self._carry: Any = None
        self._faults: Faults | None = None
        self._failed = False

    def reset(self, seed: int) -> list[Rows]:
        """Start all environments from keys derived from `seed`."""
        before = self._faults
        self._carry, rows = self._start(jax.random.PRNGKey(seed))
        if before is not None and before.total.any():
            counts = self._carry.faults
            total, kind = counts.total + before.total, jnp.where(counts.total > 0, counts.kind, before.kind)
            self._carry = self._carry._replace(faults=counts._replace(total=total, kind=kind))
        return self._given(rows)

    def step(self, actions: Actions) -> list[Rows]:
        """Step all environments, or restart those that had ended; see `VectorEnv.step`."""
        self._carry, rows = self._advance(self._carry, {key: actions[key] for key in self.act_specs})
        return self._given(rows)

    def close(self) -> None:
        """Nothing to free."""

    @property
    def faults(self) -> int:
        """How many rows were faulty."""
        return 0 if self._faults is None else int(self._faults.total.sum())

    @property
    def last_fault(self) -> str:
        """Which environment was faulty, and how: the one that was so most often in a row; "" if none was."""
        return self.told(self._faults) if self.faults and self._faults is not None else ""

    def get_state(self) -> dict[str, Any] | None:
        """See `VectorEnv`."""
        return None if self.why_no_state() is not None else {"carry": self.carry_to_state(self._carry)}

    def set_state(self, state: dict[str, Any]) -> None:
        """See `VectorEnv`."""
        self._carry = self.carry_from_state(state["carry"])
        self._faults, self._failed = jax.tree.map(np.asarray, self._carry.faults), False

    def why_no_state(self) -> str | None:
        """See `VectorEnv`."""
        return "environments that failed, or were not reset" if self._failed or self._carry is None else None

    def carry_to_state(self, carry: Carry) -> dict[str, np.ndarray]:
        """What `start` and `advance` carry, as NumPy arrays by the names of its leaves."""
        return to_arrays(carry)

    def carry_from_state(self, state: dict[str, np.ndarray]) -> Carry:
        """The inverse; a count of faults that ended the run begins anew, since they may have been mended.

        Raises `RunDirectoryError`, which names the array, where the state is one of other environments.
        """
        template = jax.eval_shape(self.start, jax.random.PRNGKey(0))[0]
        return self.forgiven(from_arrays(template, state))

    def forgiven(self, carry: Carry) -> Carry:
        """`carry` without the counts of faults in a row that ended a run, to go on from it."""
        in_a_row = carry.faults.in_a_row
        kept = jnp.where(in_a_row > self.max_faults, 0, in_a_row)
        return carry._replace(faults=carry.faults._replace(in_a_row=kept))

    def faults_of(self, carry: Carry) -> Faults:
        """What was counted, of a carry or of several with a leading axis."""
        return carry.faults

    def failed(self, carry: Carry) -> Any:
        """Whether `check` raises for it, as a JAX bool."""
        return (carry.faults.in_a_row > self.max_faults).any()

    def start(self, key: Any) -> tuple[Carry, Rows]:
        """The carry of all environments and their first rows."""
        (keys, state, done, time), out = jax.vmap(self._reset_one)(jax.random.split(key, self.num_envs))
        rows, wrong, kind = self._rows(out, None)
        counts = wrong.astype(jnp.int32)
        faults = Faults(counts, counts * NEVER_GOOD, kind)
        return Carry(keys, state, done, time, rows.obs, faults), rows

    def advance(self, carry: Carry, actions: dict[str, Any]) -> tuple[Carry, Rows]:
        """The same after a step, or a restart where an episode had ended."""
        keys, reset_keys, ongoing = jax.vmap(self._step_one)(carry[:4], actions)

        def restarted() -> Any:
            (_, *fresh), out = jax.vmap(self._reset_one)(reset_keys)
            return jax.vmap(_choose)(carry.done, (fresh, out), ongoing)

        def going_on() -> Any:
            # The state that step returns may differ from reset's in weak types only: cast to one form.
            return jax.tree.map(lambda old, new: jnp.asarray(old).astype(new.dtype), ongoing, forms)

        forms = jax.eval_shape(restarted)
        # A world that is generated takes longer to reset than to step.
        (state, _, time), out = jax.lax.cond(carry.done.any(), restarted, going_on)
        rows, wrong, kind = self._rows(out, carry.obs)
        old = carry.faults
        in_a_row = jnp.where(wrong, old.in_a_row + 1, jnp.where(rows.is_last, 0, old.in_a_row))
        faults = Faults(old.total + wrong, in_a_row, jnp.where(wrong, kind, old.kind))
        return Carry(keys, state, rows.is_last, time, rows.obs, faults), rows

    def check(self, faults: Faults) -> None:
        """Raise `EnvironmentFault` where one environment was faulty too often in a row."""
        if np.max(faults.in_a_row) > self.max_faults:
            fault, advice, times = self._told(faults)
            often = (
                f", {times} times in a row with no episode in between that ended by itself "
                f"(env.max_faults={self.max_faults})"
                if 1 < times < NEVER_GOOD
                else ""
            )
            raise EnvironmentFault(f"{fault}{often}: {advice}.")

    def told(self, faults: Faults) -> str:
        """What was wrong, in the environment that was so most often in a row; some must be counted."""
        return self._told(faults)[0]

    def _told(self, faults: Faults) -> tuple[str, str, int]:
        """Of the environment with the most faults in a row: what was wrong, what to do, and how often."""
        worst = int(np.lexsort((-np.ravel(faults.total), -np.ravel(faults.in_a_row)))[0])
        place, times = int(np.ravel(faults.kind)[worst]), int(np.ravel(faults.in_a_row)[worst])
        name, key = type(self.env).__name__, self.checked[place]
        number = f" (environment {worst % self.num_envs})" if self.num_envs > 1 else ""
        if place <= self.checked.index("reward"):
            return f"The environment {name} gave NaN or infinity in '{key}'{number}", "mend its step", times
        return (
            f"The mask '{key}' of {name} leaves no legal action although the episode goes on{number}",
            "end the episode, or mend the mask",
            times,
        )

    def _given(self, rows: Rows) -> list[Rows]:
        rows, self._faults = jax.tree.map(np.asarray, (rows, self._carry.faults))
        self._failed = True
        self.check(self._faults)
        self._failed = False
        return [rows]

    def _reset_one(self, key: Any) -> tuple[Any, tuple]:
        key, reset_key = jax.random.split(key)
        state, obs = self.env.reset(reset_key)
        # Strong types, which step gives back: else the first step would compile for the weak ones, too.
        state = jax.tree.map(lambda x: jnp.asarray(x).astype(jnp.asarray(x).dtype), state)
        done, time = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
        return (key, state, done, time), (obs, jnp.zeros(()), ~done, done, done)

    def _step_one(self, carry: Any, action: Any) -> tuple[Any, Any, tuple[list, tuple]]:
        """The next key, one to reset with, and what comes of a step."""
        key, state, _, time = carry
        key, step_key, reset_key = jax.random.split(key, 3)
        after, out = self._repeated(step_key, state, action, time)
        return key, reset_key, (list(after), out)

    def _repeated(self, key: Any, state: Any, action: Any, time: Any) -> tuple[tuple, tuple]:
        """`repeat` steps with one action, its numbers clipped to [-1, 1]; nothing moves after an end."""
        action = {
            name: jnp.clip(value, -1, 1) if self.act_specs[name].kind == "continuous" else value
            for name, value in action.items()
        }
        ended, total = jnp.zeros((), bool), jnp.zeros(())
        terminal, obs = ended, None
        limit = jnp.inf if self.env.time_limit is None else self.env.time_limit
        for step_key in jax.random.split(key, self.repeat):
            new = self.env.step(step_key, state, action)
            old = (state, new[1] if obs is None else obs)
            state, obs = jax.tree.map(lambda a, b, e=ended: jnp.where(e, a, b), old, new[:2])
            total += jnp.where(ended, 0.0, new[2])
            terminal |= ~ended & new[3]
            time = time + ~ended
            ended |= new[3] | new[4] | (time >= limit)
        return (state, ended, time), (obs, total, jnp.zeros((), bool), ended, terminal)

    def _rows(self, out: tuple, last_good: dict[str, Any] | None) -> tuple[Rows, Any, Any]:
        """The rows, whether each was faulty `[E]`, and the place of what was wrong in `checked` `[E]`."""
        obs, given, is_first, is_last, is_terminal = out
        obs = {key: jnp.asarray(obs[key]).astype(spec.dtype) for key, spec in self.obs_specs.items()}
        flags = [~self._each(jnp.isfinite(value)) for value in (*obs.values(), given)]
        flags += [~is_last & ~self._each(obs[key].any(-1)) for key in filter(is_mask, obs)]
        wrong, kind = jnp.stack(flags).any(0), jnp.stack(flags).argmax(0).astype(jnp.int32)
        reward: Any = jnp.clip(given, -LARGEST_REWARD, LARGEST_REWARD).astype(jnp.float32)
        if last_good is not None:
            obs, reward = jax.vmap(_choose)(wrong, (last_good, jnp.zeros_like(reward)), (obs, reward))
        return Rows(obs, reward, is_first, is_last | wrong, is_terminal & ~wrong), wrong, kind

    def _each(self, flags: Any) -> Any:
        """Whether all `flags` `[E, ...]` of an environment are true `[E]`."""
        return flags.reshape(self.num_envs, -1).all(-1)


def _choose(done: Any, fresh: Any, ongoing: Any) -> Any:
    return jax.tree.map(lambda new, old: jnp.where(done, new, old).astype(jnp.asarray(new).dtype), fresh, ongoing)
