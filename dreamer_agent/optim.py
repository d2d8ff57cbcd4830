"""LaProp behind adaptive gradient clipping, from optax parts (V3, appendix on optimisation).

The learning rate is not part of the chain: it enters `update` as data, so that a population can vary it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from dreamer_agent.config import OptimizerConfig

Array = jax.Array


def clip_per_tensor(clip: float, min_norm: float = 1e-3) -> optax.GradientTransformation:
    """g / max(1, |g| / (clip max(min_norm, |p|))) with the norms of whole tensors.

    Adaptive gradient clipping (Brock et al., arXiv 2102.06171) by tensor; optax's `adaptive_grad_clip`
    works by output unit.
    """

    def scale(gradient: Array, parameter: Array) -> Array:
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


def warmed_up(learning_rate: Array, warmup: Array, step: Array) -> Array:
    """The learning rate at update `step` (from 0): linear from zero over `warmup` updates, if any."""
    return learning_rate * jnp.where(step < warmup, step / jnp.maximum(warmup, 1.0), 1.0)


def average_weight(updates: Array, step: Array) -> Array:
    """What the parameters after update `step` (from 0) weigh in their moving average: 1 / `updates`.

    More at first, 1 / (1 + step / 10): the average is over the last tenth of all updates while that is fewer, so
    that what is still being learned is not mixed with how it began.
    """
    return 1.0 / jnp.clip(1.0 + step / 10.0, 1.0, jnp.maximum(updates, 1.0))
