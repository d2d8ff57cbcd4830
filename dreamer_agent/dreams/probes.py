"""One-step models of the observation itself: how far one gets without a world model.

A linear one and a small network, from standardised observation and action to the next observation, fitted on
episodes of their own and rolled out on their own predictions. They see one observation and remember nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

Array = jax.Array
UNITS, STEPS, BATCH, RATE = 64, 2000, 256, 1e-3


class Transitions(NamedTuple):
    """N steps: standardised observations `[N, D]`, encoded actions `[N, A]`, and the observations after them."""

    obs: np.ndarray
    action: np.ndarray
    after: np.ndarray

    @classmethod
    def of(cls, pieces: Sequence[tuple[np.ndarray, np.ndarray]]) -> Transitions:
        """Of episodes: observations `[T, D]` and the actions `[T, A]` taken after seeing them."""
        obs, action, after = zip(*((x[:-1], a[:-1], x[1:]) for x, a in pieces), strict=True)
        return cls(np.concatenate(obs), np.concatenate(action), np.concatenate(after))


class Probe(NamedTuple):
    """`step(weights, obs [W, D], action [W, A])` gives the next observation `[W, D]`.

    It is kept between `low` and `high` `[D]`, the range of what the probe was fitted on: one that diverges stays
    at the edge.
    """

    step: Callable[[Any, Array, Array], Array]
    weights: Any
    low: np.ndarray
    high: np.ndarray

    def roll_out(self, start: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The observations `[W, H, D]` that follow `start` `[W, D]` under `actions` `[W, H, A]`."""
        given = (start, self.low, self.high, actions)
        return np.asarray(_roll_out(self.step, self.weights, *(jnp.asarray(x, jnp.float32) for x in given)))


@partial(jax.jit, static_argnums=0)
def _roll_out(
    step: Callable[..., Array], weights: Any, start: Array, low: Array, high: Array, actions: Array
) -> Array:
    def once(obs: Array, action: Array) -> tuple[Array, Array]:
        new = jnp.clip(step(weights, obs, action), low, high)
        return new, new

    return jax.lax.scan(once, start, actions.swapaxes(0, 1))[1].swapaxes(0, 1)


def linear(data: Transitions) -> Probe:
    """By least squares, with a constant."""
    ones = np.ones((len(data.obs), 1))
    weights = np.linalg.lstsq(np.concatenate([data.obs, data.action, ones], 1), data.after, rcond=None)[0]
    return Probe(_linear_step, jnp.asarray(weights, jnp.float32), *_range(data))


def _linear_step(weights: Array, obs: Array, action: Array) -> Array:
    return jnp.concatenate([obs, action, jnp.ones((len(obs), 1))], -1) @ weights


class Change(nn.Module):
    """By how much an observation will change: two hidden layers."""

    size: int

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:
        """`[..., D]` and `[..., A]` to `[..., D]`."""
        x = jnp.concatenate([obs, action], -1)
        for _ in range(2):
            x = nn.silu(nn.Dense(UNITS)(x))
        return nn.Dense(self.size)(x)


def mlp(data: Transitions, seed: int = 0) -> Probe:
    """A network that predicts the change, by Adam on the squared error."""
    net = Change(data.obs.shape[1])
    weights = _fitted(net, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), data), jax.random.PRNGKey(seed))
    return Probe(partial(_mlp_step, net), weights, *_range(data))


def _mlp_step(net: nn.Module, weights: Any, obs: Array, action: Array) -> Array:
    change: Any = net.apply(weights, obs, action)
    return obs + change


@partial(jax.jit, static_argnums=0)
def _fitted(net: nn.Module, data: Transitions, key: Array) -> Any:
    init_key, draw_key = jax.random.split(key)
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))
    weights = net.init(init_key, data.obs[:1], data.action[:1])

    def loss(weights: Any, rows: Array) -> Array:
        told = _mlp_step(net, weights, data.obs[rows], data.action[rows])
        return jnp.square(told - data.after[rows]).mean()

    def update(carry: tuple[Any, Any], own: Array) -> tuple[tuple[Any, Any], None]:
        weights, state = carry
        rows = jax.random.randint(own, (BATCH,), 0, len(data.obs))
        changes, state = optimizer.update(jax.grad(loss)(weights, rows), state)
        return (optax.apply_updates(weights, changes), state), None

    start = (weights, optimizer.init(weights))
    return jax.lax.scan(update, start, jax.random.split(draw_key, STEPS))[0][0]


def _range(data: Transitions) -> tuple[np.ndarray, np.ndarray]:
    both = np.concatenate([data.obs, data.after])
    return both.min(0), both.max(0)
