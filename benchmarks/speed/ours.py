"""The worker that runs this library: `python -m benchmarks.speed.ours [CHECKOUT]`.

With a CHECKOUT, the library is imported from there, so that two versions can be interleaved.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any

from benchmarks.speed.cases import Case, random_batch
from benchmarks.speed.serve import peak_memory, serve, timed

if len(sys.argv) > 1:
    sys.path.insert(0, sys.argv[1])


class Ours:
    """One case, compiled on request."""

    def build(self, case: dict[str, Any]) -> dict[str, Any]:
        """Make the agent and its state; answers with the number of parameters and the resolved sizes."""
        import jax

        from dreamer_agent.agent import Agent, count_parameters
        from dreamer_agent.config import load_config
        from dreamer_agent.specs import ArraySpec

        wanted = Case.read(case)
        config = load_config(wanted.presets, wanted.overrides)
        specs = [
            {key: ArraySpec(kind, tuple(shape), classes) for key, (kind, shape, classes) in specs.items()}
            for specs in (wanted.obs, wanted.act)
        ]
        self.agent = Agent.create(config, *specs)
        device = {"platform": jax.default_backend(), "dtype": self.agent.model.dtype.name}
        self.case = dataclasses.replace(wanted, settings=dataclasses.asdict(config) | device)
        self.state = jax.jit(self.agent.init)(jax.random.PRNGKey(0))
        return {
            "parameters": count_parameters(self.state.params),
            "settings": self.case.settings,
        }

    def compile(self) -> dict[str, float]:
        """Trace and compile the update, and run it once."""
        import jax

        start = time.perf_counter()
        batch = random_batch(self.case)
        lowered = jax.jit(self.agent.update, donate_argnums=0).lower(self.state, batch)
        traced = time.perf_counter()
        self.program = lowered.compile()
        compiled = time.perf_counter()
        self.batch = jax.device_put(batch)
        self._update()
        return {"trace_s": traced - start, "compile_s": compiled - traced}

    def update(self, seconds: float = 0.0, least: int = 1) -> dict[str, list[float]]:
        """Milliseconds of each update, on a batch that lies on the device."""
        return {"ms": timed(self._update, seconds, least)}

    def _update(self) -> None:
        import jax

        self.state, latents, metrics = self.program(self.state, self.batch)
        jax.block_until_ready((self.state, latents, metrics))


def main() -> None:
    ours = Ours()
    serve({"build": ours.build, "compile": ours.compile, "update": ours.update, "peak": peak_memory})


if __name__ == "__main__":
    main()
