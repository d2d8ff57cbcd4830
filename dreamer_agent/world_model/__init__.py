"""The latent world model: encoder, dynamics, decoder, reward and continue heads, and imagination."""

from dreamer_agent.world_model.encoder import ENCODERS, make_encoder, register_encoder
from dreamer_agent.world_model.imagine import Trajectory, imagine, imagine_actions
from dreamer_agent.world_model.latent import Actions, Latent, encode_actions, zero_actions
from dreamer_agent.world_model.mask import LegalActions, observed_legal, with_taken
from dreamer_agent.world_model.model import CONTEXT, Batch, Losses, WorldModel, drop_context
from dreamer_agent.world_model.rssm import RSSM

__all__ = [
    "CONTEXT",
    "ENCODERS",
    "RSSM",
    "Actions",
    "Batch",
    "Latent",
    "LegalActions",
    "Losses",
    "Trajectory",
    "WorldModel",
    "drop_context",
    "encode_actions",
    "imagine",
    "imagine_actions",
    "make_encoder",
    "observed_legal",
    "register_encoder",
    "with_taken",
    "zero_actions",
]
