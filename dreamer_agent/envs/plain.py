"""Values as trees of plain data, which can be written down and read back without running anything.

Such a tree holds dicts with names as keys, lists, None, bool, int, float, str, bytes and NumPy arrays, no more.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def pack(value: Any) -> Any:
    """`value` as such a tree, a copy; also takes tuples, deques, NumPy's scalars and random generators.

    Raises `TypeError` for anything else, naming its type.
    """
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return np.array(value)
    if isinstance(value, np.generic) and not value.dtype.hasobject:
        return {"scalar": np.array(value)}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: pack(item) for key, item in value.items()}}
    if type(value) is dict:
        return {"pairs": [[pack(key), pack(item)] for key, item in value.items()]}
    if type(value) is list:
        return [pack(item) for item in value]
    if type(value) in (tuple, deque):
        return {type(value).__name__: [pack(item) for item in value]}
    if type(value) is np.random.Generator and type(value.bit_generator).__name__ in GENERATORS:
        state: Any = value.bit_generator.state
        return {"generator": pack(state)}
    raise TypeError(type(value).__name__)


def unpack(tree: Any) -> Any:
    """The inverse of `pack`; a deque has no limit to its length.

    Raises `ValueError` for what `pack` did not write.
    """
    if isinstance(tree, list):
        return [unpack(item) for item in tree]
    if isinstance(tree, np.ndarray):
        return np.array(tree)
    if not isinstance(tree, dict):
        return tree
    if len(tree) != 1:
        raise ValueError(f"{sorted(tree)} is no mark of a type")
    ((kind, content),) = tree.items()
    if kind == "scalar":
        return np.asarray(content)[()]
    if kind == "dict":
        return {key: unpack(item) for key, item in content.items()}
    if kind == "pairs":
        return {unpack(key): unpack(item) for key, item in content}
    if kind in ("tuple", "deque"):
        return {"tuple": tuple, "deque": deque}[kind](unpack(item) for item in content)
    if kind == "generator":
        return _generator(unpack(content))
    raise ValueError(f"'{kind}' is no mark of a type")


def _generator(state: dict[str, Any]) -> np.random.Generator:
    if state["bit_generator"] not in GENERATORS:
        raise ValueError(f"{state['bit_generator']} is no generator of NumPy's")
    bits = getattr(np.random, state["bit_generator"])()
    bits.state = state
    return np.random.Generator(bits)
