"""Trees of JAX arrays as plain arrays for a checkpoint, and back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.errors import RunDirectoryError


def plain_leaves(tree: Any) -> list[np.ndarray]:
    """The leaves of a tree of JAX arrays as copies on the host; keys as the numbers they are made of."""
    leaves = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]
    return [np.array(leaf) for leaf in jax.device_get(leaves)]


def tree_like(values: list[Any], template: Any, what: str) -> Any:
    """The inverse of `plain_leaves` for a tree like `template`; `RunDirectoryError` where they do not fit."""
    leaves, structure = jax.tree.flatten(template)
    found = [(value.shape, str(value.dtype)) for value in values]
    wanted = [(leaf.shape, str(leaf.dtype)) for leaf in map(_data, leaves)]
    if found != wanted:
        differing = next(
            (pair for pair in zip(found, wanted, strict=False) if pair[0] != pair[1]), (found, wanted)
        )
        raise RunDirectoryError(
            f"The checkpoint holds {what} with {differing[0]}, but this run has {differing[1]}: use the "
            "configuration that it was trained with, or another run directory."
        )
    arrays = [
        jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else jnp.asarray(value)
        for value, leaf in zip(values, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, arrays)


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
