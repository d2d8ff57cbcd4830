"""Parameters on their own: plain npz files, and starting from another run's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.agent import AgentState
from dreamer_agent.behaviour import ExplorerState
from dreamer_agent.errors import RunDirectoryError
from dreamer_agent.nets import Params
from dreamer_agent.training.checkpoint import newest

FILE = "weights.npz"
Named = dict[str, np.ndarray]  # arrays by their path in the tree, such as "['actor']['out']['kernel']"


@dataclass(frozen=True)
class Transfer:
    """What `init_from` took over, by parameter names: equal shape, other shape (old, new), and not there."""

    matched: list[str]
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    missing: list[str]

    def report(self, source: str) -> list[str]:
        """The lines to show."""
        lines = [f"started from {source}: {len(self.matched)} arrays taken over"]
        if self.reshaped:
            shown = ", ".join(
                f"{name} {list(a)} -> {list(b)}" for name, (a, b) in list(self.reshaped.items())[:4]
            )
            lines.append(
                f"  {len(self.reshaped)} kept their fresh values since their shape differs: "
                f"{_more(shown, self.reshaped, 4)}"
            )
        if self.missing:
            shown = ", ".join(self.missing[:4])
            lines.append(
                f"  {len(self.missing)} are not there and kept their fresh values: "
                f"{_more(shown, self.missing, 4)}"
            )
        return lines


def save_weights(path: Path, params: Params) -> None:
    """Write `params` as an npz of plain arrays."""
    np.savez(path, **named(params))


def load_weights(path: Path) -> Named:
    """The arrays of an npz that `save_weights` wrote; nothing in it is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file.items())
    except (OSError, ValueError, EOFError) as error:
        raise RunDirectoryError(f"{path} is no readable file of weights ({error}): copy it again.") from error


def fill(template: Params, weights: Mapping[str, np.ndarray], where: Path) -> Params:
    """`template` with its arrays replaced by `weights`; all must be there in the same shapes."""
    for name, leaf in named(template, arrays=False).items():
        if name not in weights:
            raise RunDirectoryError(
                f"{where} lacks the array {name}: use the configuration that it was saved with."
            )
        if weights[name].shape != leaf.shape:
            raise RunDirectoryError(
                f"{where} holds {name} of the shape {list(weights[name].shape)}, but the model needs "
                f"{list(leaf.shape)}: use the configuration that it was saved with."
            )
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(weights[_name(path)], leaf.dtype), template
    )


def read_weights(folder: Path) -> Named:
    """The averaged parameters of a run directory (its newest checkpoint), or those of an exported agent."""
    if (folder / "checkpoints").is_dir():
        agent = newest(folder).raw_agent()
        return named(agent.get("average", agent["params"]))
    if (folder / FILE).is_file():
        return load_weights(folder / FILE)
    raise RunDirectoryError(
        f"{folder} holds neither checkpoints nor {FILE}: give a run directory or an exported agent."
    )


def start_from(state: AgentState, weights: Mapping[str, np.ndarray]) -> tuple[AgentState, Transfer]:
    """`state` with the parameters whose names and shapes match `weights`; what is copied of them follows."""
    fresh = named(state.params, arrays=False)
    matched = [name for name, leaf in fresh.items() if name in weights and weights[name].shape == leaf.shape]
    reshaped = {
        name: (weights[name].shape, leaf.shape)
        for name, leaf in fresh.items()
        if name in weights and weights[name].shape != leaf.shape
    }
    missing = [name for name in fresh if name not in weights]
    taken = set(matched)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(weights[_name(path)], leaf.dtype) if _name(path) in taken else leaf,
        state.params,
    )
    return with_params(state, params), Transfer(matched, reshaped, missing)


def with_params(state: AgentState, params: Params) -> AgentState:
    """`state` with `params`; slow critic and average are copied anew."""
    slow, average = jax.tree.map(jnp.copy, (params["critic"], params))
    explorer = ExplorerState.begin(params) if state.explorer else ()
    return state._replace(params=params, slow_critic=slow, average=average, explorer=explorer)


def named(params: Params, arrays: bool = True) -> dict[str, Any]:
    """The leaves of a tree by their path; as NumPy arrays unless only their shapes matter."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {_name(path): np.asarray(leaf) if arrays else leaf for path, leaf in leaves}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path)


def _more(shown: str, all_of_them: Any, count: int) -> str:
    return shown + (", ..." if len(all_of_them) > count else "")
