"""Actor and critic, and the losses with which they learn from imagined latents."""

from dreamer_agent.behaviour.explorer import ExplorerState, as_explorer, explorer_losses, init_explorer
from dreamer_agent.behaviour.losses import behaviour_losses, replay_value_loss
from dreamer_agent.behaviour.policy import ActionDistribution, ActorCritic
from dreamer_agent.behaviour.rules import Rules, imagined_policy

__all__ = [
    "ActionDistribution",
    "ActorCritic",
    "ExplorerState",
    "Rules",
    "as_explorer",
    "behaviour_losses",
    "explorer_losses",
    "imagined_policy",
    "init_explorer",
    "replay_value_loss",
]
