"""JAX-native environments as a `VectorEnv`, and as pure functions for programs on the device."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.envs.interface import check_repeat, interface_of_specs
from dreamer_agent.envs.protocol import LARGEST_REWARD, Actions, JaxEnv, Rows
from dreamer_agent.errors import EnvironmentFault
from dreamer_agent.specs import is_mask


class Faults(NamedTuple):
    """What is wrong with some row: not finite, or a mask without a legal action; each a bool, by array."""

    infinite: dict[str, Any]
    stuck: dict[str, Any]


class JaxVectorEnv:
    """`num_envs` copies of a `JaxEnv`, vmapped and jitted; an ended episode restarts on the next step.

    `start` and `advance` are pure functions, for programs that hold the environments themselves; their `Rows` and
    `Faults` are JAX arrays.
    """

    def __init__(self, env: JaxEnv, num_envs: int, action_repeat: int = 1):
        self.env, self.num_envs, self.repeat = env, num_envs, action_repeat
        self.obs_specs, self.act_specs = env.obs_specs, env.act_specs
        self.interface = interface_of_specs(env.obs_specs, env.act_specs)
        check_repeat(self.interface, action_repeat)
        self._start, self._advance = jax.jit(self.start), jax.jit(self.advance)
        self._carry: Any = None

    def reset(self, seed: int) -> list[Rows]:
        """Start all environments from keys derived from `seed`."""
        self._carry, rows, faults = self._start(jax.random.PRNGKey(seed))
        return self._checked(rows, faults)

    def step(self, actions: Actions) -> list[Rows]:
        """Step all environments, or restart those that had ended; see `VectorEnv.step`."""
        self._carry, rows, faults = self._advance(self._carry, {key: actions[key] for key in self.act_specs})
        return self._checked(rows, faults)

    def close(self) -> None:
        """Nothing to free."""

    def start(self, key: Any) -> tuple[Any, Rows, Faults]:
        """The carry of all environments, their first rows, and what is wrong with these."""
        carry, out = jax.vmap(self._reset_one)(jax.random.split(key, self.num_envs))
        return carry, *self._rows(out)

    def advance(self, carry: Any, actions: dict[str, Any]) -> tuple[Any, Rows, Faults]:
        """The same after a step, or a restart where an episode had ended."""
        done = carry[2]
        keys, reset_keys, ongoing = jax.vmap(self._step_one)(carry, actions)

        def restarted() -> Any:
            (_, *fresh), out = jax.vmap(self._reset_one)(reset_keys)
            return jax.vmap(_choose)(done, (fresh, out), ongoing)

        def going_on() -> Any:
            # The state that step returns may differ from reset's in weak types only: cast to one form.
            return jax.tree.map(lambda old, new: jnp.asarray(old).astype(new.dtype), ongoing, forms)

        forms = jax.eval_shape(restarted)
        # A world that is generated takes longer to reset than to step.
        state, out = jax.lax.cond(done.any(), restarted, going_on)
        return (keys, *state), *self._rows(out)

    def check(self, faults: Faults) -> None:
        """Raise `EnvironmentFault` for the first of `faults` that is true."""
        name = type(self.env).__name__
        for key, found in faults.infinite.items():
            if np.any(found):
                raise EnvironmentFault(f"The environment {name} gave NaN or infinity in '{key}': mend its step.")
        for key, found in faults.stuck.items():
            if np.any(found):
                raise EnvironmentFault(
                    f"The mask '{key}' of {name} leaves no legal action although the episode goes on: end the "
                    "episode, or mend the mask."
                )

    def _checked(self, rows: Rows, faults: Faults) -> list[Rows]:
        rows, faults = jax.tree.map(np.asarray, (rows, faults))
        self.check(faults)
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

    def _rows(self, out: tuple) -> tuple[Rows, Faults]:
        obs, given, is_first, is_last, is_terminal = out
        obs = {key: jnp.asarray(obs[key]).astype(spec.dtype) for key, spec in self.obs_specs.items()}
        infinite = {key: ~jnp.isfinite(value).all() for key, value in {**obs, "reward": given}.items()}
        stuck = {key: self._stuck(obs[key], is_last) for key in filter(is_mask, obs)}
        reward: Any = jnp.clip(given, -LARGEST_REWARD, LARGEST_REWARD).astype(jnp.float32)
        return Rows(obs, reward, is_first, is_last, is_terminal), Faults(infinite, stuck)

    def _stuck(self, mask: Any, is_last: Any) -> Any:
        """Whether a mask `[E, ..., classes]` leaves nothing to an episode that goes on."""
        return (~is_last & ~mask.any(-1).reshape(self.num_envs, -1).all(-1)).any()


def _choose(done: Any, fresh: Any, ongoing: Any) -> Any:
    return jax.tree.map(lambda new, old: jnp.where(done, new, old).astype(jnp.asarray(new).dtype), fresh, ongoing)
