"""How the learner's programs are compiled: the one place that knows the compiler's options."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax

# XLA's CPU backend hands products to YNNPACK together with the layers between them: a whole MLP head becomes one
# kernel that stays in the cache. Its default adds reductions and lone elementwise operations, which that library
# does more slowly than XLA's own loops (see docs/performance.md).
CPU = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit(function, **options)` with the compiler options that suit the learner on this backend."""
    return jax.jit(function, compiler_options=compiler_options(), **options)


def compiler_options() -> dict[str, Any]:
    """XLA's options for the learner; empty where this backend or this version of XLA has none of them."""
    return dict(CPU) if jax.default_backend() == "cpu" and _known() else {}


@cache
def _known() -> bool:
    """Whether this XLA takes the options: they are experimental, and an unknown one is an error."""
    try:
        jax.jit(lambda x: x, compiler_options=CPU).lower(0.0).compile()
    except Exception:
        return False
    return True
