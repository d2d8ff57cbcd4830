"""gymnasium's Pendulum-v1 as an exact model in JAX, and episodes planned in it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.behaviour import ActionDistribution
from dreamer_agent.distributions import Normal
from dreamer_agent.planning import Model, Outcome
from dreamer_agent.specs import ArraySpec

SPECS = {"action": ArraySpec("continuous", (1,))}
GAMMA = 1.0
STEPS = 200
FAST = {"xla_backend_optimization_level": 3}  # these programs run for longer than they compile


def advance(state: jax.Array, torque: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The next (angle, speed) `[N, 2]` and the reward `[N]`, for a torque in [-2, 2]."""
    angle, speed = state[:, 0], state[:, 1]
    normed = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
    reward = -(normed**2 + 0.1 * speed**2 + 0.001 * torque**2)
    speed = jnp.clip(speed + (15.0 * jnp.sin(angle) + 3.0 * torque) * 0.05, -8.0, 8.0)
    return jnp.stack([angle + speed * 0.05, speed], 1), reward


def model(value: Any = None, gamma: float = GAMMA) -> Model:
    """Exact, with a policy that knows nothing; `value(state)` `[N]` where it ends, else zero."""

    def values(_: Any, state: jax.Array) -> jax.Array:
        return jnp.zeros(len(state)) if value is None else value(state)

    def step(params: Any, key: jax.Array, actions: Any, state: jax.Array) -> tuple[Outcome, jax.Array]:
        new, reward = advance(state, 2.0 * actions["action"][:, 0])
        return Outcome(reward, jnp.full(len(state), gamma), values(params, new)), new

    def policy(_: Any, state: jax.Array) -> ActionDistribution:
        return ActionDistribution({"action": Normal(jnp.zeros((len(state), 1)), jnp.ones((len(state), 1)), 1)})

    return Model(SPECS, step, policy, values)


def starts(seeds: int) -> jax.Array:
    """Where gymnasium's episodes begin, `[seeds, 2]`."""
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.uniform([-np.pi, -1.0], [np.pi, 1.0], (seeds, 2)), jnp.float32)


def episodes(planner: Any, own: Model, seeds: int = 10, steps: int = STEPS) -> Callable[[], np.ndarray]:
    """A compiled function that gives the returns `[seeds]` of episodes in which `planner` plans at every step."""

    @partial(jax.jit, compiler_options=FAST)
    def episode(key: jax.Array) -> jax.Array:
        def one(held: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
            state, plan = held
            actions, plan = planner.plan(own, (), key, state, plan)
            state, reward = advance(state, 2.0 * jnp.clip(actions["action"][:, 0], -1.0, 1.0))
            return (state, plan), reward

        begun = (starts(seeds), planner.begin(own, seeds))
        return jax.lax.scan(one, begun, jax.random.split(key, steps))[1].sum(0)

    return lambda: np.asarray(episode(jax.random.PRNGKey(0)))


def returns(planner: Any, own: Model) -> np.ndarray:
    """Of ten `episodes`."""
    return episodes(planner, own)()


def exact_value(horizon: int = 100, angles: int = 101, speeds: int = 101, torques: int = 21) -> Any:
    """The best sum of rewards over `horizon` steps, by value iteration on a grid; `value(state)` `[N]`."""
    angle, speed = jnp.linspace(-jnp.pi, jnp.pi, angles), jnp.linspace(-8.0, 8.0, speeds)
    grid = jnp.stack(jnp.meshgrid(angle, speed, indexing="ij"), -1).reshape(-1, 2)

    def look_up(table: jax.Array, state: jax.Array) -> jax.Array:
        normed = (state[:, 0] + jnp.pi) % (2 * jnp.pi)
        at = jnp.stack([normed / (2 * jnp.pi) * (angles - 1), (state[:, 1] + 8.0) / 16.0 * (speeds - 1)])
        return jax.scipy.ndimage.map_coordinates(table, at, order=1, mode="nearest")

    @partial(jax.jit, static_argnums=0, compiler_options=FAST)
    def table(horizon: int) -> jax.Array:
        def backup(table: jax.Array, _: Any) -> tuple[jax.Array, None]:
            def of(torque: jax.Array) -> jax.Array:
                new, reward = advance(grid, jnp.full(len(grid), torque))
                return reward + look_up(table, new)

            best = jax.lax.map(of, jnp.linspace(-2.0, 2.0, torques)).max(0)
            return best.reshape(angles, speeds), None

        return jax.lax.scan(backup, jnp.zeros((angles, speeds)), None, horizon)[0]

    return partial(look_up, table(horizon))


class Unplanned:
    """Actions at random, in the form of a planner."""

    def begin(self, own: Model, batch: int) -> tuple[()]:
        """Nothing to keep."""
        return ()

    def plan(self, own: Model, params: Any, key: jax.Array, state: jax.Array, plan: Any) -> Any:
        """Uniform over all torques."""
        return {"action": jax.random.uniform(key, (len(state), 1), minval=-1, maxval=1)}, plan


def noisy(value: Any, seed: int, amount: float = 0.3) -> Any:
    """`value` times 1 + `amount` of standard normal numbers, drawn on a grid and interpolated."""
    drawn = np.random.default_rng(seed).normal(size=(39, 40))
    field = jnp.asarray(np.concatenate([drawn, drawn[:1]]))  # angles go round

    def said(state: jax.Array) -> jax.Array:
        at = jnp.stack([(state[:, 0] + jnp.pi) % (2 * jnp.pi) / (2 * jnp.pi) * 39, (state[:, 1] + 8) / 16 * 39])
        noise = jax.scipy.ndimage.map_coordinates(field, at, order=1, mode="nearest")
        return value(state) * (1 + amount * noise)

    return said
