"""A trained world model as an environment: pure functions of a single dream, to be vmapped and jitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.agent import Agent
from dreamer_agent.dreams.starts import Starts
from dreamer_agent.errors import ConfigError
from dreamer_agent.nets import Params
from dreamer_agent.specs import Specs, is_mask, mask_key
from dreamer_agent.world_model import Actions, Latent
from dreamer_agent.world_model.imagine import imagine_step

if TYPE_CHECKING:
    from dreamer_agent.dreams.gymnasium_envs import DreamEnv, DreamVectorEnv
    from dreamer_agent.envs import Interface

Array = jax.Array
Doubt = Callable[[Params, Latent], Array]  # how little to trust the model at latents [N, ...]: [N]
ENDS = ("sampled", "likely", "never")
SEEN = ("decoded", "latent")


class World(NamedTuple):
    """The arrays of a dream: all parameters but the actor's, and the latents to start from, packed `[S, ...]`."""

    params: Params
    starts: Starts


class Shown(NamedTuple):
    """What is seen of a step: observations by name, the reward, whether the episode ended or is cut by doubt.

    `goes_on` is the predicted probability that it did not, with the discount divided out; `value` the critic's.
    """

    obs: dict[str, Array]
    reward: Array
    terminated: Array
    doubtful: Array
    goes_on: Array
    value: Array
    doubt: Array


@dataclass(frozen=True, eq=False)  # by identity, so that jit can hold it as a static argument
class Dream:
    """The world model of `agent` with `params`, begun at `starts` (`Latent.pack`, `[S, ...]`).

    It is an environment written in JAX itself (`envs.JaxEnv`), so that `Dreamer(dream)` trains in it; `env` and
    `vector_env` give it with gymnasium's API, in the spaces of `spaces`, those of the environment that the model
    was trained on.

    An episode is truncated after `horizon` steps (None: never) and ends by the predicted continue: drawn
    ("sampled"), where an end is likelier than not ("likely"), or "never". `temperature` of the prior: 1 as it was
    trained, 0 its mode. What is seen is "decoded", or the features of the "latent". Where `doubt` is more than
    `most_doubt`, the episode is truncated. Raises `ConfigError` for settings that do not fit.
    """

    agent: Agent
    params: Params
    spaces: Interface
    starts: Starts
    horizon: int | None = 64
    temperature: float = 1.0
    ends: str = "sampled"
    observe: str = "decoded"
    doubt: Doubt | None = None
    most_doubt: float | None = None

    def __post_init__(self) -> None:
        _check(self)

    @cached_property
    def world(self) -> World:
        """The arrays, for functions that take them as arguments."""
        params = {name: value for name, value in self.params.items() if name != "actor"}
        with jax.ensure_compile_time_eval():  # it may first be asked for inside a program
            return jax.tree.map(jnp.asarray, World(params, self.starts))

    # As an environment written in JAX

    @cached_property
    def interface(self) -> Interface:
        """The spaces that are shown."""
        if self.observe == "decoded":
            return self.spaces
        import gymnasium as gym

        size = self.agent.model.rssm.initial(1).features.shape[-1]
        features = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        return type(self.spaces)(features, self.spaces.action_space, self.spaces.masked)

    @property
    def obs_specs(self) -> Specs:
        """The arrays of an observation."""
        return self.interface.obs_specs

    @property
    def act_specs(self) -> Specs:
        """The arrays of an action."""
        return self.agent.model.act_specs

    @property
    def time_limit(self) -> int | None:
        """Steps until truncation."""
        return self.horizon

    def reset(self, key: Array) -> tuple[Latent, dict[str, Array]]:
        """The latent of a start, which is the state, and what is seen there."""
        latent = self.begin(self.world, key)
        return latent, self.seen(self.world.params, latent)

    def step(
        self, key: Array, state: Latent, action: Actions
    ) -> tuple[Latent, dict[str, Array], Array, Array, Array]:
        """`(state, obs, reward, terminated, truncated)` after `action`; the time limit is the caller's."""
        move_key, end_key = jax.random.split(key)
        latent = self.follow(self.world.params, move_key, state, action)
        shown = self.show(self.world.params, end_key, latent)
        return latent, shown.obs, shown.reward, shown.terminated, shown.doubtful

    # Its parts, with the arrays as arguments; no leading axis

    def begin(self, world: World, key: Array) -> Latent:
        """One of the starts."""
        count = len(world.starts["stoch"])
        stored = jax.tree.map(lambda x: x[jax.random.randint(key, (), 0, count)], world.starts)
        return self.agent.model.rssm.kind.unpack(stored, self.agent.model.dtype)

    def follow(self, params: Params, key: Array, latent: Latent, action: Actions) -> Latent:
        """The next latent: `imagine_step` of one row."""
        row, actions = _batch((latent, action))
        return _row(imagine_step(self.agent.model, params, key, row, actions, self.temperature))

    def perceive(
        self, params: Params, key: Array, latent: Latent, action: Actions, obs: dict[str, Array], is_first: Array
    ) -> Latent:
        """The latent after an observation that was not imagined."""
        row, actions, given, first = _batch((latent, action, obs, is_first))
        return _row(self.agent.model.observe_step(params, key, row, actions, given, first))

    def seen(self, params: Params, latent: Latent) -> dict[str, Array]:
        """What is observed there, by name; masks are the actions that are probably legal."""
        model, row = self.agent.model, _batch(latent)
        if self.observe == "latent":
            obs = {name: row.features.astype(jnp.float32) for name in self.obs_specs if not is_mask(name)}
        else:
            obs = {name: one.mode() for name, one in model.reconstruct(params, row).items() if not is_mask(name)}
        legal = model.imagined_legal(params, row.features) or {}
        masks = {mask_key(name): on.astype(jnp.int32) for name, on in legal.items()}
        return _row(obs | {name: mask for name, mask in masks.items() if name in self.obs_specs})

    def show(self, params: Params, key: Array, latent: Latent) -> Shown:
        """All of a step that led to `latent`; `key` draws whether the episode ended."""
        model, row = self.agent.model, _batch(latent)
        features = row.features
        goes_on = self.goes_on(model.predict_continue(params, features).prob())
        doubt = jnp.zeros(1) if self.doubt is None else self.doubt(params, row)
        limit = jnp.inf if self.most_doubt is None else self.most_doubt
        shown = Shown(
            obs={}, reward=model.predict_reward(params, features).mean(), terminated=self.ended(key, goes_on),
            doubtful=doubt > limit, goes_on=goes_on,
            value=self.agent.nets.value(params["critic"], features).mean(), doubt=doubt,
        )  # fmt: skip
        return _row(shown)._replace(obs=self.seen(params, latent))

    def goes_on(self, predicted: Array) -> Array:
        """The probability that an episode goes on, from the predicted continue, which holds the discount (V3)."""
        gamma = 1 - 1 / self.agent.config.behaviour.discount_horizon
        return jnp.clip(predicted / gamma, 0.0, 1.0)

    def ended(self, key: Array, goes_on: Array) -> Array:
        """Whether the episode ended, drawn or decided as `ends` says."""
        if self.ends == "never":
            return jnp.zeros(goes_on.shape, bool)
        level = jax.random.uniform(key, goes_on.shape) if self.ends == "sampled" else 0.5
        return level >= goes_on

    # With gymnasium's API

    def env(self, render_mode: str | None = None) -> DreamEnv:
        """As a `gymnasium.Env`."""
        from dreamer_agent.dreams.gymnasium_envs import DreamEnv

        return DreamEnv(self, render_mode)

    def vector_env(self, num_envs: int, **settings: Any) -> DreamVectorEnv:
        """As a `gymnasium.vector.VectorEnv` of `num_envs` dreams, which are one program; see `DreamVectorEnv`."""
        from dreamer_agent.dreams.gymnasium_envs import DreamVectorEnv

        return DreamVectorEnv(self, num_envs, **settings)


def _check(dream: Dream) -> None:
    """Raise `ConfigError` for settings that do not fit."""
    if dream.horizon is not None and not dream.horizon >= 1:
        raise ConfigError(
            f"horizon={dream.horizon} was asked for: give at least 1, or None for dreams without end."
        )
    if not dream.temperature >= 0:
        raise ConfigError(f"temperature={dream.temperature} was asked for: give 0 or more.")
    for name, known in (("ends", ENDS), ("observe", SEEN)):
        if getattr(dream, name) not in known:
            raise ConfigError(f"{name}={getattr(dream, name)!r} was asked for: choose {', '.join(known)}.")
    if dream.most_doubt is not None and dream.doubt is None:
        raise ConfigError(
            f"most_doubt={dream.most_doubt} was asked for, but this model has no measure of doubt: give one, "
            "doubt=function(params, latent)."
        )
    if not len(dream.starts["stoch"]):
        raise ConfigError("A dream has nothing to start from: give at least one latent.")


def _batch(tree: Any) -> Any:
    """A batch of one row."""
    return jax.tree.map(lambda x: jnp.asarray(x)[None], tree)


def _row(tree: Any) -> Any:
    """The row of a batch of one."""
    return jax.tree.map(lambda x: x[0], tree)
