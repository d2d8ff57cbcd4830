"""The one seam between the algorithm and neural-network libraries: a pair of pure functions.

The rest of the code sees `Net` and plain nested dicts of arrays, never a library's module. Trap: a
`lax.scan` inside a Linen or Haiku module leaks tracers out of `init`; modules do one step, scans live outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn

Params = Any


class Net(NamedTuple):
    """`init(key, *inputs) -> params` and `apply(params, *inputs) -> output`, both pure."""

    init: Callable[..., Params]
    apply: Callable[..., Any]


def from_linen(module: nn.Module) -> Net:
    """A Flax Linen module (parameters only, no mutable collections) as a `Net`."""

    def init(key: Any, *inputs: Any) -> Params:
        variables = module.init(key, *inputs)
        if extra := set(variables) - {"params"}:
            raise ValueError(
                f"The Linen module {type(module).__name__} holds the collections {sorted(extra)}; "
                "a Net has parameters only, so remove layers with hidden state such as BatchNorm."
            )
        return variables.get("params", {})

    return Net(init, lambda params, *inputs: module.apply({"params": params}, *inputs))


def from_haiku(function: Callable[..., Any]) -> Net:
    """A function that builds Haiku modules and calls them, as a `Net`. Haiku raises on hidden state."""
    from dreamer_agent.errors import missing_extra

    try:
        import haiku as hk
    except ImportError as error:
        raise missing_extra("dm-haiku", "haiku") from error
    transformed: Any = hk.without_apply_rng(hk.transform(function))
    return Net(transformed.init, transformed.apply)
