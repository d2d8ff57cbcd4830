"""Dreams side by side as one jitted program, between NumPy arrays in the spaces of a user."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.error import ResetNeeded

from dreamer_agent.dreams.environment import Dream, Shown, World
from dreamer_agent.envs.arrays import from_arrays, to_arrays
from dreamer_agent.errors import ConfigError, SpaceError
from dreamer_agent.nets import Params
from dreamer_agent.specs import is_mask
from dreamer_agent.world_model import Actions, Latent, zero_actions

Array = jax.Array


class Dreaming(NamedTuple):
    """Dreams between two steps, `[N, ...]`; `time` counts the steps of the episode."""

    key: Array
    latent: Latent
    time: Array


class Dreams:
    """`count` dreams, and their values as the user sees them; row i depends on key i alone."""

    def __init__(self, dream: Dream, count: int):
        if count < 1:
            raise ConfigError(f"{count} dreams were asked for: ask for at least one.")
        self.dream, self.count = dream, count
        self.state: Dreaming | None = None

    def seed(self, number: int) -> None:
        """Make everything that follows depend on `number` alone."""
        self.state = _fresh(self.dream, self.count, np.uint32(number))

    def restart(self) -> Shown:
        """Begin all anew; what is seen, as NumPy arrays."""
        actions = {name: np.asarray(x) for name, x in zero_actions(self.dream.act_specs, (self.count,)).items()}
        return self._advanced(np.ones(self.count, bool), actions)[0]

    def restart_some(self, some: np.ndarray) -> Shown:
        """Begin those of `some` `[N]` anew, while the others stay where they are; what is seen of all."""
        self.state, shown = _begin(self.dream, self.dream.world, self._started("reset"), some)
        return jax.device_get(shown)

    def step(self, actions: Any, done: np.ndarray) -> tuple[Shown, np.ndarray]:
        """Follow `actions` of the space, or begin anew where `done`; what is seen, and which are truncated."""
        self._started("step")
        named = self.dream.interface.actions.encode(actions)
        if any(len(value) != self.count for value in named.values()):
            raise SpaceError(f"{len(next(iter(named.values())))} actions were given for {self.count} dreams.")
        return self._advanced(done, named)

    def continue_from(self, context: dict[str, Any]) -> Shown:
        """Begin all where what was observed, and done, in `context` leads; see `DreamEnv.reset`."""
        obs, actions = self._read(context)
        state, params = self._started("reset"), self.dream.world.params
        for index in range(len(next(iter(obs.values())))):
            given = jax.tree.map(lambda x, i=index: np.repeat(x[i][None], self.count, 0), (obs, actions))
            state = _perceive(self.dream, params, state, *given, np.bool_(index == 0))
        self.state = state
        return jax.device_get(_look(self.dream, params, state))

    def observations(self, shown: Shown) -> Any:
        """What is seen as a batch of the observation space."""
        return self.dream.interface.observations.decode(shown.obs)

    def predictions(self, shown: Shown) -> dict[str, np.ndarray]:
        """What else is known, `[N]` each: the probability that the episode goes on, the value, perhaps doubt."""
        out = {"continue": shown.goes_on, "value": shown.value}
        if self.dream.doubt is not None:
            out["doubt"] = shown.doubt
        return {name: np.array(value, np.float32) for name, value in out.items()}

    def masks(self, shown: Shown) -> dict[str, np.ndarray]:
        """The legal actions by the names of their masks, where they belong in the info."""
        interface = self.dream.interface
        if not interface.masked or interface.masks_observed:
            return {}
        return {name: np.array(value, np.int8) for name, value in shown.obs.items() if is_mask(name)}

    def frames(self) -> np.ndarray:
        """What the model pictures, `[N, H, W, 3]` uint8."""
        return np.array(_picture(self.dream, self.dream.world.params, self._started("render").latent))

    def save(self) -> dict[str, np.ndarray]:
        """All that the next steps depend on."""
        return to_arrays(self._started("get_state"))

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """The inverse of `save`."""
        template = jax.eval_shape(partial(_fresh, self.dream, self.count), np.uint32(0))
        self.state = from_arrays(template, saved)

    def _started(self, what: str) -> Dreaming:
        if self.state is None:
            raise ResetNeeded(f"Call reset() before {what}().")
        return self.state

    def _advanced(self, done: np.ndarray, actions: dict[str, np.ndarray]) -> tuple[Shown, np.ndarray]:
        self.state, out = _advance(self.dream, self.dream.world, self.state, done, actions)
        return jax.device_get(out)

    def _read(self, context: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Observations `[T, ...]`, and as many actions, each the one before it: of the first there is none."""
        spaces = self.dream.spaces
        try:
            count = len(jax.tree.leaves(context["observations"])[0])
            obs = spaces.encode(context["observations"], count, context.get("action_masks"))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise SpaceError(
                f"The observations to begin from do not fit {spaces.observation_space} "
                f"({type(error).__name__}: {error}): give a batch [T, ...] of them."
            ) from error
        for name, value in obs.items():
            if value.shape != (count, *spaces.obs_specs[name].shape) or not count:
                raise SpaceError(
                    f"The observation '{name}' to begin from has the shape {value.shape}: give a batch [T, ...] "
                    f"of {spaces.observation_space}."
                )
        given = spaces.actions.encode(context["actions"]) if "actions" in context else {}
        between = len(next(iter(given.values()))) if given else 0
        if between != count - 1:
            raise SpaceError(
                f"{count} observations and {between} actions were given to begin from: give the {count - 1} "
                "actions between them."
            )
        none = {name: np.asarray(x) for name, x in zero_actions(spaces.act_specs, (1,)).items()}
        return obs, {name: np.concatenate([none[name], *([given[name]] if given else [])]) for name in none}


def image_key(dream: Dream) -> str | None:
    """The first image that the model observes; None where it observes none."""
    return next((name for name, spec in dream.agent.model.obs_specs.items() if spec.kind == "image"), None)


@partial(jax.jit, static_argnums=(0, 1))
def _fresh(dream: Dream, count: int, number: Array) -> Dreaming:
    """Nothing dreamed yet, with the keys of `number`."""
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.PRNGKey(number)))(jnp.arange(count))
    return Dreaming(keys, dream.agent.model.rssm.initial(count), jnp.zeros(count, jnp.int32))


@partial(jax.jit, static_argnums=0)
def _advance(
    dream: Dream, world: World, state: Dreaming, done: Array, actions: Actions
) -> tuple[Dreaming, tuple[Shown, Array]]:
    """A step, or a start where `done`; what is seen, and which are truncated."""

    def row(
        key: Array, old: Latent, time: Array, done: Array, action: Actions
    ) -> tuple[Dreaming, tuple[Shown, Array]]:
        key, start_key, move_key, end_key = jax.random.split(key, 4)
        begun, moved = dream.begin(world, start_key), dream.follow(world.params, move_key, old, action)
        latent = jax.tree.map(lambda a, b: jnp.where(done, a, b), begun, moved)
        shown = dream.show(world.params, end_key, latent)
        time = jnp.where(done, 0, time + 1)
        late = False if dream.horizon is None else time >= dream.horizon
        shown = shown._replace(reward=jnp.where(done, 0.0, shown.reward), terminated=shown.terminated & ~done)
        return Dreaming(key, latent, time), (shown, (late | shown.doubtful) & ~shown.terminated & ~done)

    return jax.vmap(row)(*state, done, actions)


@partial(jax.jit, static_argnums=0)
def _begin(dream: Dream, world: World, state: Dreaming, some: Array) -> tuple[Dreaming, Shown]:
    """A start where `some`, with the keys that `_advance` would take; what is seen, without reward or end."""

    def row(key: Array, old: Latent, time: Array, some: Array) -> tuple[Dreaming, Shown]:
        later, start_key, _, end_key = jax.random.split(key, 4)
        new = Dreaming(later, dream.begin(world, start_key), jnp.zeros_like(time))
        state = jax.tree.map(lambda a, b: jnp.where(some, a, b), new, Dreaming(key, old, time))
        return state, _unmoved(dream.show(world.params, end_key, state.latent))

    return jax.vmap(row)(*state, some)


@partial(jax.jit, static_argnums=0)
def _perceive(
    dream: Dream, params: Params, state: Dreaming, obs: dict[str, Array], actions: Actions, is_first: Array
) -> Dreaming:
    def row(key: Array, latent: Latent, obs: dict[str, Array], action: Actions) -> tuple[Array, Latent]:
        key, own = jax.random.split(key)
        return key, dream.perceive(params, own, latent, action, obs, is_first)

    key, latent = jax.vmap(row)(state.key, state.latent, obs, actions)
    return Dreaming(key, latent, jnp.zeros_like(state.time))


@partial(jax.jit, static_argnums=0)
def _look(dream: Dream, params: Params, state: Dreaming) -> Shown:
    """What is seen where no step was imagined."""
    return _unmoved(jax.vmap(partial(dream.show, params))(state.key, state.latent))


def _unmoved(shown: Shown) -> Shown:
    """Without reward or end."""
    return shown._replace(reward=jnp.zeros_like(shown.reward), terminated=jnp.zeros_like(shown.terminated))


@partial(jax.jit, static_argnums=0)
def _picture(dream: Dream, params: Params, latent: Latent) -> Array:
    """The first image, with three channels: the last three of several, one three times."""
    name = image_key(dream)
    assert name is not None
    image = dream.agent.model.reconstruct(params, latent)[name].mode()
    return image[..., -3:] if image.shape[-1] >= 3 else jnp.repeat(image[..., -1:], 3, -1)
