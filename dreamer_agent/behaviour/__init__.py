"""Actor and critic, and the losses with which they learn from imagined latents."""

from dreamer_agent.behaviour.losses import behaviour_losses, replay_value_loss
from dreamer_agent.behaviour.policy import ActionDistribution, ActorCritic

__all__ = ["ActionDistribution", "ActorCritic", "behaviour_losses", "replay_value_loss"]
