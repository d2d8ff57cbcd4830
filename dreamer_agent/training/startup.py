"""Where the time goes until the first update: imports, tracing, compiling or loading, filling the replay."""

from __future__ import annotations

import time
from typing import Any

import jax

TRACING = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")
COMPILING = "/jax/core/compile/backend_compile_duration"  # with the time of loading
LOADING = "/jax/compilation_cache/cache_retrieval_time_sec"


class Startup:
    """Takes the time from when the run was `opened` to the end of the first update.

    It is taken from `began`, where the command began before (both in seconds since the epoch). JAX tells how long
    it traces, compiles and loads, until `close`; programs of an environment count, too.
    """

    def __init__(self, opened: float, began: float | None = None):
        self.began = opened if began is None else began
        self.known = {} if began is None else {"import": opened - began}
        self.spent = dict.fromkeys(("trace", "compile", "load"), 0.0)
        self.filling: float | None = None  # when the replay began to be filled
        self.prefill = 0.0
        self.parts: dict[str, float] = {}
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        self.listening = True

    def fill(self) -> None:
        """The environments are stepped from now on."""
        self.filling = time.time() - self._xla

    def filled(self) -> None:
        """An update is due; only the first one counts."""
        if self.listening and self.filling is not None:
            self.prefill = time.time() - self._xla - self.filling

    def updated(self) -> str:
        """The first update is done: a line that says what took how long, which `row` gives as numbers."""
        self.close()
        total = time.time() - self.began
        known = {**self.known, **self.spent, "prefill": self.prefill}
        self.parts = {"total": total, **known, "other": total - sum(known.values())}
        named = [f"{key} {value:.1f}" for key, value in self.parts.items() if key != "total"]
        return f"first update after {total:.1f} s: {', '.join(named)}"

    def row(self) -> dict[str, float]:
        """The seconds of each part as metrics, the first time that they are known; then nothing."""
        parts, self.parts = self.parts, {}
        return {f"time/start_{key}": value for key, value in parts.items()}

    def close(self) -> None:
        """Listen no longer."""
        if self.listening:
            jax.monitoring.unregister_event_duration_listener(self._listen)
            self.listening = False

    @property
    def _xla(self) -> float:
        return sum(self.spent.values())

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        if event in TRACING:
            self.spent["trace"] += duration_secs
        elif event == COMPILING:
            self.spent["compile"] += duration_secs
        elif event == LOADING:
            self.spent["load"] += duration_secs
            self.spent["compile"] -= duration_secs
