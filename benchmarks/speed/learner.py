"""What our worker does with the learner: build, compile, update, act."""

from __future__ import annotations

import dataclasses
import time
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.speed.cases import Case, random_array, random_batch
from benchmarks.speed.flops import Matmul, count_flops
from benchmarks.speed.serve import peak_memory, timed
from dreamer_agent.agent import Agent, count_parameters
from dreamer_agent.compiling import compiled
from dreamer_agent.config import load_config
from dreamer_agent.envs import Rows
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training.driver import Driver
from dreamer_agent.training.run_directory import provenance

Reply = dict[str, Any]


class Learner:
    """One agent, with the programs that were asked for."""

    def __init__(self) -> None:
        self.drivers: dict[int, Driver] = {}

    def provenance(self) -> Reply:
        """Versions, commit and hardware."""
        return provenance() | {"cpu": processor()}

    def build(self, case: Reply) -> Reply:
        """Make the agent; answers with its number of parameters and with the sizes that its presets stand for."""
        wanted = Case.read(case)
        config = load_config(wanted.presets, wanted.overrides)
        self.agent = Agent.create(config, _specs(wanted.obs), _specs(wanted.act))
        device = {"platform": jax.default_backend(), "dtype": self.agent.model.dtype.name}
        self.case = dataclasses.replace(wanted, settings=dataclasses.asdict(config) | device)
        shapes = jax.eval_shape(self.agent.init, jax.random.PRNGKey(0))
        return {"parameters": count_parameters(shapes.params), "settings": self.case.settings}

    def compile(self, seeds: int = 1, updates: int = 1) -> Reply:
        """Trace and compile the program, and run it once: `updates` in one call, for `seeds` agents at once.

        Answers with the seconds that both took, and with the floating-point operations of one update of all
        seeds.
        """
        init, function, self.batch = program(self.agent, self.case, seeds, updates)
        self.updates, self.state = updates, jax.jit(init)()
        start = time.perf_counter()
        traced = compiled(function, donate_argnums=0).trace(self.state, self.batch)
        lowered = traced.lower()
        middle = time.perf_counter()
        self.program = lowered.compile()
        end = time.perf_counter()
        self._update()
        flops = count_flops(traced.jaxpr) // updates
        return {"trace_s": middle - start, "compile_s": end - middle, "flops": flops}

    def update(self, seconds: float = 0.0, least: int = 1) -> Reply:
        """Milliseconds of each update (a call's time over its updates), on a batch that lies on the device."""
        return {"ms": [ms / self.updates for ms in timed(self._update, seconds, least)]}

    def peak(self) -> Reply:
        """The largest memory so far, of the process and (where it tells) of the device, in bytes."""
        stats = jax.devices()[0].memory_stats() or {}
        return peak_memory() | {"peak_device": stats.get("peak_bytes_in_use")}

    def matmul(self, seconds: float = 0.0, least: int = 3) -> Reply:
        """Milliseconds of a large matrix product in the precision of the agent, and its operations."""
        return {"ms": timed(self._matmul, seconds, least), "flops": self._matmul.flops}

    def policy(self, envs: int, seconds: float = 0.0, least: int = 1) -> Reply:
        """Milliseconds of acting in `envs` environments, with the copies from and to NumPy, as the loop does."""
        if envs not in self.drivers:
            specs = self.agent.model.obs_specs, self.agent.model.act_specs
            self.drivers[envs] = Driver(self.agent, StillEnv(envs, *specs), 0)
        driver, params = self.drivers[envs], self.state.params

        def step() -> None:
            for _ in driver.rows(params):
                pass

        return {"ms": timed(step, seconds, least)}

    @cached_property
    def _matmul(self) -> Matmul:
        matmul = Matmul(self.case.settings["dtype"])
        matmul()
        return matmul

    def _update(self) -> None:
        self.state, *rest = self.program(self.state, self.batch)
        jax.block_until_ready((self.state, rest))


class StillEnv:
    """Environments that cost nothing: what remains is the policy step."""

    interface = None

    def __init__(self, num_envs: int, obs_specs: Any, act_specs: Any):
        self.num_envs, self.obs_specs, self.act_specs = num_envs, obs_specs, act_specs
        rng, no = np.random.default_rng(0), np.zeros(num_envs, bool)
        obs = {
            key: random_array(rng, (spec.kind, spec.shape, spec.classes), (num_envs,))
            for key, spec in obs_specs.items()
        }
        self.rows = [Rows(obs, np.zeros(num_envs, np.float32), no, no, no)]

    def reset(self, seed: int) -> list[Rows]:
        return self.rows

    def step(self, actions: Any) -> list[Rows]:
        return self.rows

    def close(self) -> None:
        pass


def program(agent: Agent, case: Case, seeds: int, updates: int) -> tuple[Any, Any, Any]:
    """`init()`, the update `(state, batch) -> (state, rest)` and its batch on the device.

    With several seeds everything has them in front `[S, ...]`; with several updates in one call the batch has
    those in front of all.
    """
    key, batch = jax.random.PRNGKey(0), random_batch(case)
    init, function = agent.init, agent.update
    if seeds > 1:
        key, init, function = jax.random.split(key, seeds), jax.vmap(init), jax.vmap(function)
        batch = _stack([random_batch(case, seed) for seed in range(seeds)])
    if updates > 1:
        function, batch = _in_one_call(function), _stack([batch] * updates)
    return partial(init, key), function, jax.device_put(batch)


def processor() -> str | None:
    """The name of the CPU, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _specs(specs: Any) -> dict[str, ArraySpec]:
    return {key: ArraySpec(kind, tuple(shape), classes) for key, (kind, shape, classes) in specs.items()}


def _stack(batches: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


def _in_one_call(update: Any) -> Any:
    """Updates on batches `[K, ...]`, one after the other, as one program."""

    def several(state: Any, batches: Any) -> Any:
        def one(state: Any, batch: Any) -> Any:
            state, *rest = update(state, batch)
            return state, rest

        return jax.lax.scan(one, state, batches)

    return several
