"""`Dreamer`: an agent in one object, in the vocabulary of stable-baselines3."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from dreamer_agent.agent import Agent, AgentState
from dreamer_agent.api.configuration import Overrides, configure, default_folder
from dreamer_agent.api.export import export_agent
from dreamer_agent.api.policy import Policy
from dreamer_agent.api.presets import AUTO
from dreamer_agent.api.reports import WINDOWS, report_envs, report_of
from dreamer_agent.api.runs import (
    LoadedRun,
    at_least_one,
    dream_envs,
    dream_of,
    enable_compilation_cache,
    load_saved,
    make_ready,
    run_folder,
    with_planner,
)
from dreamer_agent.config import merge
from dreamer_agent.dreams import HORIZONS, DreamReport, OpenLoop
from dreamer_agent.envs import Interface, VectorEnv, source_of
from dreamer_agent.errors import RunDirectoryError, SpaceError
from dreamer_agent.planning import ObservedReward, Planner
from dreamer_agent.specs import specs_difference
from dreamer_agent.training import Evaluation, Trainer, evaluate, run_directory
from dreamer_agent.training.loop import open_trainer
from dreamer_agent.training.opening import SPACES
from dreamer_agent.training.saving import save_as


class Dreamer:
    """An agent for one environment: `Dreamer("CartPole-v1").learn(20_000).evaluate()`.

    `env` is a gymnasium id ("module:Id-v0" imports first), "suite:task", "module:Class", a class or function that
    makes environments, an instance, a gymnasium vector environment, or a `JaxEnv`. Instances are used as they
    are, for training and evaluation alike; the other forms are made anew as often as needed.

    `preset` names one or several presets; "auto" chooses by the observations (`auto_presets`). `size` is a model
    size ("nano" to "400m"), `config` any other values: {"replay.ratio": 64} or ["replay.ratio=64"]. `run` is the
    run directory, by default runs/ENV-SEED; what lies there is gone on with. `init_from` is a run or exported
    agent whose weights a fresh run starts from. Raises a `DreamerError` that says what to mend.
    """

    def __init__(
        self, env: Any, preset: str | Sequence[str] = AUTO, *, size: str | None = None, config: Overrides = (),
        run: str | Path | None = None, seed: int | None = None, num_envs: int | None = None,
        init_from: str | Path | None = None, quiet: bool = False,
    ):  # fmt: skip
        self.source, self.quiet = source_of(env), quiet
        presets = [preset] if isinstance(preset, str) else list(preset)
        fixed: dict[str, Any] = {"env": {"id": self.source.id, "kwargs": dict(self.source.kwargs)}}
        if seed is not None:
            fixed["seed"] = seed
        if num_envs or self.source.borrowed:
            fixed["env"]["num_envs"] = self.source.borrowed or num_envs
        if init_from:
            fixed["init_from"] = str(init_from)
        self.config = configure(presets, size, config, fixed, self.source)
        self.folder = Path(run) if run else default_folder(self.config)
        self._fresh()

    def _fresh(self) -> None:
        self._trainer: Trainer | None = None
        self._saved: LoadedRun | None = None
        self._policies: dict[Any, Policy] = {}  # by planner and rewards
        self._target = 0

    # Learning

    def learn(self, total_timesteps: int, callback: Any = None) -> Dreamer:
        """Train for `total_timesteps` env steps (after action repeat), resuming what lies in the run directory.

        Further calls go on from there. A script that was killed and is started again makes the same calls, and so
        trains only what was missing. `callback` is a `Callback`, a function of the trainer, or a list of these;
        one that returns False ends the training.
        """
        self._target += int(total_timesteps)
        trainer = self._open()
        try:
            trainer.run(self._target, callback)
        finally:
            if trainer.counters.env_steps < self._target:  # it was stopped: the next call goes on from there
                self._target = trainer.counters.env_steps
        return self

    @property
    def env_steps(self) -> int:
        """Env steps that the agent has trained for."""
        if self._trainer:
            return self._trainer.counters.env_steps
        return run_directory.newest_step(self.folder) or 0

    # Using what was learned

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
        action_masks: Any = None, planner: str | Planner | None = None, reward_fn: ObservedReward | None = None,
    ) -> tuple[Any, Any]:  # fmt: skip
        """An action for `observation`, and the state to hand back with the next one.

        One observation of the environment's space, or a batch `[n, ...]` of them; the action has the same form,
        in the environment's own structure and type. `state` is opaque: None at first, then what the last call
        gave. `episode_start` `[n]` is true where an episode begins, so that its state is forgotten.
        `deterministic` takes the likeliest action, else it is sampled. `action_masks` are the legal actions, in
        the form of `info["action_mask"]` (a sequence of them for a batch); an agent trained with masks in infos
        needs them. A `planner` ("mppi", "cem:samples=128", or one of `dreamer_agent.planning`; by default what
        the agent trained with) tries actions in the world model instead of asking the policy; nothing is added to
        what it chooses, and `deterministic` repeats its draws. It may plan for other rewards at once: those of
        `reward_fn(obs, actions, next_obs)`, a JAX function of observations and actions as the model names and
        predicts them, `[N, ...]` by key, that gives `[N]`. Raises a `DreamerError` for an observation of another
        space or a mask without a legal action.
        """
        agent, interface = self._known()
        if (planner, reward_fn) not in self._policies:
            acting = with_planner(agent, planner, reward_fn)
            self._policies[planner, reward_fn] = Policy(acting, interface, self.config.seed)
        return self._policies[planner, reward_fn].predict(
            self._state().average, observation, state, episode_start, deterministic, action_masks
        )

    def evaluate(
        self, episodes: int = 20, deterministic: bool = False, seed: int | None = None,
        planner: str | Planner | None = None,
    ) -> Evaluation:  # fmt: skip
        """Returns and lengths of fresh episodes: `.mean`, `.returns`, `.lengths`, `.summary()`.

        Their seeds are `seed` (the run's, if not given) + 1,000,003 and on, which training does not use. An
        environment that was given as an instance is lent for this: episodes that run in it are cut. `planner` as
        of `evaluate_run`.
        """
        at_least_one("episodes", episodes)
        enable_compilation_cache()
        agent, seed = with_planner(self._known()[0], planner), self.config.seed if seed is None else seed
        count, explore = min(self.config.train.eval_envs, episodes), not deterministic and agent.planner is None
        if self.source.borrowed and self._trainer:
            return self._trainer.evaluate(explore, episodes, seed, agent)
        env = self._make(count)
        try:
            longest = self.config.train.eval_max_length
            return evaluate(agent, self._state().average, env, episodes, seed, explore, longest)
        finally:
            env.close()

    def dream(
        self, length: int | None = None, sequences: int = 3, seed: int = 0, observed: int | None = None
    ) -> OpenLoop:
        """Open-loop predictions on fresh episodes: the first steps observed, others imagined.

        Gives truth and prediction as arrays `[sequences, length, ...]`; see `dream_run` and `OpenLoop`. Raises
        `RunDirectoryError` where the environment is an instance that is in training.
        """
        with self._fresh_envs(dream_envs(self.config, sequences)) as env:
            return dream_of(
                self._known()[0], self._state(), env, length, sequences, self.config.seed + seed, observed
            )

    def dream_report(
        self, windows: int = WINDOWS, horizons: Sequence[int] = HORIZONS, seed: int = 0,
        observed: int | None = None,
    ) -> DreamReport:  # fmt: skip
        """How well the world model predicts fresh episodes, by horizon; see `api.dream_report` and `DreamReport`.

        Raises `RunDirectoryError` as `dream` does.
        """
        with self._fresh_envs(report_envs(self.config, windows)) as env:
            return report_of(
                self._known()[0], self._state(), env, windows, horizons, self.config.seed + seed, observed
            )

    # Keeping it

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write everything to the new folder `path`: weights, optimiser, replay, counters, metrics.

        It is a run directory: `Dreamer.load(path)` and every command of the command line take it, and learning
        goes on from it. With `overwrite` it replaces a run that lies there, once it is written whole. Raises
        `RunDirectoryError` where something else lies there.
        """
        folder = Path(path)
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            save_as(self._open(), folder)
            return folder
        if not overwrite or not (folder / "config.yaml").is_file():
            more = ", or pass overwrite=True" if (folder / "config.yaml").is_file() else ""
            raise RunDirectoryError(f"{folder} holds something already: save to a new or empty folder{more}.")
        if folder.resolve() == self.folder.resolve():
            raise RunDirectoryError(
                f"{folder} is the run directory of this agent: its learning is kept there anyway."
            )
        new, old = (_unused(folder.with_name(f".{folder.name}.{what}")) for what in ("new", "old"))
        save_as(self._open(), new)
        folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old)
        return folder

    def export(self, path: str | Path, program: bool = True) -> dict[str, float]:
        """Write the policy alone to the folder `path`: weights as npz, spaces, configuration, and (`program`) a
        self-contained program for `jax.export`. Gives the largest differences of a parity check. See
        `export_agent`.
        """
        agent, interface = self._known()
        return export_agent(Path(path), agent, self._state().average, self.config, interface, program)

    @classmethod
    def load(
        cls, path: str | Path, env: Any = None, quiet: bool = False, run: str | Path | None = None,
        best: bool = False,
    ) -> Dreamer:  # fmt: skip
        """The agent of a run directory, a saved or exported one, or a shipped one ("pretrained:catch").

        It is that of the newest checkpoint, or (`best`) of the one with the best return, until `learn` goes on.
        `env` overrides the environment that the run names; it must have the same spaces (`SpaceError`). `learn`
        goes on in the same folder where that is a run directory of the same environment; else, or where `run`
        names another folder, it starts a fresh run there with these weights.
        """
        enable_compilation_cache()
        saved = load_saved(path, best)
        self = cls.__new__(cls)
        self.source, self.quiet = source_of(saved.config.env.id if env is None else env), quiet
        self.config, self.folder = saved.config, run_folder(path)
        self._fresh()
        self._saved = saved
        same_env = True
        if env is not None:
            number = self.source.borrowed or self.config.env.num_envs
            env_config = dataclasses.replace(
                self.config.env, id=self.source.id, kwargs=self.source.kwargs, num_envs=number
            )
            same_env = env_config == self.config.env
            self.config = dataclasses.replace(self.config, env=env_config)
            self._check_spaces()
        if (self.folder / "checkpoints").is_dir() and same_env and run is None:
            self._target = int(run_directory.newest_step(self.folder) or 0)
        else:
            self.config = dataclasses.replace(self.config, init_from=str(self.folder))
            self.folder = Path(run) if run is not None else _unused(default_folder(self.config))
        return self

    def close(self) -> None:
        """Free the environments and flush the logs."""
        if self._trainer:
            self._trainer.close()
            self._saved = LoadedRun(
                self._trainer.agent, self._trainer.state, self.config, self._trainer.env.interface
            )
            self._trainer = None

    def __enter__(self) -> Dreamer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    # Behind it

    def _open(self) -> Trainer:
        if self._trainer is None:
            make_ready(self.config)
            # Room for what lies there, too: a replay never shrinks.
            steps = max(self._target, run_directory.newest_step(self.folder) or 0, 1)
            config = merge(self.config, {"train": {"steps": steps}})
            self._trainer = open_trainer(config, self.folder, self._make, self.quiet)
            self._saved, self._policies = None, {}
        return self._trainer

    def _make(self, count: int) -> VectorEnv:
        return self.source.make(self.config.env, count)

    @contextlib.contextmanager
    def _fresh_envs(self, count: int) -> Iterator[VectorEnv]:
        """Environments to dream of; `count` of them, or as many as there are of an instance."""
        enable_compilation_cache()
        if self.source.borrowed and self._trainer:
            raise RunDirectoryError(
                "A dream needs environments of its own, but this agent was given an instance, which is in "
                "training: give Dreamer a function that makes environments."
            )
        self._known()
        env = self._make(self.source.borrowed or count)
        try:
            yield env
        finally:
            env.close()

    def _known(self) -> tuple[Agent, Interface]:
        """The agent and the interface of its environment; a fresh agent where nothing was trained."""
        if self._trainer:
            return self._trainer.agent, self._trainer.env.interface
        if self._saved is None:
            if (self.folder / SPACES).is_file() and run_directory.newest_step(self.folder) is not None:
                self._saved = load_saved(self.folder)
            else:
                self._saved = self._untrained()
        return self._saved.agent, self._saved.interface

    def _state(self) -> AgentState:
        if self._trainer:
            state = self._trainer.state
            return state._replace(average=self._trainer.placement.whole(state.average))
        self._known()
        assert self._saved is not None
        return self._saved.state

    def _untrained(self) -> LoadedRun:
        env = self._make(self.source.borrowed or 1)
        try:
            agent = Agent.create(self.config, env.obs_specs, env.act_specs)
            state = jax.jit(agent.init)(jax.random.PRNGKey(self.config.seed))
            return LoadedRun(agent, state, self.config, env.interface)
        finally:
            env.close()

    def _check_spaces(self) -> None:
        """Refuse an environment with other spaces than the saved agent's."""
        assert self._saved is not None
        env = self._make(self.source.borrowed or 1)
        old, new = self._saved.interface, env.interface
        env.close()
        for before, now in ((old.obs_specs, new.obs_specs), (old.act_specs, new.act_specs)):
            difference = specs_difference(before, now)
            if difference:
                raise SpaceError(
                    f"The saved agent has {difference[0]}, but this environment {difference[1]}: give the "
                    "environment that it was trained on, or train a new agent with init_from."
                )


def _unused(folder: Path) -> Path:
    """`folder`, with a number behind it where it exists."""
    number, name = 2, folder.name
    while folder.exists():
        folder, number = folder.with_name(f"{name}-{number}"), number + 1
    return folder
