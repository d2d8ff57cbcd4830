"""The seam to neural-network libraries and the layers built on it."""

from dreamer_agent.nets.blocks import (
    MLP,
    Activated,
    BlockLinear,
    Linear,
    join_blocks,
    split_blocks,
    truncated_normal,
)
from dreamer_agent.nets.convs import PooledConv, UpsampledConv
from dreamer_agent.nets.heads import ActionHead, Head
from dreamer_agent.nets.seam import Net, Params, from_haiku, from_linen
from dreamer_agent.nets.style import LayerNorm, RMSNorm, Style

__all__ = [
    "MLP",
    "ActionHead",
    "Activated",
    "BlockLinear",
    "Head",
    "LayerNorm",
    "Linear",
    "Net",
    "Params",
    "PooledConv",
    "RMSNorm",
    "Style",
    "UpsampledConv",
    "from_haiku",
    "from_linen",
    "join_blocks",
    "split_blocks",
    "truncated_normal",
]
