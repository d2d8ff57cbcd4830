"""One gymnasium environment whose answers are checked: a broken contract becomes one sentence that names it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np

from dreamer_agent.envs.masks import MaskCodec
from dreamer_agent.envs.routing import route
from dreamer_agent.envs.spaces import ActionCodec, as_array
from dreamer_agent.errors import EnvironmentFault, SpaceError
from dreamer_agent.specs import MASK, is_mask

HUGE = 10**300
ADVICE = "Mend the environment, or wrap it; the run so far is kept."


class CheckedEnv(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Repeats actions and checks what comes back.

    Observations are handed on in the types of their space where that loses nothing: a float64 array for a
    float32 space, or a list of integers for one of uint8. Raises `EnvironmentFault` for everything else that
    breaks the API. `wishes` overrides how observations enter (see `routing`).
    """

    def __init__(self, env: gym.Env, action_repeat: int = 1, wishes: Mapping[str, str] | None = None):
        gym.utils.RecordConstructorArgs.__init__(  # gymnasium can make it again
            self, action_repeat=action_repeat, wishes=wishes
        )
        gym.Wrapper.__init__(self, env)
        self.repeat, self.wishes = action_repeat, wishes or {}
        self._classes: dict[str, int | None] = {}  # of each Box that is one-hot
        for name in ("observation_space", "action_space"):
            space = getattr(env, name, None)
            if not isinstance(space, gym.Space):
                raise self._fault(f"{name} should be a gymnasium space", space)
        members = self.observation_space.spaces if isinstance(self.observation_space, gym.spaces.Dict) else {}
        self._masks_in_space = [key for key in members if is_mask(str(key))]

    @property
    def name(self) -> str:
        """The id under which gymnasium knows the environment, or its class."""
        return self.spec.id if self.spec else type(self.unwrapped).__name__

    @cached_property
    def _masks(self) -> MaskCodec:
        return MaskCodec(ActionCodec(self.action_space))

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        """As gymnasium's, with the observation checked."""
        try:
            result = self.env.reset(**kwargs)
        except TypeError as error:
            if "unexpected keyword argument 'seed'" in str(error) or "argument 'options'" in str(error):
                raise self._fault("reset() should take the arguments seed and options", error) from error
            raise
        if not (isinstance(result, tuple) and len(result) == 2):
            raise self._fault("reset() should return (observation, info)", result)
        self._check_info(result[1])
        obs = self._checked(self.observation_space, result[0], "reset")
        self._check_mask(obs, result[1], False)
        return obs, result[1]

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """As gymnasium's, `repeat` times with the same action; rewards are summed."""
        total = 0.0
        for _ in range(self.repeat):
            result = self.env.step(action)
            if not (isinstance(result, tuple) and len(result) == 5):
                raise self._fault(
                    "step() should return (observation, reward, terminated, truncated, info)", result
                )
            obs, reward, terminated, truncated, info = result
            total += self._number("the reward", reward)
            ended = bool(self._number("terminated", terminated)), bool(self._number("truncated", truncated))
            if any(ended):
                break
        self._check_info(info)
        obs = self._checked(self.observation_space, obs, "step")
        self._check_mask(obs, info, any(ended))
        return obs, total, *ended, info

    def _number(self, name: str, given: Any) -> float:
        if type(given) is int:  # Python's are of any size, NumPy's are not
            return float(max(-HUGE, min(given, HUGE)))
        value = as_array(given)
        if value is None or value.size != 1 or value.dtype.kind not in "biuf" or not np.isfinite(value).all():
            raise self._fault(f"{name} should be one finite number", given)
        return float(value.item())

    def _check_info(self, info: Any) -> None:
        if not isinstance(info, Mapping):
            raise self._fault("the info should be a dict", info)

    def _check_mask(self, obs: Any, info: Mapping[str, Any], ended: bool) -> None:
        """Raise `EnvironmentFault` for a mask of a wrong form, or one that leaves nothing to do."""
        if self._masks_in_space:
            whole = self._masks_in_space == [MASK]
            self._masks.encode([obs[MASK] if whole else {key: obs[key] for key in self._masks_in_space}], [ended])
        elif MASK in info:
            self._masks.encode([info[MASK]], [ended])

    def _checked(self, space: gym.Space, obs: Any, where: str, path: str = "") -> Any:
        """`obs` in the types of its space. Shapes, finite numbers and the values of what is discrete are checked;
        not the bounds of a Box, which many environments break harmlessly, unless it is one-hot.
        """
        if isinstance(space, gym.spaces.Dict):
            keys = self._present(space.spaces, obs, where, path)
            return {key: self._checked(member, obs[key], where, f"{path}{key}/") for key, member in keys.items()}
        if isinstance(space, gym.spaces.Tuple):
            numbers = self._present(dict(enumerate(space.spaces)), obs, where, path)
            return tuple(self._checked(member, obs[i], where, f"{path}{i}/") for i, member in numbers.items())
        member = f" '{path[:-1]}'" if path else ""
        name = f"the observation{member} of {where}()"
        if isinstance(space, gym.spaces.Text):
            if not isinstance(obs, str):
                raise self._fault(f"{name} should be a text", obs)
            if not space.contains(obs):
                raise self._fault(f"{name} should lie in its space {space}", repr(obs))
            return obs
        value = as_array(obs)
        if value is None or value.shape != space.shape:
            raise self._fault(
                f"{name} should have the shape {space.shape} of its space",
                obs if value is None else f"shape {value.shape}",
            )
        if value.dtype.kind not in "biuf":
            raise self._fault(f"{name} should hold numbers", value.dtype)
        if value.dtype.kind == "f" and not np.all(np.isfinite(value)):
            raise self._fault(f"{name} should hold finite numbers", value)
        value = self._cast(value, space.dtype, name)  # type: ignore[arg-type]
        if not _within(value, space) or not self._within_classes(value, space, path[:-1]):
            raise self._fault(f"{name} should lie in its space {space}", value)
        return value

    def _within_classes(self, value: np.ndarray, space: gym.Space, key: str) -> bool:
        """Whether the values of a Box that is one-hot each have a place there."""
        if not isinstance(space, gym.spaces.Box) or is_mask(key):
            return True
        if key not in self._classes:
            self._classes[key] = _classes(space, self.wishes.get(key or "obs"))
        classes = self._classes[key]
        if classes is None:
            return True
        counted = value.astype(np.int64) - space.low.astype(np.int64)
        return bool(((counted >= 0) & (counted < classes)).all())

    def _present(self, members: dict, obs: Any, where: str, path: str) -> dict:
        """`members`, all of which `obs` has; a fault otherwise."""
        for key in members:
            try:
                obs[key]
            except (KeyError, IndexError, TypeError) as error:
                raise self._fault(f"the observation of {where}() lacks '{path}{key}'", obs) from error
        return members

    def _cast(self, value: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
        """`value` as `dtype`; numbers that are too large become the largest float, others must survive."""
        if value.dtype == dtype:
            return value
        if dtype.kind == "f":
            limit = np.finfo(dtype).max
            return np.clip(value, -limit, limit).astype(dtype)
        cast = value.astype(dtype)
        if not np.array_equal(cast, value):
            raise self._fault(f"{name} should hold numbers of the type {dtype} of its space", value)
        return cast

    def _fault(self, expected: str, given: Any) -> EnvironmentFault:
        shown = " ".join(str(given).split())
        shown = shown if len(shown) < 120 else shown[:117] + "..."
        return EnvironmentFault(f"The environment {self.name} breaks its API: {expected}, got {shown}. {ADVICE}")


def _classes(space: gym.spaces.Box, wish: str | None) -> int | None:
    """How many classes a Box has that enters as one-hot; None of one that does not."""
    try:
        spec = route(space, "", wish).spec
    except SpaceError:  # told where the observations are encoded
        return None
    return spec.classes if spec.kind == "discrete" else None


def _within(value: np.ndarray, space: gym.Space) -> bool:
    """Whether the values of a Discrete, MultiDiscrete or MultiBinary are its own; those of a Box always are."""
    if isinstance(space, gym.spaces.Discrete):
        return bool(space.start <= value < space.start + space.n)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return bool(((value >= space.start) & (value - space.start < space.nvec)).all())
    if isinstance(space, gym.spaces.MultiBinary):
        return bool(((value == 0) | (value == 1)).all())
    return True
