"""gymnasium environments as a `VectorEnv`: the only place where autoreset modes are interpreted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs.checked import CheckedEnv
from dreamer_agent.envs.episode_numbers import EpisodeNumbers
from dreamer_agent.envs.interface import Interface, check_repeat
from dreamer_agent.envs.masks import masks_in_info
from dreamer_agent.envs.plain import pack, unpack
from dreamer_agent.envs.processes import spread
from dreamer_agent.envs.protocol import LARGEST_REWARD, Actions, Rows
from dreamer_agent.envs.resilient import ResilientVectorEnv
from dreamer_agent.envs.slots import LocalSlot, Slot
from dreamer_agent.envs.state import answers
from dreamer_agent.envs.worker import TWICE
from dreamer_agent.errors import ConfigError, EnvironmentFault


class GymnasiumEnv:
    """A gymnasium vector environment of any autoreset mode.

    Whether it masks actions is seen from its observation space, or from the info of a first reset, made here.
    `wishes` overrides how observations enter (see `routing`).
    """

    def __init__(self, env: gym.vector.VectorEnv, wishes: Mapping[str, str] | None = None):
        self.env = env
        self.num_envs = env.num_envs
        self.mode = env.metadata.get("autoreset_mode")
        if self.mode is None:
            warnings.warn(
                f"{type(env.unwrapped).__name__} does not say when it resets: it is taken to do so at the step "
                "after an end (set its metadata['autoreset_mode'] to what it does).",
                stacklevel=2,
            )
            self.mode = AutoresetMode.NEXT_STEP
        spaces = env.single_observation_space, env.single_action_space
        plain = Interface(*spaces, wishes=wishes or {})
        masked = plain.masks_observed
        if (
            plain.obs_specs and not masked and plain.masks.specs
        ):  # the specs first: their errors come before a reset
            masked = masks_in_info(env.reset(seed=0)[1], self.num_envs) is not None
        self.interface = Interface(*spaces, masked, wishes or {})
        self.obs_specs, self.act_specs = self.interface.obs_specs, self.interface.act_specs
        self.numbers = EpisodeNumbers(self.num_envs)
        self.done = np.zeros(self.num_envs, bool)

    def reset(self, seed: int) -> list[Rows]:
        """Start all environments, each with a seed of its own."""
        obs, info = self.env.reset(seed=seed)
        self.done = np.zeros(self.num_envs, bool)
        return [self._first_rows(obs, info, None)]

    def step(self, actions: Actions) -> list[Rows]:
        """Step all environments; see `VectorEnv.step`."""
        result = self.env.step(self.interface.actions.decode(actions))
        obs, reward, terminated, truncated, info = result
        terminated, truncated = np.asarray(terminated, bool), np.asarray(truncated, bool)
        if self.mode == AutoresetMode.NEXT_STEP:
            if "final_obs" in info or "final_observation" in info:
                raise EnvironmentFault(
                    "A vector environment that should reset at the step after an end gave info['final_obs'], "
                    "so it resets at once: set its metadata['autoreset_mode'] to AutoresetMode.SAME_STEP."
                )
            # After an end, the next call ignores the action and gives the first row of the new episode.
            rows = self._rows(obs, info, reward, terminated, truncated, is_first=self.done)
            self.done = rows.is_last
            return [rows]
        done = terminated | truncated
        if not done.any():
            return [self._rows(obs, info, reward, terminated, truncated)]
        if self.mode == AutoresetMode.SAME_STEP:
            if "final_obs" not in info:
                raise EnvironmentFault(
                    "A vector environment that resets in the same step should give the last observations in "
                    "info['final_obs']: mend it, or set its metadata['autoreset_mode'] to what it does."
                )
            final = _final_obs(obs, info["final_obs"], done)
            last = self._rows(final, info, reward, terminated, truncated)
        else:
            last = self._rows(obs, info, reward, terminated, truncated)
            obs, info = self.env.reset(options={"reset_mask": done})
        return [last, self._first_rows(obs, info, done)]

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    @property
    def faults(self) -> int:
        """How many faults were mended by a restart; 0 for a vector environment that does not count them."""
        return getattr(self.env, "faults", 0)

    @property
    def last_fault(self) -> str:
        """Which environment failed last, and how; "" if none did."""
        return getattr(self.env, "last_fault", "")

    def get_state(self) -> dict[str, Any] | None:
        """See `VectorEnv`; of a given vector environment if it has `get_state` and `set_state` itself."""
        if isinstance(self.env, ResilientVectorEnv):
            state = self.env.get_state()
        else:
            state = None if self.why_no_state() else pack(self.env.get_state())  # type: ignore[attr-defined]
        return None if state is None else {"vector": state, "done": np.array(self.done)}

    def set_state(self, state: dict[str, Any]) -> None:
        """See `VectorEnv`."""
        own = not isinstance(self.env, ResilientVectorEnv)
        self.env.set_state(unpack(state["vector"]) if own else state["vector"])  # type: ignore[attr-defined]
        self.done = np.array(state["done"])

    @property
    def not_restored(self) -> list[str]:
        """Why environments do not go on from the state that was set: their episodes are cut."""
        return getattr(self.env, "not_restored", [])

    def why_no_state(self) -> str | None:
        """See `VectorEnv`."""
        if isinstance(self.env, ResilientVectorEnv):
            return self.env.why_no_state()
        name = f"the vector environment {type(self.env).__name__}"
        if not answers(self.env):
            return name
        try:
            pack(self.env.get_state())  # type: ignore[attr-defined]
        except Exception as error:
            return f"{name}, whose get_state() failed with {type(error).__name__}: {error}"
        return None

    def _rows(
        self, obs: Any, info: dict, reward: Any, terminated: np.ndarray, truncated: np.ndarray,
        is_first: np.ndarray | None = None,
    ) -> Rows:  # fmt: skip
        first = np.zeros(self.num_envs, bool) if is_first is None else is_first
        last = terminated | truncated
        encoded = self._encode(obs, info, last)
        reward = np.asarray(reward, np.float64)
        if not np.isfinite(reward).all():
            raise EnvironmentFault(f"The environments gave the rewards {reward}; expected finite numbers.")
        reward = np.clip(reward, -LARGEST_REWARD, LARGEST_REWARD).astype(np.float32)
        return Rows(encoded, reward, first, last, np.array(terminated), numbers=self._numbers(info, last))

    def _first_rows(self, obs: Any, info: dict, mask: np.ndarray | None) -> Rows:
        zeros = np.zeros(self.num_envs, bool)
        first = ~zeros if mask is None else mask
        return Rows(self._encode(obs, info, ~first), zeros.astype(np.float32), first, zeros, zeros, mask)

    def _numbers(self, info: dict, last: np.ndarray) -> dict[str, np.ndarray] | None:
        """What is reported of the episodes that end."""
        if not last.any():
            return None
        own = info.get("final_info", {}) if self.mode == AutoresetMode.SAME_STEP else info
        return self.numbers.read(own, last)

    def _encode(self, obs: Any, info: dict, last: np.ndarray) -> dict[str, np.ndarray]:
        masks = None if self.interface.masks_observed else self._info_masks(info, last)
        encoded = self.interface.encode(obs, self.num_envs, masks, last)
        for key, value in encoded.items():
            if value.dtype == np.float32 and not np.isfinite(value).all():
                raise EnvironmentFault(f"The observation '{key}' holds NaN or infinity; expected finite numbers.")
            shape = (self.num_envs, *self.obs_specs[key].shape)
            if value.shape != shape:
                raise EnvironmentFault(
                    f"The observation '{key}' of {self.num_envs} environments should have the shape {shape}; "
                    f"got {value.shape}."
                )
        return encoded

    def _info_masks(self, info: dict, last: np.ndarray) -> list[Any]:
        """Masks of all environments; None (all is legal) where one gives none.

        Where an episode ended and the next began in one step, `info` is already the next one's, and the last
        row's mask is in `final_info`.
        """
        nothing = [None] * self.num_envs
        given = masks_in_info(info, self.num_envs) or nothing
        if self.mode == AutoresetMode.SAME_STEP and last.any():
            final = masks_in_info(info.get("final_info", {}), self.num_envs) or nothing
            return [end if ended else mask for mask, end, ended in zip(given, final, last, strict=True)]
        return given


class BorrowedEnv(GymnasiumEnv):
    """Environments that belong to the user: they are not closed here, and there are no others to evaluate on."""

    def close(self) -> None:
        """Leave them open."""


def make_vector(
    factories: list[Callable[[], gym.Env]], action_repeat: int, wishes: Mapping[str, str] | None = None,
    max_faults: int = 0, processes: int = 0, timeout: float = 60.0, ray: str = "",
) -> GymnasiumEnv:  # fmt: skip
    """Environments made by `factories` and checked, restarted where they fail (`ResilientVectorEnv`).

    They are spread over so many `processes`, in which each has `timeout` seconds for an answer; 0: they are
    stepped in this one. The processes are on this machine, or on those of `ray` (see `spread`). Raises
    `ConfigError` where two of them are the same object, where they cannot be sent to a process, or where actions
    are masked and repeated.
    """
    checked = [partial(_checked, factory, action_repeat, wishes) for factory in factories]
    slots: Sequence[Slot] = (
        spread(checked, processes, timeout, ray) if processes else [LocalSlot(one) for one in checked]
    )
    vector = ResilientVectorEnv(slots, max_faults)
    if len({id(env.unwrapped) for env in vector.envs}) < len(vector.envs):
        raise ConfigError(TWICE)
    try:
        made = GymnasiumEnv(vector, wishes)
        check_repeat(made.interface, action_repeat)
    except BaseException:
        vector.close()
        raise
    return made


def make_configured(factories: list[Callable[[], gym.Env]], config: EnvConfig) -> GymnasiumEnv:
    """`make_vector` as `config` says."""
    given = config.action_repeat, config.route, config.max_faults, config.processes, config.timeout
    return make_vector(factories, *given, config.ray)


def lend_vector(env: gym.Env, config: EnvConfig) -> BorrowedEnv:
    """One environment of the user's; after a fault it is only reset, since it cannot be made anew."""
    slot = LocalSlot(partial(CheckedEnv, env, config.action_repeat, config.route), lent=True)
    return BorrowedEnv(ResilientVectorEnv([slot], config.max_faults), config.route)


def _checked(factory: Callable[[], gym.Env], action_repeat: int, wishes: Mapping[str, str] | None) -> CheckedEnv:
    return CheckedEnv(factory(), action_repeat, wishes)


def _final_obs(obs: Any, final: np.ndarray, done: np.ndarray) -> Any:
    """`obs` `[E, ...]` with the last observations of the finished episodes in their places."""
    if isinstance(obs, dict):
        return {
            key: _final_obs(value, [f[key] if d else None for f, d in zip(final, done, strict=True)], done)  # type: ignore[arg-type]
            for key, value in obs.items()
        }
    if isinstance(obs, tuple) and all(isinstance(text, str) for text in obs):
        return tuple(f if d else text for text, f, d in zip(obs, final, done, strict=True))
    if isinstance(obs, tuple):
        return tuple(
            _final_obs(value, [f[i] if d else None for f, d in zip(final, done, strict=True)], done)  # type: ignore[arg-type]
            for i, value in enumerate(obs)
        )
    merged = np.array(obs)
    for index in np.flatnonzero(done):
        merged[index] = final[index]
    return merged
