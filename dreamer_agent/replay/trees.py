"""Nested dicts of arrays, as a replay holds them."""

from __future__ import annotations

from typing import Any

import numpy as np

Tree = dict[str, Any]


def map_tree(function: Any, tree: Any) -> Any:
    """`function` of every leaf, in nested dicts of the same names."""
    if isinstance(tree, dict):
        return {key: map_tree(function, value) for key, value in tree.items()}
    return function(tree)


def pairs(stores: Tree, values: Tree) -> list[tuple[np.ndarray, Any]]:
    """Arrays of `stores` beside those of `values`, which must have the same names."""
    if set(stores) != set(values):
        raise ValueError(f"A step holds {sorted(stores)}; got {sorted(values)}.")
    out: list[tuple[np.ndarray, Any]] = []
    for key, store in stores.items():
        out += pairs(store, values[key]) if isinstance(store, dict) else [(store, values[key])]
    return out
