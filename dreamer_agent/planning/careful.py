"""A planner that keeps away from what its model does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

    def begin(self, model: Model, batch: int) -> Any:
        """As of the planner."""
        return self.planner.begin(model, batch)

    def plan(
        self, model: Model, params: Params, key: Array, state: State, plan: Any, legal: LegalActions = None
    ) -> tuple[Actions, Any]:
        """As of the planner."""
        return self.planner.plan(model.doubted(self.doubt), params, key, state, plan, legal)
