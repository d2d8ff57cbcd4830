"""The worker that runs danijar/dreamerv3: `python -m benchmarks.speed.official CHECKOUT`.

It is run as its own configuration says, with three exceptions: platform and precision are those that are asked
for, and the profiler, which would write a trace at update 100, is off. On jax 0.10 `jax.jit` takes only the
function by position; the checkout passes more, so they are given their names here.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks.speed.cases import (
    REPLAY_ENVS,
    REPLAY_STEPS,
    Case,
    Spec,
    random_array,
    random_batch,
    random_steps,
)
from benchmarks.speed.serve import peak_memory, serve, timed

JIT_ARGUMENTS = ("in_shardings", "out_shardings", "static_argnums", "static_argnames", "donate_argnums")
FLAGS = ("is_first", "is_last", "is_terminal")


class Official:
    """One case, compiled on request."""

    def build(self, case: dict[str, Any]) -> dict[str, Any]:
        """Make the agent; answers with the number of trained parameters (the slow critic aside)."""
        self.case = Case.read(case)
        name_jit_arguments()
        from dreamerv3.agent import Agent

        self.agent = Agent(*spaces(self.case), settings(self.case))
        trained = {
            key: value.size
            for key, value in self.agent.params.items()
            if key.split("/")[0] in ("enc", "dyn", "dec", "rew", "con", "pol", "val")
        }
        return {"parameters": sum(trained.values())}

    def compile(self) -> dict[str, float]:
        """Trace and compile the update, as `Agent._compile_train` does, and run it once."""
        from embodied.jax import internal

        from benchmarks.speed.flops import count_flops

        agent, batch = self.agent, self.case.settings["replay"]["batch_size"]
        self.data = internal.device_put(as_official(random_batch(self.case), self.case), agent.train_sharded)
        self.seed = agent._seeds(0, agent.train_mirrored)
        self.carry = agent.init_train(batch)
        kept = {key: value for key, value in agent.params.items() if key in agent.policy_keys}
        given = {key: value for key, value in agent.params.items() if key not in agent.policy_keys}
        with agent.train_mesh:
            start = time.perf_counter()
            traced = agent._train.trace(given, kept, self.seed, self.carry, self.data)
            lowered = traced.lower()
            middle = time.perf_counter()
            agent._train = lowered.compile()
        end = time.perf_counter()
        self._update()
        return {"trace_s": middle - start, "compile_s": end - middle, "flops": count_flops(traced.jaxpr)}

    def update(self, seconds: float = 0.0, least: int = 1) -> dict[str, list[float]]:
        """Milliseconds of each update, on a batch that lies on the device."""
        return {"ms": timed(self._update, seconds, least)}

    def policy(self, envs: int, seconds: float = 0.0, least: int = 1) -> dict[str, list[float]]:
        """Milliseconds of acting in `envs` environments, with the copies from and to NumPy."""
        rng = np.random.default_rng(0)
        obs = {key: random_array(rng, spec, (envs,)) for key, spec in self.case.obs.items()}
        obs["reward"] = np.zeros(envs, np.float32)
        obs |= {flag: np.zeros(envs, bool) for flag in FLAGS}
        carry = self.agent.init_policy(envs)

        def step() -> None:
            nonlocal carry
            carry, _, _ = self.agent.policy(carry, obs)

        step()
        return {"ms": timed(step, seconds, least)}

    def fill(self) -> dict[str, Any]:
        """Fill a replay and serve its online queue, so that sampling draws uniformly from then on."""
        import embodied

        replay = self.case.settings["replay"]
        length, self.batch = 1 + replay["batch_length"], replay["batch_size"]
        self.replay = embodied.replay.Replay(length, REPLAY_STEPS, online=True)
        steps = as_official(random_steps(self.case), self.case)
        del steps["stepid"], steps["consec"]  # the replay adds them
        self.steps = [{key: array[env] for key, array in steps.items()} for env in range(REPLAY_ENVS)]
        for _ in range(REPLAY_STEPS // REPLAY_ENVS):
            self._add()
        for _ in range(REPLAY_STEPS // (self.batch * length) + 1):
            self.replay.sample(self.batch)
        return {}

    def sample(self, seconds: float = 0.0, least: int = 1) -> dict[str, list[float]]:
        """Milliseconds of sampling a batch."""
        return {"ms": timed(lambda: self.replay.sample(self.batch), seconds, least)}

    def add(self, seconds: float = 0.0, least: int = 1) -> dict[str, list[float]]:
        """Milliseconds of adding one step of every environment."""
        return {"ms": timed(self._add, seconds, least)}

    def _add(self) -> None:
        for env, step in enumerate(self.steps):
            self.replay.add(step, env)

    def _update(self) -> None:
        import jax

        # What it returns are the outputs of the call before; the new parameters and carry are those of this one.
        self.carry, _, _ = self.agent.train(self.carry, {**self.data, "seed": self.seed})
        jax.block_until_ready((self.agent.params, self.carry, self.agent.pending_mets))


def name_jit_arguments() -> None:
    """Let `jax.jit` take its arguments by position, in the order of `JIT_ARGUMENTS`."""
    import jax

    jit = jax.jit

    def named(function: Any, *args: Any, **kwargs: Any) -> Any:
        return jit(function, **dict(zip(JIT_ARGUMENTS, args, strict=False)), **kwargs)

    jax.jit = named


def settings(case: Case) -> Any:
    """The configuration of the agent: the checkout's defaults with the sizes of `case`."""
    import elements
    import ruamel.yaml

    file = pathlib.Path(sys.argv[1]) / "dreamerv3" / "configs.yaml"
    config = elements.Config(ruamel.yaml.YAML(typ="safe").load(file.read_text())["defaults"])
    model, replay, ours = (case.settings[key] for key in ("model", "replay", "behaviour"))
    rssm = {key: model[key] for key in ("deter", "hidden", "stoch", "classes")}
    config = config.update({r".*\.rssm": rssm, r".*\.units": model["units"], r".*\.depth": model["depth"]})
    config = config.update({"agent.imag_length": ours["imagination_horizon"]})
    # The platform is asked of nobody: JAX must not start before the checkout has set its XLA flags.
    platform = {"gpu": "cuda"}.get(case.settings["platform"], case.settings["platform"])
    device = {"platform": platform, "compute_dtype": case.settings["dtype"]}
    return elements.Config(
        **config.agent,
        logdir=tempfile.mkdtemp(),
        seed=config.seed,
        jax={**config.jax, **device, "profiler": False, "precompile": False},
        batch_size=replay["batch_size"],
        batch_length=replay["batch_length"],
        replay_context=config.replay_context,
        report_length=config.report_length,
        replica=config.replica,
        replicas=config.replicas,
    )


def spaces(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its observation space (with reward and flags) and its action space."""
    import elements

    def space(spec: Spec) -> Any:
        kind, shape, classes = spec
        if kind == "image":
            return elements.Space(np.uint8, tuple(shape), 0, 255)
        if kind == "discrete":
            return elements.Space(np.int32, tuple(shape), 0, classes)
        return elements.Space(np.float32, tuple(shape), -1, 1)

    obs = {key: space(spec) for key, spec in case.obs.items()}
    obs["reward"] = elements.Space(np.float32)
    obs.update({flag: elements.Space(bool) for flag in FLAGS})
    return obs, {key: space(spec) for key, spec in case.act.items()}


def as_official(batch: dict[str, Any], case: Case) -> dict[str, Any]:
    """Our random steps in its form: one level, latents one-hot, with the bookkeeping that it expects."""
    classes = case.settings["model"]["classes"]
    lead, latent = batch["reward"].shape, batch["latent"]
    return {
        **batch["obs"],
        **batch["action"],
        **{key: batch[key] for key in ("reward", *FLAGS)},
        "consec": np.zeros(lead, np.int32),
        "stepid": np.zeros((*lead, 20), np.uint8),
        "dyn/deter": latent["deter"],
        "dyn/stoch": np.eye(classes, dtype=np.float32)[latent["stoch"]],
    }


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    theirs = Official()
    names = ("build", "compile", "update", "policy", "fill", "sample", "add")
    serve({"peak": peak_memory, **{name: getattr(theirs, name) for name in names}})


if __name__ == "__main__":
    main()
