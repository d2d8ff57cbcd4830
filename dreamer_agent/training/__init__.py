"""The loop around the learner: acting, replay, logging, checkpoints and evaluation."""

from dreamer_agent.training.checkpoint import Checkpoints
from dreamer_agent.training.driver import Driver
from dreamer_agent.training.evaluate import Evaluation, evaluate
from dreamer_agent.training.loop import Trainer, train

__all__ = ["Checkpoints", "Driver", "Evaluation", "Trainer", "evaluate", "train"]
