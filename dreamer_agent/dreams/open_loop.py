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


class OpenLoop(NamedTuple):
    """Truth and prediction of `[B, T, ...]` arrays by name; the first `observed` steps were seen.

    Names are the observation keys, "reward" and "continue" (the predicted continue with the discount
    divided out, against 1 - is_terminal). Integers are shown as indices.
    """

    truth: dict[str, np.ndarray]
    prediction: dict[str, np.ndarray]
    observed: int
    specs: Specs

    def error_by_step(self, key: str) -> np.ndarray:
        """Mean squared error over sequences and elements for each step, `[T]`."""
        gap = self.truth[key].astype(np.float64) - self.prediction[key]
        return np.square(gap).reshape(*gap.shape[:2], -1).mean((0, 2))


def open_loop(agent: Agent, params: Params, batch: Batch, key: Array, observed: int) -> OpenLoop:
    """Predict `batch` `[B, C + T, ...]` from its first `observed` trained steps and its actions."""
    if not 0 < observed < batch["reward"].shape[1] - CONTEXT:
        raise ValueError(f"Observe at least one step and leave one to imagine; got {observed}.")
    prediction = _predict(agent, observed, params, batch, key)
    data = drop_context(batch)
    truth = {**data["obs"], "reward": data["reward"], "continue": 1.0 - data["is_terminal"]}
    truth, prediction = jax.tree.map(np.asarray, (truth, prediction))
    return OpenLoop(truth, prediction, observed, agent.model.obs_specs)


@partial(jax.jit, static_argnums=(0, 1))
def _predict(agent: Agent, observed: int, params: Params, batch: Batch, key: Array) -> dict[str, Array]:
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
    out = {name: p.mode() for name, p in model.reconstruct(params, latents).items()}
    out["reward"] = model.predict_reward(params, latents.features).mean()
    gamma = 1 - 1 / agent.config.behaviour.discount_horizon
    out["continue"] = model.predict_continue(params, latents.features).prob() / gamma
    return out


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
