"""Small JAX-native environments of our own: a pixel game to learn from images on a CPU."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dreamer_agent.specs import ArraySpec


class CatchState(NamedTuple):
    """Cells of the ball and of the paddle's left end; all integers."""

    ball_x: Any
    ball_y: Any
    drift: Any
    paddle: Any


class Catch:
    """A ball falls one cell a step, drifting and bouncing off the walls; catch it with a paddle.

    Eight by eight cells, two by two pixels each: observation "image" `[16, 16, 3]`. Actions left, stay, right.
    The reward is +1 for a catch and -1 for a miss, when the ball reaches the last row. After a catch the
    next ball is at the top; a miss ends the episode (terminal), `balls` balls cut it (truncation). The best
    return is `balls`.
    """

    SIDE, PADDLE, PIXELS = 8, 3, 2

    def __init__(self, balls: int = 3):
        width = self.SIDE * self.PIXELS
        self.obs_specs = {"image": ArraySpec("image", (width, width, 3))}
        self.act_specs = {"action": ArraySpec("discrete", (), 3)}
        self.time_limit = balls * (self.SIDE - 1)

    def reset(self, key: Any) -> tuple[CatchState, dict[str, Any]]:
        """A new ball above a paddle in the middle."""
        x, drift = self._new_ball(key)
        state = CatchState(x, jnp.zeros((), jnp.int32), drift, jnp.array(self.SIDE // 2 - 1, jnp.int32))
        return state, self._observe(state)

    def step(self, key: Any, state: CatchState, action: dict[str, Any]) -> tuple[Any, ...]:
        """Move the paddle, then the ball."""
        last = self.SIDE - 1
        paddle = jnp.clip(state.paddle + action["action"] - 1, 0, self.SIDE - self.PADDLE)
        x = state.ball_x + state.drift
        drift = jnp.where((x < 0) | (x > last), -state.drift, state.drift)
        x = jnp.where(x < 0, -x, jnp.where(x > last, 2 * last - x, x))
        y = state.ball_y + 1
        landed = y == last
        caught = landed & (x >= paddle) & (x < paddle + self.PADDLE)
        missed = landed & ~caught
        moved = CatchState(x, y, drift, paddle)
        new_x, new_drift = self._new_ball(key)
        respawned = CatchState(new_x, jnp.zeros_like(y), new_drift, paddle)
        state = jax.tree.map(lambda a, b: jnp.where(caught, a, b), respawned, moved)
        reward = caught.astype(jnp.float32) - missed.astype(jnp.float32)
        return state, self._observe(state), reward, missed, jnp.zeros((), bool)

    def _new_ball(self, key: Any) -> tuple[Any, Any]:
        x_key, drift_key = jax.random.split(key)
        x = jax.random.randint(x_key, (), 0, self.SIDE)
        return x, jax.random.randint(drift_key, (), -1, 2)

    def _observe(self, state: CatchState) -> dict[str, Any]:
        rows, columns = jnp.mgrid[: self.SIDE, : self.SIDE]
        ball = (rows == state.ball_y) & (columns == state.ball_x)
        on_paddle = (columns >= state.paddle) & (columns < state.paddle + self.PADDLE)
        paddle = (rows == self.SIDE - 1) & on_paddle
        background = jnp.array([20, 20, 40], jnp.uint8)
        cells = jnp.where(paddle[..., None], jnp.array([80, 200, 120], jnp.uint8), background)
        cells = jnp.where(ball[..., None], jnp.array([250, 220, 60], jnp.uint8), cells)
        return {"image": cells.repeat(self.PIXELS, 0).repeat(self.PIXELS, 1)}
