"""Callbacks: custom logging, early stopping, whatever should happen while an agent learns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamer_agent.training.driver import Episode
from dreamer_agent.training.evaluate import Evaluation

if TYPE_CHECKING:
    from dreamer_agent.training.trainer import Trainer


class Callback:
    """Override what you need; a method that returns False ends the training after the step at hand.

    `trainer` is the running `Trainer`: `trainer.counters` (env_steps, updates, episodes), `trainer.state`
    (parameters), `trainer.agent`, `trainer.config`, `trainer.folder`, `trainer.log({name: number})`. Callbacks
    run in the order given. One with `get_state()` and `set_state(state)`, of plain data, goes on where it was
    when a run is resumed. What they raise ends the training and reaches the caller. With `train.loop=device` a
    step is a chunk of many, and `on_update` is not called (`docs/device.md`).
    """

    def on_start(self, trainer: Trainer) -> bool | None:
        """Before the first step."""

    def on_step(self, trainer: Trainer) -> bool | None:
        """After every step of all environments and the updates that followed it."""

    def on_episode(self, trainer: Trainer, episode: Episode) -> bool | None:
        """After an episode of training ended: its environment, undiscounted return and length."""

    def on_update(self, trainer: Trainer, metrics: dict[str, Any]) -> bool | None:
        """After a dispatch of updates was launched (`train.updates_per_dispatch`), and the step made beside it.

        `metrics` are their means, scalars on the device; reading one waits for the updates.
        """

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> bool | None:
        """After an evaluation (`train.eval_every`, and at the end of a training from the command line)."""

    def on_end(self, trainer: Trainer) -> None:
        """After the last step, before the checkpoint is written."""


class StopOnReturn(Callback):
    """Ends training once the mean return of the last `episodes` training episodes reaches `threshold`."""

    def __init__(self, threshold: float, episodes: int = 20):
        self.threshold = threshold
        self.returns: deque[float] = deque(maxlen=episodes)

    def get_state(self) -> list[float]:
        """The returns so far."""
        return list(self.returns)

    def set_state(self, state: list[float]) -> None:
        """Go on with them."""
        self.returns.clear()
        self.returns.extend(state)

    def on_episode(self, trainer: Trainer, episode: Episode) -> bool | None:
        """Stop if the mean is there."""
        self.returns.append(episode.score)
        full = len(self.returns) == self.returns.maxlen
        return not (full and float(np.mean(self.returns)) >= self.threshold)


class StepFunction(Callback):
    """A plain function of the trainer, called after every step."""

    def __init__(self, function: Callable[[Any], bool | None]):
        self.function = function

    def on_step(self, trainer: Trainer) -> bool | None:
        """Call it."""
        return self.function(trainer)


def as_callbacks(given: Any) -> list[Callback]:
    """One callback, a function, or a collection of these, as a list."""
    if given is None:
        return []
    if isinstance(given, Callback):
        return [given]
    if isinstance(given, Iterable):
        return [callback for item in given for callback in as_callbacks(item)]
    if callable(given):
        return [StepFunction(given)]
    raise TypeError(f"A callback is a Callback, a function of the trainer, or a list of these; got {given!r}.")
