"""The FLOP counter against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.speed.flops import count_flops

Array = jax.Array


def flops(function: Callable[..., Any], *shapes: tuple[int, ...]) -> int:
    return count_flops(jax.make_jaxpr(function)(*(jnp.ones(shape) for shape in shapes)))


def test_matrix_products_count_by_their_three_sides() -> None:
    assert flops(jnp.matmul, (3, 4), (4, 5)) == 2 * 3 * 4 * 5
    assert flops(jnp.matmul, (7, 3, 4), (7, 4, 5)) == 7 * 2 * 3 * 4 * 5
    assert flops(lambda x: jnp.tanh(x).sum(), (3, 4)) == 0


def test_a_scan_counts_as_often_as_it_runs() -> None:
    def loop(x: Array, w: Array) -> Array:
        return jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=5)[0]

    assert flops(loop, (3, 4), (4, 4)) == 5 * 2 * 3 * 4 * 4
    assert flops(lambda x, w: jax.lax.map(lambda _: loop(x, w), jnp.arange(3)), (3, 4), (4, 4)) == 3 * 480
    # Backwards, each step has one product for the carry and one for the weights.
    gradient = jax.grad(lambda x, w: jnp.tanh(loop(x, w)).sum(), (0, 1))
    assert flops(gradient, (3, 4), (4, 4)) == 3 * 480


def test_what_no_output_needs_does_not_count() -> None:
    def loop(x: Array, w: Array) -> Array:
        def step(c: Array, _: None) -> tuple[Array, Array]:
            return c @ w, c @ w @ w  # the second is never used

        return jax.lax.scan(step, x, None, length=5)[0]

    assert flops(loop, (3, 4), (4, 4)) == 480
    assert flops(jax.jit(loop), (3, 4), (4, 4)) == 480


def test_a_branch_counts_by_its_dearest_side() -> None:
    def choose(x: Array) -> Array:
        return jax.lax.cond(x.sum() > 0, lambda: x @ x @ x, lambda: x @ x)

    assert flops(choose, (4, 4)) == 2 * 2 * 4**3


def test_a_while_loop_with_products_is_refused() -> None:
    def loop(x: Array) -> Array:
        return jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ x, x)

    with pytest.raises(ValueError, match="write it as a scan"):
        flops(loop, (4, 4))


conv = partial(jax.lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_convolutions_count_what_meets_a_pixel() -> None:
    # Along a side of 4 with a kernel of 3: the two edges meet 2 pixels, the two inner places 3.
    same = partial(conv, window_strides=(1, 1), padding="SAME")
    assert flops(same, (2, 4, 4, 3), (3, 3, 3, 5)) == 2 * (2 * 5 * 3) * 10**2
    # Stride 2 with a kernel of 2 meets each of the 4 pixels once.
    strided = partial(conv, window_strides=(2, 2), padding="VALID")
    assert flops(strided, (2, 4, 4, 3), (2, 2, 3, 5)) == 2 * (2 * 5 * 3) * 4**2
    grouped = partial(same, feature_group_count=3)
    assert flops(grouped, (2, 4, 4, 3), (3, 3, 1, 6)) == 2 * (2 * 6 * 1) * 10**2


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_each_gradient_of_a_convolution_costs_as_much_as_the_convolution(strides: tuple[int, int]) -> None:
    """Theirs are convolutions with holes and wide padding, whose nominal cost is far greater."""
    one = partial(conv, window_strides=strides, padding="SAME")
    forward = flops(one, (2, 8, 8, 3), (3, 3, 3, 5))
    both = flops(jax.grad(lambda x, k: one(x, k).sum(), (0, 1)), (2, 8, 8, 3), (3, 3, 3, 5))
    assert both == 2 * forward > 0  # the convolution itself is not needed for them


def test_the_count_agrees_with_multiplications_done() -> None:
    """A convolution of ones gives in every place the number of pixels that it met."""
    one = partial(conv, window_strides=(2, 1), padding=((1, 2), (0, 3)), lhs_dilation=(1, 2), rhs_dilation=(2, 1))
    shapes = (2, 7, 5, 3), (3, 2, 3, 4)
    met = np.asarray(one(*(jnp.ones(shape) for shape in shapes))).sum()
    assert flops(one, *shapes) == 2 * met
