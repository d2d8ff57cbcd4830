"""The arithmetic of a program, counted from its jaxpr, and the arithmetic that the machine can do.

XLA's own counter takes the body of a loop once, however often it runs. Here the bodies of scans count as often as
they run, and what no output needs is left out first. Matrix products and convolutions are counted, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval


def count_flops(closed: Any) -> int:
    """Floating-point operations of a closed jaxpr, with two for each multiplication and addition.

    Raises ValueError for a while loop with products in it: how often it runs is not written there.
    """
    needed, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return 2 * _products(needed)


def _products(jaxpr: Any) -> int:
    return sum(_products_of(equation) for equation in jaxpr.eqns)


def _products_of(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _dot_products(equation)
    if name == "conv_general_dilated":
        return _conv_products(equation)
    inside = [_products(inner) for inner in _inner(params)]
    if name == "cond":
        return max(inside)
    if name == "while" and any(inside):
        raise ValueError("A while loop with products in it cannot be counted: write it as a scan.")
    return sum(inside) * (params["length"] if name == "scan" else 1)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among the parameters of an equation, some closed and some not, some in tuples."""
    for value in params.values():
        for entry in value if isinstance(value, tuple | list) else (value,):
            entry = getattr(entry, "jaxpr", entry)
            if hasattr(entry, "eqns"):
                yield entry


def _dot_products(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return math.prod(out) * math.prod(left[axis] for axis in contracted)


def _conv_products(equation: Any) -> int:
    """Those with a number of the input: neither its padding nor the holes of its dilation are counted."""
    params, (left, right) = equation.params, (var.aval.shape for var in equation.invars)
    out, numbers = equation.outvars[0].aval.shape, params["dimension_numbers"]
    count = out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * right[numbers.rhs_spec[1]]
    axes = zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
    for index, (left_axis, right_axis, out_axis) in enumerate(axes):
        at = np.arange(out[out_axis])[:, None] * params["window_strides"][index]
        at = at + np.arange(right[right_axis])[None] * params["rhs_dilation"][index] - params["padding"][index][0]
        hole = params["lhs_dilation"][index]
        count *= int(((at >= 0) & (at <= (left[left_axis] - 1) * hole) & (at % hole == 0)).sum())
    return count


class Matmul:
    """A large matrix product, to hold the arithmetic of other programs against."""

    def __init__(self, dtype: str):
        self.side = 2048 if jax.default_backend() == "cpu" else 8192
        self.flops = 2 * self.side**3
        self.factor = jnp.full((self.side, self.side), 0.5, dtype)
        self.program = jax.jit(jnp.matmul)

    def __call__(self) -> None:
        """Once, to its end."""
        jax.block_until_ready(self.program(self.factor, self.factor))
