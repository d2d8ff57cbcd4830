"""How observations enter and what the environment receives, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dreamer_agent.envs import Interface
from dreamer_agent.specs import ArraySpec

ASKED = "asked for in env.route"  # the reason of a route that the rules did not choose


@dataclass(frozen=True)
class Routed:
    """An array of the observation: how it enters the networks, and why."""

    key: str
    spec: ArraySpec
    reason: str


@dataclass(frozen=True)
class Acted:
    """An array of the action, and what the environment receives, in words."""

    key: str
    spec: ArraySpec
    receives: str


def routed(interface: Interface, own_words: bool = False) -> list[Routed]:
    """The routes of all observations; `own_words` where the environment describes itself by specs."""
    reason = "the environment says so"
    return [
        Routed(key, route.spec, reason if own_words and route.reason == ASKED else route.reason)
        for key, route in interface.observations.routes.items()
    ]


def acted(interface: Interface) -> list[Acted]:
    """What the environment receives for each array of an action."""
    import gymnasium as gym

    out = []
    for key, choice in interface.actions.choices.items():
        if isinstance(choice.space, gym.spaces.Box):
            words = box_words(choice.space)
        else:
            words = choice_words(choice.spec, choice.start)
        masked = interface.masked and choice.spec.kind == "discrete"
        out.append(Acted(key, choice.spec, words + (", only legal ones (action_mask)" if masked else "")))
    return out


def choice_words(spec: ArraySpec, start: Any = 0) -> str:
    """Categorical choices in words: how many, and what they count from."""
    starts = np.unique(start)
    first = f"from {int(starts[0])}" if len(starts) == 1 else "from each entry's own start"
    each = f"{int(np.prod(spec.shape))} choices, each one" if spec.shape else "one"
    return f"{each} of {spec.classes}, counted {first}"


def box_words(space: Any) -> str:
    """The numbers that a Box gets, in words; see `envs.spaces.rescale`."""
    from dreamer_agent.envs.spaces import rescale

    ends = [rescale(np.full((1, *space.shape), value), space)[0] for value in (-1.0, 1.0, -9e9, 9e9)]
    low, high, lowest, highest = ends
    below, above = lowest == low, highest == high  # bounds that hold whatever the policy gives
    rounded = ", rounded to integers" if np.issubdtype(space.dtype, np.integer) else ""
    if (below & above).all():
        same = len(np.unique(low)) == len(np.unique(high)) == 1
        if same and (low.flat[0], high.flat[0]) == (-1, 1):
            return f"numbers in [-1, 1], as the policy gives them{rounded}"
        over = f"[{low.min():g}, {high.max():g}]"
        return f"[-1, 1] stretched over {over if same else f'the bounds of each entry, within {over}'}{rounded}"
    if not (below | above).any():
        return f"no bounds: the policy's number as it is{rounded}"
    kinds = {
        "between its bounds": below & above,
        "without bounds": ~below & ~above,
        "with a lower bound only": below & ~above,
        "with an upper bound only": above & ~below,
    }
    counted = [f"{int(flags.sum())} {name}" for name, flags in kinds.items() if flags.any()]
    return f"each entry by its own bounds: {', '.join(counted)}{rounded}"
