"""Actor and critic, and the losses with which they learn from imagined latents."""

from dreamer_agent.behaviour.losses import behaviour_losses, replay_value_loss
from dreamer_agent.behaviour.policy import ActionDistribution, ActorCritic
from dreamer_agent.behaviour.rules import Rules, imagined_policy

__all__ = [
    "ActionDistribution",
    "ActorCritic",
    "Rules",
    "behaviour_losses",
    "imagined_policy",
    "replay_value_loss",
]
