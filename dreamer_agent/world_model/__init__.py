"""The latent world model: encoder, dynamics, decoder, reward and continue heads, and imagination."""

from dreamer_agent.world_model.barlow import BARLOW
from dreamer_agent.world_model.encoder import ENCODERS, make_encoder, register_encoder
from dreamer_agent.world_model.harmony import fresh_scales, harmonised, price, sigmas
from dreamer_agent.world_model.imagine import Trajectory, imagine, imagine_actions
from dreamer_agent.world_model.latent import Actions, Latent, encode_actions, zero_actions
from dreamer_agent.world_model.mask import LegalActions, observed_legal, with_taken
from dreamer_agent.world_model.model import CONTEXT, Batch, Losses, WorldModel, drop_context
from dreamer_agent.world_model.rssm import RSSM

__all__ = [
    "BARLOW",
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
    "fresh_scales",
    "harmonised",
    "imagine",
    "imagine_actions",
    "make_encoder",
    "observed_legal",
    "price",
    "register_encoder",
    "sigmas",
    "with_taken",
    "zero_actions",
]
