"""What an agent needs to know of an environment once it is gone: its spaces, and how they are encoded.

An `Interface` is written beside a trained agent as plain JSON, so that the agent can be loaded and asked for
actions where the environment is not installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from dreamer_agent.envs.masks import MaskCodec, masks_in_obs
from dreamer_agent.envs.spaces import ActionCodec, ObservationCodec
from dreamer_agent.errors import ConfigError, RunDirectoryError, SpaceError
from dreamer_agent.files import write_text
from dreamer_agent.specs import MASK, ArraySpec, Specs, is_mask, mask_specs

FLAT = ("Discrete", "MultiBinary", "MultiDiscrete", "Text")


@dataclass(frozen=True)
class Interface:
    """Spaces of one environment; `masked` where it says which actions are legal; `wishes` is `env.route`."""

    observation_space: gym.Space
    action_space: gym.Space
    masked: bool = False
    wishes: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def observations(self) -> ObservationCodec:
        """Encodes observations."""
        return ObservationCodec(self.observation_space, self.wishes)

    @cached_property
    def actions(self) -> ActionCodec:
        """Decodes actions."""
        return ActionCodec(self.action_space)

    @cached_property
    def masks(self) -> MaskCodec:
        """Encodes masks of legal actions."""
        return MaskCodec(self.actions)

    @cached_property
    def obs_specs(self) -> Specs:
        """The arrays of an observation, masks among them."""
        if not self.masked:
            return self.observations.specs
        if not self.masks.specs:
            raise SpaceError(
                f"The environment masks its actions, but {self.action_space} has none to choose from."
            )
        unknown = set(self._masks_in_space) - {MASK, *self.masks.specs}
        if unknown:
            raise SpaceError(
                f"The observation '{min(unknown)}' masks no action that there is: choose from {MASK}, "
                f"{', '.join(self.masks.specs)}."
            )
        return {**self.observations.specs, **self.masks.specs}

    @property
    def act_specs(self) -> Specs:
        """The arrays of an action."""
        return self.actions.specs

    @property
    def masks_observed(self) -> bool:
        """Whether the masks are members of the observation."""
        return bool(self._masks_in_space)

    @property
    def _masks_in_space(self) -> list[str]:
        space = self.observation_space
        return [key for key in space.spaces if is_mask(key)] if isinstance(space, gym.spaces.Dict) else []

    def encode(self, obs: Any, count: int, masks: Any = None, last: Any = None) -> dict[str, np.ndarray]:
        """A batch of `count` observations, and raw masks for each, as named arrays."""
        out = self.observations.encode(obs)
        if self.masked:
            given = masks_in_obs(obs) if masks is None else masks
            out |= self.masks.encode([None] * count if given is None else given, last)
        return out

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        content = {
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "masked": self.masked,
            "wishes": dict(self.wishes),
        }
        write_text(path, json.dumps(content) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Interface:
        """Read what `save` wrote; `RunDirectoryError` where it is missing or damaged."""
        try:
            content = json.loads(Path(path).read_text())
            spaces = [space_from_json(content[key]) for key in ("observation_space", "action_space")]
            return cls(spaces[0], spaces[1], content["masked"], content["wishes"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunDirectoryError(
                f"{path} does not hold the spaces of an agent ({type(error).__name__}: {error}): copy it again "
                "from where the agent was trained."
            ) from error


def check_repeat(interface: Interface, action_repeat: int) -> None:
    """Raise `ConfigError` where actions are masked and repeated: what was legal may not be so the second time."""
    if interface.masked and action_repeat > 1:
        raise ConfigError(
            f"The environment says which actions are legal, and one repeated {action_repeat} times may not stay "
            "so: set env.action_repeat=1."
        )


def interface_of_specs(obs_specs: Specs, act_specs: Specs) -> Interface:
    """The interface of an environment that describes itself by specs: Dict spaces with a member for each array.

    Raises `SpaceError` where there are masks of actions, but not one for each array of choices, or of other
    shapes.
    """
    words = {"image": "HWC", "discrete": "onehot", "continuous": "vector"}
    members = {key: _space_of(spec, np.inf) for key, spec in obs_specs.items()}
    wishes = {key: words[spec.kind] for key, spec in obs_specs.items() if not is_mask(key)}
    masks = {key: spec for key, spec in obs_specs.items() if is_mask(key)}
    if masks and masks != mask_specs(act_specs):
        wanted = ", ".join(f"'{key}' {list(spec.shape)}" for key, spec in mask_specs(act_specs).items())
        raise SpaceError(
            f"The masks {', '.join(masks)} do not fit the actions: with any mask there should be "
            f"{wanted or 'none'}, discrete with two classes (all ones where everything is legal)."
        )
    actions = {key: _space_of(spec, 1.0) for key, spec in act_specs.items()}
    return Interface(gym.spaces.Dict(members), gym.spaces.Dict(actions), bool(masks), wishes)


def _space_of(spec: ArraySpec, bound: float) -> gym.Space:
    if spec.kind == "image":
        return gym.spaces.Box(0, 255, spec.shape, np.uint8)
    if spec.kind == "continuous":
        return gym.spaces.Box(-bound, bound, spec.shape, np.float32)
    if spec.shape:
        return gym.spaces.MultiDiscrete(np.full(spec.shape, spec.classes))
    return gym.spaces.Discrete(spec.classes)


def space_to_json(space: gym.Space) -> dict[str, Any]:
    """A space as plain values; bounds that are all equal are written once. The inverse of `space_from_json`."""
    if isinstance(space, gym.spaces.Dict):
        return {"type": "Dict", "members": {key: space_to_json(member) for key, member in space.spaces.items()}}
    if isinstance(space, gym.spaces.Tuple):
        return {"type": "Tuple", "members": [space_to_json(member) for member in space.spaces]}
    kind = type(space).__name__
    if isinstance(space, gym.spaces.Box):
        # Infinite bounds of integers look finite: `bounded_below` and `bounded_above` alone tell them.
        low, high = _compact(space.low, space.bounded_below), _compact(space.high, space.bounded_above)
        bounds = {"low": low, "high": high}
        return {"type": "Box", "shape": list(space.shape), "dtype": np.dtype(space.dtype).name, **bounds}
    if isinstance(space, gym.spaces.Discrete):
        return {
            "type": "Discrete",
            "n": int(space.n),
            "start": int(space.start),
            "dtype": np.dtype(space.dtype).name,
        }
    if isinstance(space, gym.spaces.MultiBinary):
        return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.shape)}
    if isinstance(space, gym.spaces.MultiDiscrete):
        values = {"nvec": space.nvec.tolist(), "start": np.asarray(space.start).tolist()}
        return {"type": "MultiDiscrete", **values, "dtype": np.dtype(space.dtype).name}
    if isinstance(space, gym.spaces.Text):
        limits = {"min_length": space.min_length, "max_length": space.max_length}
        return {"type": "Text", **limits, "charset": "".join(sorted(space.character_set))}
    raise SpaceError(f"A space of type {kind} cannot be saved: only Box, {', '.join(FLAT)}, Dict and Tuple can.")


def space_from_json(content: Mapping[str, Any]) -> gym.Space:
    """The space that `space_to_json` wrote."""
    fields = {key: value for key, value in content.items() if key != "type"}
    kind = content["type"]
    if kind == "Dict":
        return gym.spaces.Dict({key: space_from_json(member) for key, member in fields["members"].items()})
    if kind == "Tuple":
        return gym.spaces.Tuple([space_from_json(member) for member in fields["members"]])
    if kind == "Box":
        dtype, shape = np.dtype(fields["dtype"]), tuple(fields["shape"])
        low = _expand(fields["low"], shape, dtype, -np.inf)
        high = _expand(fields["high"], shape, dtype, np.inf)
        return gym.spaces.Box(low, high, shape, dtype.type)
    if "dtype" in fields:
        fields["dtype"] = np.dtype(fields["dtype"]).type
    if kind not in FLAT:
        raise ValueError(f"unknown space {kind!r}")
    return getattr(gym.spaces, kind)(**fields)


def _compact(bound: np.ndarray, bounded: np.ndarray) -> Any:
    """A bound as a list, or as one number where all are equal; None for infinity, which JSON does not have."""
    flat = [
        value.item() if finite else None for value, finite in zip(bound.ravel(), bounded.ravel(), strict=True)
    ]
    return flat[0] if all(value == flat[0] for value in flat) else flat


def _expand(bound: Any, shape: tuple[int, ...], dtype: np.dtype, infinite: float) -> Any:
    """A bound as an array, or as one number where all are equal; `infinite` where there is none."""
    if not isinstance(bound, list):
        return infinite if bound is None else np.full(shape, bound, dtype)
    inexact = None in bound and dtype.kind != "f"  # the constructor turns infinities into integers
    values = [infinite if value is None else value for value in bound]
    return np.array(values, np.float64 if inexact else dtype).reshape(shape)
