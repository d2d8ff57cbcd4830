"""What is measured: spaces and sizes as plain data, and the random batches that every contender gets.

Only NumPy is imported here, since workers run in the interpreters of others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

Spec = tuple[str, tuple[int, ...], int]  # kind, shape, classes: the words of dreamer_agent.specs.ArraySpec
Array = np.ndarray
FLAG_RATE = 0.01  # share of steps that end an episode
REPLAY_ENVS, REPLAY_STEPS = 16, 16_384  # streams of the replay, and the steps that it holds in all

PROPRIO: dict[str, Spec] = {"obs": ("continuous", (24,), 0)}
IMAGE: dict[str, Spec] = {"image": ("image", (64, 64, 3), 0)}
SIX: dict[str, Spec] = {"action": ("continuous", (6,), 0)}


@dataclass(frozen=True)
class Case:
    """One agent to time: presets and overrides of our configuration, and its spaces."""

    name: str
    presets: tuple[str, ...]
    obs: Mapping[str, Spec]
    act: Mapping[str, Spec]
    overrides: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)  # the resolved sizes, as our worker tells them

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Case:
        """The inverse of `plain`, with the lists of JSON."""
        return cls(**content)

    def with_overrides(self, name: str, *overrides: str) -> Case:
        """The same under another name, with more overrides."""
        return replace(self, name=name, overrides=(*self.overrides, *overrides))


def _case(name: str, preset: str, obs: dict[str, Spec], act: dict[str, Spec]) -> Case:
    return Case(name, (preset,), obs, act, ("precision=float32",))


CASES = {
    case.name: case
    for case in (
        _case("classic", "classic", {"obs": ("continuous", (4,), 0)}, {"action": ("discrete", (), 2)}),
        _case("pixels", "pixels", {"image": ("image", (16, 16, 3), 0)}, {"action": ("discrete", (), 3)}),
        _case("1m-proprio", "size/1m", PROPRIO, SIX),
        _case("12m-proprio", "size/12m", PROPRIO, SIX),
        _case("1m-image", "size/1m", IMAGE, SIX),
        _case("12m-image", "size/12m", IMAGE, SIX),
    )
}


def random_batch(case: Case, seed: int = 0) -> dict[str, Any]:
    """A batch `[B, 1 + T, ...]` in our form: random numbers, flags mostly false.

    Needs `case.settings`. The latents are those of the categorical model: float32 deter, uint8 indices.
    """
    replay = case.settings["replay"]
    return random_rows(case, (replay["batch_size"], 1 + replay["batch_length"]), seed)


def random_steps(case: Case) -> dict[str, Any]:
    """One step of every environment `[REPLAY_ENVS, ...]`, as it is added to a replay."""
    rows = random_rows(case, (REPLAY_ENVS, 1), 0)
    return {
        key: {name: array[:, 0] for name, array in value.items()} if isinstance(value, dict) else value[:, 0]
        for key, value in rows.items()
    }


def random_rows(case: Case, lead: tuple[int, int], seed: int) -> dict[str, Any]:
    """Steps with two leading dimensions, environments and time."""
    model, rng = case.settings["model"], np.random.default_rng(seed)
    last = rng.random(lead) < FLAG_RATE
    first = np.concatenate([np.zeros((lead[0], 1), bool), last[:, :-1]], 1)
    return {
        "obs": {key: random_array(rng, spec, lead) for key, spec in case.obs.items()},
        "action": {key: random_array(rng, spec, lead) for key, spec in case.act.items()},
        "reward": rng.normal(size=lead).astype(np.float32),
        "is_first": first,
        "is_last": last,
        "is_terminal": last & (rng.random(lead) < 0.5),
        "latent": {
            "deter": np.tanh(rng.normal(size=(*lead, model["deter"]))).astype(np.float32),
            "stoch": rng.integers(0, model["classes"], (*lead, model["stoch"])).astype(np.uint8),
        },
    }


def random_array(rng: np.random.Generator, spec: Spec, lead: Sequence[int]) -> Array:
    """Random contents for an array with leading shape `lead`."""
    kind, shape, classes = spec
    size = (*lead, *shape)
    if kind == "continuous":
        return np.tanh(rng.normal(size=size)).astype(np.float32)
    if kind == "image":
        return rng.integers(0, 256, size).astype(np.uint8)
    return rng.integers(0, classes, size).astype(np.int32)
