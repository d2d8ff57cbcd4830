"""Open-loop prediction: watch the first half of a sequence, imagine the second half, compare (V3, fig. 4)."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.agent import Agent
from dreamer_agent.nets import Params
from dreamer_agent.specs import Specs
from dreamer_agent.world_model import CONTEXT, Batch, Latent, drop_context, imagine_actions

Array = jax.Array


class Compared(NamedTuple):
    """Truth and prediction of one quantity, both `[B, T, ...]`."""

    truth: np.ndarray
    prediction: np.ndarray

    def error_by_step(self) -> np.ndarray:
        """Mean squared error over sequences and elements for each step, `[T]`."""
        gap = self.truth.astype(np.float64) - self.prediction
        return np.square(gap).reshape(*gap.shape[:2], -1).mean((0, 2))


class OpenLoop(NamedTuple):
    """Truth and prediction of sequences whose first `observed` steps the model saw.

    `truth` and `prediction` hold `[B, T, ...]` arrays by observation key; integers are shown as indices.
    `reward` and `continue_` are apart from them, since an observation may be called so, too. The predicted
    continue has the discount divided out; it stands against 1 - is_terminal. `is_first` `[B, T]` is where an
    episode starts: one inside the imagined part cannot be foreseen.
    """

    truth: dict[str, np.ndarray]
    prediction: dict[str, np.ndarray]
    reward: Compared
    continue_: Compared
    is_first: np.ndarray
    observed: int
    specs: Specs

    def observation(self, key: str) -> Compared:
        """Truth and prediction of the observation `key`."""
        return Compared(self.truth[key], self.prediction[key])

    def error_by_step(self, name: str) -> np.ndarray:
        """Mean squared error for each step, `[T]`, of "reward", "continue" or an observation.

        An observation that is called "reward" or "continue" itself is reached by `observation`.
        """
        quantity = {"reward": self.reward, "continue": self.continue_}.get(name)
        return (quantity or self.observation(name)).error_by_step()


def open_loop(agent: Agent, params: Params, batch: Batch, key: Array, observed: int) -> OpenLoop:
    """Predict `batch` `[B, C + T, ...]` from its first `observed` trained steps and its actions."""
    if not 0 < observed < batch["reward"].shape[1] - CONTEXT:
        raise ValueError(f"Observe at least one step and leave one to imagine; got {observed}.")
    data = jax.tree.map(np.asarray, drop_context(batch))
    obs, reward, continue_ = jax.tree.map(np.asarray, _predict(agent, observed, params, batch, key))
    return OpenLoop(
        truth=dict(data["obs"]),
        prediction=obs,
        reward=Compared(data["reward"], reward),
        continue_=Compared(1.0 - data["is_terminal"], continue_),
        is_first=data["is_first"],
        observed=observed,
        specs=agent.model.obs_specs,
    )


@partial(jax.jit, static_argnums=(0, 1))
def _predict(
    agent: Agent, observed: int, params: Params, batch: Batch, key: Array
) -> tuple[dict[str, Array], Array, Array]:
    """Observations by key, reward and continue as predicted, each `[B, T, ...]`."""
    model = agent.model
    observe_key, imagine_key = jax.random.split(key)
    seen = jax.tree.map(lambda x: x[:, : CONTEXT + observed], batch)
    posterior, _ = model.observe(params, seen, observe_key)
    start = jax.tree.map(lambda x: x[:, -1], posterior)
    # The action before step t is the one taken at t - 1.
    first = CONTEXT + observed - 1
    actions = jax.tree.map(lambda x: x[:, first:-1], batch["action"])
    imagined = imagine_actions(model, params, start, actions, imagine_key)
    latents: Latent = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), posterior, imagined)
    obs = {name: p.mode() for name, p in model.reconstruct(params, latents).items()}
    reward = model.predict_reward(params, latents.features).mean()
    gamma = 1 - 1 / agent.config.behaviour.discount_horizon
    continue_ = model.predict_continue(params, latents.features).prob() / gamma
    return obs, reward, continue_


def longest_episode(steps: list[dict[str, Any]]) -> int:
    """The longest stretch without a reset, in rows, of consecutive steps `[E, ...]`."""
    first = np.stack([step["is_first"] for step in steps], 1).astype(bool)
    longest = 0
    for row in first:
        edges = [0, *np.flatnonzero(row), len(row)]
        longest = max(longest, int(np.diff(edges).max()))
    return longest


def whole_windows(steps: list[dict[str, Any]], length: int, count: int) -> Batch:
    """Up to `count` sequences `[B, length, ...]` from consecutive steps `[E, ...]`.

    Those without an episode start inside come first, one for each environment, since a dream does not know
    that the world was reset.
    """
    stacked = jax.tree.map(lambda *x: np.stack(x, 1), *steps)
    total = stacked["reward"].shape[1]
    candidates = []
    for env in range(stacked["reward"].shape[0]):
        first = stacked["is_first"][env]
        starts = range(total - length + 1)
        best = min(starts, key=lambda s: (int(first[s + 1 : s + length].sum()), s))
        candidates.append((int(first[best + 1 : best + length].sum()), env, best))
    chosen = sorted(candidates)[:count]
    cut = [jax.tree.map(lambda x, e=env, s=start: x[e, s : s + length], stacked) for _, env, start in chosen]
    return jax.tree.map(lambda *x: np.stack(x), *cut)
