"""A planner that keeps away from what its model does not know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dreamer_agent.config import Config
from dreamer_agent.errors import ConfigError
from dreamer_agent.nets import Params
from dreamer_agent.planning.model import Array, Model, State
from dreamer_agent.planning.sampling import Planner
from dreamer_agent.world_model import Actions, LegalActions


@dataclass(frozen=True)
class Careful:
    """`planner`, in a model that takes `doubt` times its doubt (nats, of an ensemble) off every reward.

    A negative number seeks what is not known. Raises `ConfigError` in a model without doubt.
    """

    planner: Planner
    doubt: float

    def __post_init__(self) -> None:
        if isinstance(self.doubt, bool) or not math.isfinite(self.doubt):
            raise ConfigError(
                f"doubt={self.doubt} was asked for: give what a nat of doubt takes off a reward, such as 0.5."
            )

    def begin(self, model: Model, batch: int) -> Any:
        """As of the planner."""
        return self.planner.begin(model, batch)

    def plan(
        self, model: Model, params: Params, key: Array, state: State, plan: Any, legal: LegalActions = None
    ) -> tuple[Actions, Any]:
        """As of the planner."""
        return self.planner.plan(model.doubted(self.doubt), params, key, state, plan, legal)


def check_doubt(planner: Planner | None, config: Config) -> None:
    """Raise `ConfigError` where `planner` asks a model of `config` for a doubt that it has not."""
    if isinstance(planner, Careful) and not config.model.ensemble:
        raise ConfigError(
            "The planner takes doubt off rewards, but this model has no ensemble to tell it: leave doubt out, or "
            "train with model.ensemble=8."
        )
