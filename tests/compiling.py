"""Compilation for tests: their programs run once on tiny arrays, so optimising them costs more than it saves."""

import functools

import jax

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
