"""Trees of JAX arrays as NumPy arrays by the names of their leaves, and back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.errors import RunDirectoryError


def to_arrays(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of `tree` by their paths; random keys as their data, types that NumPy lacks as their bits."""
    return {jax.tree_util.keystr(path): _plain(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def from_arrays(template: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A tree like `template` (of arrays or `jax.ShapeDtypeStruct`s) with the leaves that `to_arrays` gave.

    Raises `RunDirectoryError` where they differ in name, shape or type, naming the first that does.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(template)
    expected = {jax.tree_util.keystr(path): leaf for path, leaf in paths}
    for name in sorted({*expected, *arrays}):
        wanted, given = _form(expected.get(name)), _form(arrays.get(name))
        if wanted != given:
            raise RunDirectoryError(
                f"The saved state of the environments has {given} for '{name}', but these have {wanted}: resume "
                "with the environments, and the versions of their packages, that it was saved from."
            )
    leaves = [_leaf(leaf, np.asarray(arrays[name])) for name, leaf in expected.items()]
    return jax.tree_util.tree_unflatten(structure, leaves)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> np.ndarray:
    array = np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array


def _form(leaf: Any) -> str:
    """Shape and type of a leaf once it is plain."""
    if leaf is None:
        return "nothing"
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    dtype = np.dtype(leaf.dtype)
    name = f"uint{8 * dtype.itemsize}" if dtype.kind == "V" else dtype.name
    return f"{name} {list(leaf.shape)}"


def _leaf(like: Any, array: np.ndarray) -> Any:
    if _is_key(like):
        impl: list[Any] = []
        jax.eval_shape(lambda key: impl.append(jax.random.key_impl(key)), like)  # it takes no `ShapeDtypeStruct`
        return jax.random.wrap_key_data(jnp.asarray(array), impl=impl[0])
    dtype = np.dtype(like.dtype)
    return jnp.asarray(array.view(dtype) if dtype.kind == "V" else array)
