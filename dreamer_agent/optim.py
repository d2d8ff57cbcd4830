"""LaProp behind adaptive gradient clipping (V3, appendix on optimisation), or three Adams (V1, V2): optax parts.

The learning rate is not part of the chain: it enters `update` as data, so that a population can vary it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from dreamer_agent.config import Config, OptimizerConfig

Array = jax.Array
GROUPS = ("model", "actor", "critic")


def group_of(name: str, apart: tuple[str, ...] = ()) -> str:
    """The one of `GROUPS` that the network `name` is part of; those `apart` are their own."""
    return name if name in (*GROUPS, *apart) else "model"


def apart(config: Config) -> tuple[str, ...]:
    """The networks that the model and the policy learn nothing from."""
    there = {
        "decoder": config.model.decoder_free,
        "ensemble": config.model.ensemble,
        "explorer_actor": config.behaviour.explore_steps,
        "explorer_critic": config.behaviour.explore_steps,
    }
    return tuple(name for name, wanted in there.items() if wanted)


def make_optimizer(config: OptimizerConfig, apart: tuple[str, ...] = ()) -> optax.GradientTransformation:
    """The one that `config.name` names; it gives the direction of descent with unit learning rate.

    The networks `apart` share no clip with others: how large their gradients are says nothing to these.
    """
    return three_adams(config, apart) if config.name == "adam" else laprop(config)


def clip_per_tensor(clip: float, min_norm: float = 1e-3) -> optax.GradientTransformation:
    """g / max(1, |g| / (clip max(min_norm, |p|))) with the norms of whole tensors.

    Adaptive gradient clipping (Brock et al., arXiv 2102.06171) by tensor; optax's `adaptive_grad_clip`
    works by output unit. Scalars, the learned scales of losses, pass: their size means nothing.
    """

    def scale(gradient: Array, parameter: Array) -> Array:
        if parameter.ndim == 0:
            return gradient
        limit = clip * jnp.maximum(min_norm, jnp.linalg.norm(parameter.ravel()))
        return gradient / jnp.maximum(1.0, jnp.linalg.norm(gradient.ravel()) / limit)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("clip_per_tensor compares with the parameters: hand them to update().")
        return jax.tree.map(scale, gradients, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def laprop(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clip, divide by the RMS, then average (Ziyin et al., arXiv 2002.04839); both bias-corrected.

    Gives the direction of descent with unit learning rate: `params - lr * updates`.
    """
    return optax.chain(
        clip_per_tensor(config.clip),
        optax.scale_by_rms(config.beta2, config.eps, eps_in_sqrt=False, bias_correction=True),
        optax.ema(config.beta1, debias=True),
    )


def three_adams(config: OptimizerConfig, apart: tuple[str, ...] = ()) -> optax.GradientTransformation:
    """An Adam for each of `GROUPS`, behind a clip of the norm of all gradients of that group (V1, V2).

    So have the networks `apart`.
    """

    def adam() -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(config.clip),
            optax.scale_by_adam(config.beta1, config.beta2, config.eps),
        )

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: group_of(path[0].key, apart), params)

    return optax.partition({group: adam() for group in (*GROUPS, *apart)}, labels)


def descend(config: OptimizerConfig, params: Any, updates: Any, rate: Array, warmup: Array, step: Array) -> Any:
    """`params - rate * updates`, at the learning rates that actor and critic have of their own, if any.

    These are warmed up, too. Weight decay takes its share of the parameters as they were, whatever the rate (V2).
    """
    own = {"actor": config.actor_learning_rate, "critic": config.critic_learning_rate}
    own |= {f"explorer_{name}": rate for name, rate in own.items()}

    def moved(name: str) -> Any:
        pace = warmed_up(jnp.float32(own[name]), warmup, step) if own.get(name) else rate
        decay = config.weight_decay
        return jax.tree.map(
            lambda p, u: p - pace * u - decay * p if decay else p - pace * u, params[name], updates[name]
        )

    return {name: moved(name) for name in sorted(params)}


def slow_rate(rate: Array, every: int, step: Array) -> Array:
    """How far the slow critic goes after update `step` (from 0): `rate` in the first of every `every` updates."""
    return rate if every == 1 else jnp.where(step % every == 0, rate, 0.0)


def warmed_up(learning_rate: Array, warmup: Array, step: Array) -> Array:
    """The learning rate at update `step` (from 0): linear from zero over `warmup` updates, if any."""
    return learning_rate * jnp.where(step < warmup, step / jnp.maximum(warmup, 1.0), 1.0)


def average_weight(updates: Array, step: Array) -> Array:
    """What the parameters after update `step` (from 0) weigh in their moving average: 1 / `updates`.

    More at first, 1 / (1 + step / 10): the average is over the last tenth of all updates while that is fewer, so
    that what is still being learned is not mixed with how it began.
    """
    return 1.0 / jnp.clip(1.0 + step / 10.0, 1.0, jnp.maximum(updates, 1.0))
