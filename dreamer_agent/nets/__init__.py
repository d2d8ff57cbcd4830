"""The seam to neural-network libraries and the layers built on it."""

from dreamer_agent.nets.blocks import (
    MLP,
    Activated,
    BlockLinear,
    Linear,
    RMSNorm,
    join_blocks,
    split_blocks,
    truncated_normal,
)
from dreamer_agent.nets.convs import PooledConv, UpsampledConv
from dreamer_agent.nets.heads import ActionHead, Head
from dreamer_agent.nets.seam import Net, Params, from_haiku, from_linen

__all__ = [
    "MLP",
    "ActionHead",
    "Activated",
    "BlockLinear",
    "Head",
    "Linear",
    "Net",
    "Params",
    "PooledConv",
    "RMSNorm",
    "UpsampledConv",
    "from_haiku",
    "from_linen",
    "join_blocks",
    "split_blocks",
    "truncated_normal",
]
