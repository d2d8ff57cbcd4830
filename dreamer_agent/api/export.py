"""Exporting the policy: plain weights, and a program that needs nothing but JAX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.agent import ACTING, ActState, Agent
from dreamer_agent.config import Config, save_config
from dreamer_agent.envs import Interface
from dreamer_agent.errors import RunDirectoryError
from dreamer_agent.nets import Params
from dreamer_agent.training.opening import SPACES
from dreamer_agent.training.weights import FILE, save_weights

PROGRAM = "policy.jax"
PLATFORMS = ("cpu", "cuda", "tpu")


def export_agent(
    folder: Path, agent: Agent, params: Params, config: Config, interface: Interface, program: bool = True
) -> dict[str, float]:
    """Write `weights.npz`, `config.yaml`, `spaces.json` and, with `program`, `policy.jax` to a new folder.

    `Dreamer.load` takes the folder. The program, of the policy alone where a planner acts, is
    `policy(carry, obs, is_first, seed, explore) -> carry` on plain dicts of arrays with any number of rows:
    `carry` has "deter", "stoch" and "action" (a dict by action key: what to do, as the policy gave it), zeros at
    first; `seed` is a uint32, another one at each step. It was checked against the agent on random input before
    this returns; the largest difference of each output is given. Raises `RunDirectoryError` where the folder
    holds something else.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunDirectoryError(f"{folder} holds something already: export to a new or empty folder.")
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / FILE, params)
    save_config(config, folder / "config.yaml")
    interface.save(folder / SPACES)
    if not program:
        return {}
    agent = agent.policy_alone
    step = _program(agent, params)
    exported = jax.export.export(jax.jit(step), platforms=PLATFORMS)(*_shapes(agent))
    (folder / PROGRAM).write_bytes(exported.serialize())
    return parity(folder / PROGRAM, agent, params)


def parity(path: Path, agent: Agent, params: Params, rows: int = 3, steps: int = 4) -> dict[str, float]:
    """The largest absolute differences between the program at `path` and the agent, on random observations."""
    loaded = jax.export.deserialize(bytearray(path.read_bytes()))
    rng = np.random.default_rng(0)
    ours = theirs = _initial(agent, rows)
    step = jax.jit(_program(agent, params))
    worst: dict[str, float] = {}
    for index in range(steps):
        obs = {key: _random(rng, spec, rows) for key, spec in agent.model.obs_specs.items()}
        first = np.full(rows, index == 0)
        inputs = (obs, first, np.uint32(index), np.bool_(index % 2))
        ours, theirs = step(ours, *inputs), loaded.call(theirs, *inputs)
        for name, value in _differences(ours, theirs).items():
            worst[name] = max(worst.get(name, 0.0), value)
    return worst


def _program(agent: Agent, params: Params) -> Any:
    """The agent's step over plain dicts; the parameters become constants of the program."""
    acting = {key: params[key] for key in ACTING}

    def policy(carry: dict, obs: dict, is_first: Any, seed: Any, explore: Any) -> dict:
        before = ActState(agent.model.rssm.kind.join(carry["deter"], carry["stoch"]), carry["action"])
        after = agent.act(acting, jax.random.PRNGKey(seed), before, obs, is_first, explore)
        return {"deter": after.latent.deter, "stoch": after.latent.stoch, "action": after.action}

    return policy


def _initial(agent: Agent, rows: int) -> dict[str, Any]:
    carry = agent.init_act(rows)
    return {"deter": carry.latent.deter, "stoch": carry.latent.stoch, "action": carry.action}


def _shapes(agent: Agent) -> tuple:
    """Shapes of the program's arguments, with a symbolic number of rows."""
    (rows,) = jax.export.symbolic_shape("rows")

    def any_number(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype)

    carry = jax.tree.map(any_number, _initial(agent, 1))
    obs = {
        key: jax.ShapeDtypeStruct((rows, *spec.shape), spec.dtype) for key, spec in agent.model.obs_specs.items()
    }
    return (
        carry, obs, jax.ShapeDtypeStruct((rows,), jnp.bool_), jax.ShapeDtypeStruct((), jnp.uint32),
        jax.ShapeDtypeStruct((), jnp.bool_),
    )  # fmt: skip


def _random(rng: np.random.Generator, spec: Any, rows: int) -> np.ndarray:
    if spec.kind == "continuous":
        return rng.normal(size=(rows, *spec.shape)).astype(np.float32)
    top = 256 if spec.kind == "image" else spec.classes
    return rng.integers(0, top, (rows, *spec.shape)).astype(spec.dtype)


def _differences(ours: dict, theirs: dict) -> dict[str, float]:
    flat = {"deter": (ours["deter"], theirs["deter"]), "stoch": (ours["stoch"], theirs["stoch"])}
    flat |= {f"action/{key}": (value, theirs["action"][key]) for key, value in ours["action"].items()}
    return {
        name: float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())
        for name, (a, b) in flat.items()
    }
