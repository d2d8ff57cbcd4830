"""The loop around the learner: acting, replay, logging, checkpoints and evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dreamer_agent.training.checkpoints import Checkpoints
from dreamer_agent.training.driver import Driver
from dreamer_agent.training.evaluate import Evaluation, evaluate

if TYPE_CHECKING:
    from dreamer_agent.training.loop import HostTrainer, train
    from dreamer_agent.training.trainer import Trainer

__all__ = ["Checkpoints", "Driver", "Evaluation", "HostTrainer", "Trainer", "evaluate", "train"]


def __getattr__(name: str) -> Any:
    if name in (
        "HostTrainer",
        "Trainer",
        "train",
    ):  # these need gymnasium and the loggers, what they drive does not
        from dreamer_agent.training import loop

        return getattr(loop, name)
    raise AttributeError(f"module 'dreamer_agent.training' has no attribute '{name}'")
