"""Asking a trained agent for actions, from NumPy to NumPy, in the conventions of recurrent policies that
stable-baselines3 made common.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.agent import ActState, Agent
from dreamer_agent.envs.interface import Interface
from dreamer_agent.envs.masks import Masks, masks_in_obs
from dreamer_agent.errors import EnvironmentFault, SpaceError
from dreamer_agent.nets import Params
from dreamer_agent.specs import is_mask, mask_key
from dreamer_agent.world_model import LegalActions


class PolicyState(NamedTuple):
    """What `predict` hands out: the agent's memory of each row, and the calls since state=None."""

    carry: ActState
    steps: int


class Policy:
    """The policy of `agent`; random numbers depend on `seed` and on how many sampled predictions came before."""

    def __init__(self, agent: Agent, interface: Interface, seed: int = 0):
        self.agent, self.interface = agent, interface
        self.key, self.calls = jax.random.PRNGKey(seed), 0

    def predict(
        self, params: Params, observation: Any, state: Any = None, episode_start: Any = None,
        deterministic: bool = False, action_masks: Any = None,
    ) -> tuple[Any, Any]:  # fmt: skip
        """See `Dreamer.predict`."""
        batched = self._is_batched(observation)
        if not batched:
            observation = _map(self.interface.observation_space, lambda _, value: _one(value), observation)
            action_masks = None if action_masks is None else [action_masks]
        count = self._count(observation)
        first = np.zeros(count, bool) if episode_start is None else np.asarray(episode_start, bool).reshape(-1)
        carry, steps = (self.agent.init_act(count), 0) if state is None else state
        if state is None:
            first = np.ones(count, bool)
        if len(first) != count or len(carry.latent.deter) != count:
            raise SpaceError(
                f"There are {count} observations, {len(first)} episode starts and {len(carry.latent.deter)} "
                "states: give as many of each, or state=None for a new episode."
            )
        obs, legal = self._encode(observation, count, action_masks)
        carry = self._with_plan(carry, count)
        acting = {key: params[key] for key in self.agent.acting}
        # The latent is sampled even where the action is not: from the same state with the same numbers, so that
        # the same input gives the same action.
        counter = np.uint32(steps if deterministic else self.calls)
        self.calls += not deterministic
        key = jax.random.fold_in(self.key, np.uint32(deterministic))
        explore = np.bool_(not deterministic and self.agent.planner is None)
        new = _act(self.agent, acting, key, counter, carry, obs, first, explore, legal)
        new = jax.tree.map(np.asarray, new)
        action = self.interface.actions.decode(new.action)
        if not batched:
            action = _map(self.interface.action_space, lambda _, value: value[0], action)
        return action, PolicyState(new, steps + 1)

    def _with_plan(self, carry: ActState, count: int) -> ActState:
        """`carry` with a plan as this planner makes them: that of another planner, or of none, is forgotten."""
        begun = self.agent.init_act(count).plan
        same = jax.tree.map(np.shape, begun) == jax.tree.map(np.shape, carry.plan)
        return carry if same else carry._replace(plan=begun)

    def _encode(self, observation: Any, count: int, masks: Any) -> tuple[dict[str, np.ndarray], LegalActions]:
        """Named arrays of the observation, and the legal actions."""
        spaces = self.interface
        if masks is None and spaces.masked:
            masks = masks_in_obs(observation)
            if masks is None:
                raise SpaceError(
                    "This agent was trained with action masks: pass the mask that came with the observation, "
                    "action_masks=info['action_mask']."
                )
        try:
            obs = spaces.observations.encode(observation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise SpaceError(
                f"The observation does not fit {spaces.observation_space} ({type(error).__name__}: {error}): "
                "give one observation of this space, or a batch of them."
            ) from error
        legal: LegalActions = None
        if masks is not None:
            encoded: Masks = spaces.masks.encode(list(masks))
            legal = {
                key: jnp.asarray(encoded[mask_key(key)] > 0)
                for key in spaces.act_specs
                if mask_key(key) in encoded
            }
            obs |= encoded if spaces.masked else {}
        for key, value in obs.items():
            shape = (count, *spaces.obs_specs[key].shape)
            if value.shape != shape:
                raise SpaceError(f"The observation '{key}' should have the shape {shape}, got {value.shape}.")
            if not np.isfinite(value).all():
                raise EnvironmentFault(f"The observation '{key}' holds NaN or infinity; expected finite numbers.")
        return obs, legal

    def _is_batched(self, observation: Any) -> bool:
        """Whether the first member of the observation has one axis more than its space."""
        value, space = _first(observation, self.interface.observation_space)
        if isinstance(space, gym.spaces.Text):
            return not isinstance(value, str)
        shape = np.shape(value)
        expected = tuple(space.shape or ())
        if shape == expected:
            return False
        if shape[1:] == expected and len(shape) == len(expected) + 1:
            return True
        raise SpaceError(
            f"The observation has the shape {shape}, but the agent was trained on {space.shape}: give one "
            "observation of this shape, or a batch of them."
        )

    def _count(self, observation: Any) -> int:
        return len(_first(observation, self.interface.observation_space)[0])


def _first(value: Any, space: gym.Space) -> tuple[Any, gym.Space]:
    """The first member without members, with its space."""
    while isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        key: Any = 0
        if isinstance(space, gym.spaces.Dict):  # a mask may come apart from the observation
            key = next((name for name in space.spaces if not is_mask(name)), next(iter(space.spaces)))
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError) as error:
            raise SpaceError(f"The observation lacks '{key}': it should be nested like {space}.") from error
        space = space.spaces[key]
    return value, space


def _map(space: gym.Space, function: Any, value: Any) -> Any:
    """`function(space, value)` on every member without members; members of no space are dropped."""
    if isinstance(space, gym.spaces.Dict):
        return {key: _map(member, function, value[key]) for key, member in space.spaces.items() if key in value}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_map(member, function, item) for member, item in zip(space.spaces, value, strict=False))
    return function(space, value)


def _one(value: Any) -> Any:
    """A batch of one."""
    return (value,) if isinstance(value, str) else np.asarray(value)[None]


@partial(jax.jit, static_argnums=0)
def _act(
    agent: Agent, params: Params, key: Any, counter: Any, carry: ActState, obs: Any, is_first: Any, explore: Any,
    legal: LegalActions,
) -> ActState:  # fmt: skip
    return agent.act(params, jax.random.fold_in(key, counter), carry, obs, is_first, explore, legal)
