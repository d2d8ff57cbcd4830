"""What the training loop expects of environments, and what a JAX-native environment looks like."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from dreamer_agent.specs import Specs

Actions = dict[str, np.ndarray]
LARGEST_REWARD = 1e30  # a larger one becomes this: beyond what the critic tells apart, and sums stay finite


class Rows(NamedTuple):
    """One step of every environment, time t: what was seen on arriving there.

    `obs` arrays `[E, *shape]`; `reward` float32 `[E]`, received on arriving; `is_first` where an episode
    starts; `is_last` where it ends for any reason; `is_terminal` where it ends by the task's own rules, so
    that no value is left. A truncation is `is_last` without `is_terminal`. `mask` `[E]`: the environments
    that have a row here; None means all. `numbers` are what the environments report of the episodes that end here
    (`episode_numbers`), float64 `[E]` each, NaN where an environment does not; None where none does.
    """

    obs: dict[str, np.ndarray]
    reward: np.ndarray
    is_first: np.ndarray
    is_last: np.ndarray
    is_terminal: np.ndarray
    mask: np.ndarray | None = None
    numbers: dict[str, np.ndarray] | None = None

    def stored(self) -> dict[str, Any]:
        """What of them belongs to a transition."""
        return {key: value for key, value in self._asdict().items() if key not in ("mask", "numbers")}


class VectorEnv(Protocol):
    """Several environments stepped together; every kind of environment is brought into this form.

    `interface` (an `envs.interface.Interface`) holds the spaces as the user sees them, for `predict`. An
    environment that fails is restarted, its episode cut (truncated): `faults` counts these since it was made, or
    goes on from the state that was set; `last_fault` tells of the latest in a few words ("" if there was none).
    """

    num_envs: int
    obs_specs: Specs
    act_specs: Specs
    interface: Any

    @property
    def faults(self) -> int:
        """Faults so far, of all environments."""

    @property
    def last_fault(self) -> str:
        """What went wrong last."""

    def reset(self, seed: int) -> list[Rows]:
        """Start all environments."""

    def step(self, actions: Actions) -> list[Rows]:
        """Step all environments with actions `[E, *shape]` as the policy gave them.

        Gives the rows that follow, in order: usually one for all environments; a second, masked one where
        an episode ended and the next began within the same call. The policy sees each in turn. An action
        for an environment whose last row was `is_last` is ignored. Raises `EnvironmentFault` where an environment
        keeps failing, or what it raised itself where it does from the start.
        """

    def get_state(self) -> dict[str, Any] | None:
        """Everything that the rows from here on depend on, but the actions; None where it cannot be captured.

        A tree of dicts with names as keys, lists, None, bool, int, float, str, bytes and NumPy arrays.
        """

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse, also for environments that were just made: what follows is the same, bit by bit.

        Raises `RunDirectoryError` where it is the state of other environments.
        """

    def why_no_state(self) -> str | None:
        """What cannot be captured, such as "the wrapper Noise"; None where `get_state` gives a state."""

    def close(self) -> None:
        """Free what the environments hold."""


@runtime_checkable
class JaxEnv(Protocol):
    """A JAX-native environment: pure functions of one environment, to be vmapped and jitted.

    It never resets by itself, and it knows nothing of time limits: `time_limit` is the number of steps after
    which the caller truncates (None: never). Observations and actions are dicts that match the specs;
    continuous actions lie in [-1, 1]. One that stands for another environment may have its `interface`, of
    the same specs.
    """

    @property
    def obs_specs(self) -> Specs:
        """The arrays of an observation."""

    @property
    def act_specs(self) -> Specs:
        """The arrays of an action."""

    @property
    def time_limit(self) -> int | None:
        """Steps until truncation."""

    def reset(self, key: Any) -> tuple[Any, dict[str, Any]]:
        """`key` to `(state, obs)`."""

    def step(self, key: Any, state: Any, action: dict[str, Any]) -> tuple[Any, dict[str, Any], Any, Any, Any]:
        """`(state, obs, reward, terminated, truncated)` after `action`."""
