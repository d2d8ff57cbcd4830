"""A trained run as an environment to train in: what its world model dreams."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dreamer_agent.api.runs import LoadedRun, at_least_one, enable_compilation_cache, load_saved, run_folder
from dreamer_agent.config import Config, EnvConfig
from dreamer_agent.dreams import Dream, first_starts, replayed_starts
from dreamer_agent.dreams.gymnasium_envs import DreamEnv, DreamVectorEnv
from dreamer_agent.dreams.starts import Starts
from dreamer_agent.envs import VectorEnv, make_env, register_suite
from dreamer_agent.envs.make import make_jax
from dreamer_agent.envs.sources import call
from dreamer_agent.errors import ConfigError, RunDirectoryError
from dreamer_agent.replay import HostReplay, ReplayStore
from dreamer_agent.training.checkpoint import REPLAY, sound
from dreamer_agent.training.evaluate import EVALUATION_SEED
from dreamer_agent.training.opening import replay_sizes

STARTS = 1024  # latents that dreams begin from


def dream_env(run: str | Path, render_mode: str | None = None, **settings: Any) -> DreamEnv:
    """The world model of `run` as a `gymnasium.Env`; `settings` as of `load_dream`."""
    return load_dream(run, **settings).env(render_mode)


def dream_vector_env(
    run: str | Path, num_envs: int, render_mode: str | None = None, **settings: Any
) -> DreamVectorEnv:
    """The world model of `run` as a `gymnasium.vector.VectorEnv`; `settings` as of `load_dream`."""
    return load_dream(run, **settings).vector_env(num_envs, render_mode=render_mode)


def load_dream(
    run: str | Path, starts: Any = None, count: int = STARTS, best: bool = False, seed: int = 0, **settings: Any
) -> Dream:
    """The world model of a run, an exported agent or a shipped one, to make environments of.

    Dreams begin at `count` latents, which `seed` draws: of steps in the run's replay (`starts`="replay", the
    default where there is one), or of first observations of episodes ("reset": those in the replay, else of the
    environment, which is reset for them); or after first observations that are given, a batch `[S, ...]` of the
    observation space. `settings` are those of `Dream`: horizon, temperature, ends, observe, doubt, most_doubt.
    Doubt is, if not given, the disagreement of the model's ensemble in nats, where it has one.
    Raises a `DreamerError` that says what to mend.
    """
    enable_compilation_cache()
    at_least_one("starts", count)
    saved, folder = load_saved(run, best), run_folder(run)
    replay = saved_replay(folder, saved, seed) if starts is None or isinstance(starts, str) else None
    starts = ("replay" if replay else "reset") if starts is None else starts
    found = _starts(saved, replay, starts, count, seed, run)
    model = saved.agent.model
    if model.ensemble is not None:
        settings = {"doubt": lambda params, latent: model.doubt(params, latent.features), **settings}
    return Dream(saved.agent, saved.state.average, saved.interface, found, **settings)


def saved_replay(folder: Path, saved: LoadedRun, seed: int = 0) -> HostReplay | None:
    """The replay of the newest checkpoint, in main memory; None where none is kept or it holds no window."""
    if not (folder / "checkpoints").is_dir():
        return None
    checkpoint = next(sound(folder, with_replay=True), None)
    uniform = dataclasses.replace(saved.config.replay, online=False)
    if checkpoint is None:
        return None
    sizes = replay_sizes(dataclasses.replace(saved.config, replay=uniform), saved.agent)
    replay = HostReplay(*sizes, seed)
    try:
        replay.restore(ReplayStore(folder / REPLAY).load(checkpoint.index))
    except ValueError as error:
        raise RunDirectoryError(
            f"The replay in {folder} does not fit its configuration ({error}): let dreams begin from resets, "
            "starts='reset'."
        ) from error
    return replay if replay.ready() else None


def _starts(
    saved: LoadedRun, replay: HostReplay | None, starts: Any, count: int, seed: int, run: str | Path
) -> Starts:
    agent, params, key = saved.agent, saved.state.average, jax.random.PRNGKey(seed)
    if not isinstance(starts, str):
        return first_starts(agent, params, _given(saved, starts), key)
    if starts == "replay" and replay is None:
        raise RunDirectoryError(f"{run} holds no replay: let dreams begin from resets, starts='reset'.")
    if starts == "replay":
        assert replay is not None
        return replayed_starts(agent, params, replay, key, count)
    if starts != "reset":
        raise ConfigError(f"starts={starts!r} was asked for: choose replay, reset, or give first observations.")
    obs = _first_held(replay, count, seed) if replay is not None else _first_seen(saved.config, count, seed)
    return first_starts(agent, params, obs, key)


def _given(saved: LoadedRun, observations: Any) -> dict[str, np.ndarray]:
    """First observations of the user's, encoded; masks that come in infos count as leaving all legal."""
    count = len(jax.tree.leaves(observations)[0])
    return saved.interface.encode(observations, count)


def _first_held(replay: HostReplay, count: int, seed: int) -> dict[str, np.ndarray]:
    """First observations of up to `count` episodes in the replay; every stream begins with one."""
    held = np.arange(replay.length) < replay.added[:, None]
    streams, slots = np.nonzero(replay.data["is_first"] & held)
    chosen = np.random.default_rng(seed).permutation(len(streams))[:count]
    return {name: value[streams[chosen], slots[chosen]] for name, value in replay.data["obs"].items()}


def _first_seen(config: Config, count: int, seed: int) -> dict[str, np.ndarray]:
    """First observations of `count` episodes of the environment, which is reset so often and never stepped."""
    env = make_env(config.env, min(config.train.eval_envs, count))
    try:
        begin = config.seed + seed + 2 * EVALUATION_SEED
        rows = [env.reset(begin + number)[0].obs for number in range(0, count, env.num_envs)]
    finally:
        env.close()
    return {name: np.concatenate([row[name] for row in rows])[:count] for name in rows[0]}


@register_suite("dream")
def _dream(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """A run as its world model dreams it, dream:RUN; kwargs are horizon, starts and more of load_dream."""
    return make_jax(call(partial(load_dream, task), config), config, count)
