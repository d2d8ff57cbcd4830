"""What the adapters of JAX-native libraries share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

NO_LIMIT = 2**30  # steps; as an int32 it is beyond every episode


def settled(state: Any, types: Any = None) -> Any:
    """`state` as arrays of strong types, of the dtypes of `types` (a tree of the same structure) where given.

    Libraries start from Python numbers and calculate with arrays: without this, the state that `step` returns
    would differ from that of `reset`, so that `step` compiled twice and a scan refused to carry it.
    """
    arrays = jax.tree.map(jnp.asarray, state)
    return jax.tree.map(lambda x, t: x.astype(jnp.asarray(t).dtype), arrays, arrays if types is None else types)


def pixels(image: Any) -> Any:
    """Floats in [0, 1] as uint8 pixels, rounded to the nearest."""
    return jnp.round(jnp.clip(image, 0, 1) * 255).astype(jnp.uint8)
