"""What a world model says of the steps after each window's start: one program for all windows."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dreamer_agent.agent import Agent
from dreamer_agent.dreams.numbers import expected
from dreamer_agent.nets import Params
from dreamer_agent.planning.proposal import uniform
from dreamer_agent.world_model import Actions, Latent, imagine_actions

Array = jax.Array


class Forecast(NamedTuple):
    """Of W windows, at K horizons or at all H steps; row h stands for the step that h actions lead to.

    `obs` and `drawn` hold numbers (`numbers.expected`) `[W, K, D]` by key, after the actions that were taken and
    after others that were drawn evenly from the action space; `shown` the same where the model has seen the very
    observation: what decoding alone costs. `reward` `[W, H]`; `goes_on` `[W, H]` is the
    probability that the episode goes on. `entropy`, `between` and `seen` `[W, H]` are in nats: see `latent_nats`.
    """

    obs: dict[str, Any]
    drawn: dict[str, Any]
    shown: dict[str, Any]
    reward: Any
    goes_on: Any
    entropy: Any
    between: Any
    seen: Any


@partial(jax.jit, static_argnums=(0, 1))
def forecast(
    agent: Agent, horizons: tuple[int, ...], params: Params, latents: Any, actions: Actions, key: Array
) -> Forecast:
    """From the stored `latents` `[W, 1 + H, ...]` of `Windows` and the `actions` `[W, H, ...]` between them.

    It starts from the first latents, those that the policy acted on: they have seen the episode up to there. The
    others are only compared with. Each window is imagined once for each kind of actions, with the same random
    numbers for both, and once more for `between`.
    """
    model = agent.model
    draw_key, first_key, second_key = jax.random.split(key, 3)
    posterior = model.rssm.kind.unpack(latents, model.dtype)
    start = jax.tree.map(lambda x: x[:, 0], posterior)
    windows, steps = latents["stoch"].shape[0], latents["stoch"].shape[1] - 1
    others = jax.tree.map(lambda x: x[:, 0], uniform(model.act_specs, draw_key, windows, 1, steps, None))
    ways = {name: jnp.stack([actions[name], actions[name], others[name]]) for name in model.act_specs}
    keys = jnp.stack([first_key, second_key, first_key])
    imagined = jax.vmap(lambda way, own: imagine_actions(model, params, start, way, own))(ways, keys)
    taken, again, drawn = (jax.tree.map(lambda x, i=i: x[i], imagined) for i in range(3))
    ahead = jax.tree.map(lambda x: x[:, 1:], posterior)
    gamma = 1 - 1 / agent.config.behaviour.discount_horizon
    obs, shown_drawn, shown = _decoded(agent, params, jnp.array(horizons) - 1, taken, drawn, ahead)
    entropy, between, seen = latent_nats(agent, params, taken, again, latents["stoch"][:, 1:])
    reward = model.predict_reward(params, taken.features).mean()
    goes_on = model.predict_continue(params, taken.features).prob() / gamma
    return Forecast(obs, shown_drawn, shown, reward, goes_on, entropy, between, seen)


def _decoded(agent: Agent, params: Params, places: Array, *latents: Latent) -> list[dict[str, Array]]:
    """The numbers `[W, K, D]` by key that each of `latents` `[W, H, ...]` shows at K `places`.

    One place after the other: all images at once would take much memory.
    """
    model = agent.model

    def shown(latent: Latent) -> dict[str, Array]:
        return {n: expected(model.obs_specs[n], p) for n, p in model.reconstruct(params, latent).items()}

    rows = jax.tree.map(lambda *x: jnp.concatenate([one[:, places].swapaxes(0, 1) for one in x]), *latents)
    told = jax.lax.map(shown, rows)  # [L * K, W, D]
    size = len(places)
    return [
        jax.tree.map(lambda x, i=i: x[i * size : (i + 1) * size].swapaxes(0, 1), told)
        for i in range(len(latents))
    ]


def latent_nats(
    agent: Agent, params: Params, latents: Latent, again: Latent, seen: Array
) -> tuple[Array, Array, Array]:
    """How surely the model expects its latents, and how right it is, `[W, H]` each, in nats.

    p_h is the prior of z_h in the imagined state `latents` `[W, H, ...]`, which is summed over the latent's
    variables, and p'_h that in a second, independent imagination `again` of the same actions. Given are

    - the entropy of p_h;
    - the cross-entropy of p'_h under p_h: what the model expects to see of its own futures;
    - the cross-entropy of `seen` under p_h, - ln p_h(z_h), where z_h `[W, H, S]` (indices) is the sample of the
      posterior, which has seen the true observations.

    Where the model is calibrated the last is as large as the second, on average over windows: what happens is
    then one more of its own futures. At h = 1, and wherever all futures agree, the second is the entropy itself.
    Later it is larger, also for a perfect model: one future does not know which other one came true.
    """
    rssm = agent.model.rssm
    own, other = (rssm.distribution(rssm.prior.apply(params["rssm"]["prior"], x.deter)) for x in (latents, again))
    return own.entropy(), other.entropy() + other.kl(own), -own.log_prob(seen)
