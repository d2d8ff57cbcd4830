"""A run looked at before it starts: `check_run(config)` gives a `Report`."""

from dreamer_agent.training.check.report import Memory, Report, check_run
from dreamer_agent.training.check.rollout import Numbers, RandomRollout, random_rollout
from dreamer_agent.training.check.speed import Forecast, Speed, forecast

__all__ = [
    "Forecast",
    "Memory",
    "Numbers",
    "RandomRollout",
    "Report",
    "Speed",
    "check_run",
    "forecast",
    "random_rollout",
]
