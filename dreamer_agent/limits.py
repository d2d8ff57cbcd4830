"""Which values of a configuration are in range and fit together."""

from __future__ import annotations

import math
from typing import Any

from dreamer_agent.errors import ConfigError


def check_limits(config: Any) -> None:
    """Raise a `ConfigError` that names the field where a value of `config` is out of range or unfit."""
    for check in (_check_sizes, _check_shares, _check_model, _check_exploring, _check_env, _check_replay):
        check(config)


def _check_sizes(config: Any) -> None:
    model, replay = config.model, config.replay
    positive = {
        "env.num_envs": config.env.num_envs,
        "env.action_repeat": config.env.action_repeat,
        "env.timeout": config.env.timeout,
        "env.max_faults": config.env.max_faults + 1,
        "replay.batch_size": replay.batch_size,
        "replay.batch_length": replay.batch_length - 1,
        "replay.ratio": replay.ratio,
        "behaviour.imagination_horizon": config.behaviour.imagination_horizon,
        "behaviour.discount_horizon": config.behaviour.discount_horizon - 1,
        "behaviour.slow_critic_every": config.behaviour.slow_critic_every,
        "train.steps": config.train.steps,
        "train.log_every": config.train.log_every,
        "train.checkpoint_every": config.train.checkpoint_every,
        "train.keep_checkpoints": config.train.keep_checkpoints,
        "train.updates_per_dispatch": config.train.updates_per_dispatch + 1,
        "train.max_skipped": config.train.max_skipped,
        "train.eval_episodes": config.train.eval_episodes,
        "train.eval_envs": config.train.eval_envs,
        "train.eval_max_length": config.train.eval_max_length,
        **{f"model.{name}": getattr(model, name) for name in ("deter", "hidden", "units", "depth", "stoch")},
    }
    for name, value in positive.items():
        if value <= 0:
            raise ConfigError(f"'{name}' is too small: raise it.")


def _check_shares(config: Any) -> None:
    model = config.model
    shares = {
        "model.unimix": model.unimix,
        "model.policy_unimix": model.policy_unimix,
        "behaviour.actor_mix": config.behaviour.actor_mix,
        "optimizer.weight_decay": config.optimizer.weight_decay,
    }
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ConfigError(f"{name}={share:g} is a share: it should be at least 0 and less than 1.")
    if config.behaviour.action_noise < 0:
        raise ConfigError(f"behaviour.action_noise={config.behaviour.action_noise:g} should be at least 0.")


def _check_model(config: Any) -> None:
    model = config.model
    if not model.probe and not model.decoder_free:
        raise ConfigError(
            "model.probe=false leaves out the decoder, which this model learns from: set model.decoder_free=true "
            "as well."
        )
    if model.bins < 3 or model.bins % 2 == 0:
        raise ConfigError(f"model.bins={model.bins} should be odd and at least 3, so that one bin is zero.")
    if model.deter % model.blocks and (model.cell == "block_gru" or model.convs == "pooled"):
        raise ConfigError(f"model.deter={model.deter} should be a multiple of model.blocks={model.blocks}.")
    if not 2 <= model.classes <= 256:
        raise ConfigError(f"model.classes={model.classes} should lie between 2 and 256.")


def _check_exploring(config: Any) -> None:
    model = config.model
    if model.ensemble < 0 or model.ensemble == 1:
        raise ConfigError(
            f"model.ensemble={model.ensemble} cannot disagree: set it to at least 2 (8 is usual), or 0 for none."
        )
    if config.behaviour.explore_steps < 0:
        raise ConfigError(f"behaviour.explore_steps={config.behaviour.explore_steps} should be at least 0.")
    if not math.isfinite(config.behaviour.explore_reward):
        raise ConfigError(f"behaviour.explore_reward={config.behaviour.explore_reward} should be a number.")
    if config.behaviour.explore_steps and not model.ensemble:
        raise ConfigError(
            f"behaviour.explore_steps={config.behaviour.explore_steps} goes after what the model does not know, "
            "which takes an ensemble to tell: set model.ensemble=8 as well."
        )
    if config.behaviour.explore_steps and config.behaviour.planner:
        raise ConfigError(
            f"behaviour.explore_steps has an explorer collect, behaviour.planner={config.behaviour.planner} a "
            "planner: leave one of them out."
        )


def _check_env(config: Any) -> None:
    if config.env.processes < 0:
        raise ConfigError(
            f"env.processes={config.env.processes} should be how many processes the environments are spread "
            "over: set it to the number of cores that they may take, or to 0 to step them in the run's own."
        )
    if config.env.ray and not config.env.processes:
        raise ConfigError(
            f"env.ray={config.env.ray} spreads processes over machines, but env.processes is 0: set it to how "
            "many there should be."
        )


def _check_replay(config: Any) -> None:
    replay = config.replay
    if replay.capacity < config.env.num_envs * (replay.batch_length + 2):
        raise ConfigError(
            f"replay.capacity={replay.capacity} holds no sequence of {replay.batch_length} steps for each "
            f"of {config.env.num_envs} environments: raise it to at least "
            f"{config.env.num_envs * (replay.batch_length + 2)}."
        )
