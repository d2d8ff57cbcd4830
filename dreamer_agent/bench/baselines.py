"""PPO and SAC of stable-baselines3, and random actions, in the same harness as our agent.

    python -m dreamer_agent.bench.baselines ppo CartPole-v1 --steps 100000 --seed 0 --run runs/ppo-cartpole-0

The run directory holds what one of ours holds, as far as there is something to hold: `metrics.jsonl`,
`evaluation.json`, `provenance.json`, and `settings.json` in place of `config.yaml`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NamedTuple

from dreamer_agent.bench.baseline_envs import check_actions, vector_env, wrapped
from dreamer_agent.bench.baseline_record import Recorder, evaluate
from dreamer_agent.bench.baseline_settings import (
    METHODS,
    Settings,
    constructor_arguments,
    repeat_of,
    settings_of,
)  # fmt: skip
from dreamer_agent.config import EnvConfig, TrainConfig
from dreamer_agent.errors import ConfigError, DreamerError, RunDirectoryError, missing_extra
from dreamer_agent.files import write_text
from dreamer_agent.launch.work import evaluation_in
from dreamer_agent.training.evaluate import EVALUATION_SEED, Evaluation
from dreamer_agent.training.lock import locked
from dreamer_agent.training.run_directory import ORIGIN, provenance

PACKAGES = ("stable-baselines3", "torch")
RESULT, SETTINGS = "evaluation.json", "settings.json"


class Trained(NamedTuple):
    """A baseline after training; `policies` are "sample" and "mode", each with what maps obs to actions."""

    recorder: Recorder
    updates: int  # steps of the optimiser; of the actor's, where there are several
    vector: Any  # the environments, with what they learned of the scale of observations
    policies: list[tuple[str, Callable[[Any], Any]]]


def train_baseline(method: str, env: EnvConfig, steps: int, seed: int, folder: Path, episodes: int = 20) -> None:
    """Train `method` ("ppo", "sac" or "random") for `steps` env steps and write the run into `folder`.

    Training ends with the first step of all environments that reaches `steps`: a last rollout that is cut short
    there is not trained on. Linear schedules end at `steps`, not at the budget that they were tuned for. The
    settings of the method say how many environments there are, not `env.num_envs`. The final policy is scored on
    `episodes` episodes with sampled actions and on as many with the likeliest ones; random actions have no
    likeliest, so that their one evaluation stands there twice, as sampled.

    A run does not resume: in a folder without `evaluation.json` it begins anew, and one that is finished is left
    as it is. Raises `ConfigError` for what cannot be run, `RunDirectoryError` where `folder` holds something
    else (a run of other settings, finished or not) or another process is at work, and `MissingExtraError`
    without stable-baselines3.
    """
    settings = settings_of(method, env.id)
    if steps < 1 or episodes < 1:
        raise ConfigError(f"A baseline needs at least one step and one episode; got {steps} and {episodes}.")
    asked = asked_of(method, env, steps, seed, episodes)
    if _finished(folder, asked):
        return
    _prepare_torch()
    vector = vector_env(env, settings, settings.n_envs)
    try:
        check_actions(method, env.id, vector.action_space)
        with closing(_begin(folder, asked)):
            train = _train_randomly if method == "random" else _train
            trained = train(method, wrapped(vector, settings), settings, steps, seed, folder)
            trained.recorder.close()
            scores = [one.summary() for one in _evaluations(trained, env, settings, seed, episodes)]
            content = {"env_steps": trained.recorder.env_steps, "updates": trained.updates, "scores": scores}
            write_text(folder / RESULT, json.dumps(content, indent=2) + "\n")
    finally:
        vector.close()


def is_finished(method: str, env: EnvConfig, steps: int, seed: int, folder: Path, episodes: int = 20) -> bool:
    """Whether `folder` holds this very run, whole; `RunDirectoryError` where it holds something else."""
    return _finished(folder, asked_of(method, env, steps, seed, episodes))


def _train(method: str, vector: Any, settings: Settings, steps: int, seed: int, folder: Path) -> Trained:
    """Train by stable-baselines3."""
    import stable_baselines3

    algorithm = {"ppo": stable_baselines3.PPO, "sac": stable_baselines3.SAC}[method]
    model = algorithm(env=vector, seed=seed, device="cpu", **constructor_arguments(settings.agent))
    updates = itertools.count()
    optimizer = model.policy.optimizer if method == "ppo" else model.actor.optimizer
    optimizer.register_step_post_hook(lambda *_: next(updates))
    rollout = _rollout(model)
    recorder = Recorder(folder, steps, rollout * vector.num_envs)
    model.learn(steps, callback=recorder)
    mode = ("mode", lambda obs: model.predict(obs, deterministic=True)[0])
    return Trained(recorder, next(updates), vector, [("sample", _sampler(model, rollout)), mode])


def _train_randomly(method: str, vector: Any, settings: Settings, steps: int, seed: int, folder: Path) -> Trained:
    """Step with random actions, which learn nothing."""
    recorder, space = Recorder(folder, steps), vector.action_space
    vector.seed(seed)
    space.seed(seed)

    def act(obs: Any) -> list[Any]:
        return [space.sample() for _ in range(len(obs))]

    obs = vector.reset()
    while recorder.env_steps < steps:
        obs, _, _, infos = vector.step(act(obs))
        recorder.add(infos)
    return Trained(recorder, 0, vector, [("sample", act)])


def _rollout(model: Any) -> float:
    """Steps of each environment between trainings; infinite where it is counted in episodes."""
    if hasattr(model, "n_steps"):
        return model.n_steps
    return model.train_freq.frequency if model.train_freq.unit.value == "step" else math.inf


def _sampler(model: Any, rollout: float) -> Callable[[Any], Any]:
    """Actions drawn as in training; noise that depends on the state (gSDE) is kept as long as there."""
    noisy = getattr(model, "actor", None) or model.policy
    kept = model.sde_sample_freq if model.sde_sample_freq > 0 else rollout
    count = itertools.count()

    def act(obs: Any) -> Any:
        if model.use_sde and next(count) % kept == 0:
            noisy.reset_noise(len(obs))
        return model.predict(obs, deterministic=False)[0]

    return act


def _evaluations(
    trained: Trained, env: EnvConfig, settings: Settings, seed: int, episodes: int
) -> list[Evaluation]:
    """Both evaluations of the final policy, in fresh environments."""
    from stable_baselines3.common.utils import set_random_seed
    from stable_baselines3.common.vec_env import sync_envs_normalization

    limits = TrainConfig()
    count = min(limits.eval_envs, episodes)
    vector = wrapped(vector_env(env, settings, count, limits.eval_max_length), settings, training=False)
    try:
        sync_envs_normalization(trained.vector, vector)
        out = []
        for policy, act in trained.policies:
            set_random_seed(seed + EVALUATION_SEED)
            out.append(evaluate(act, vector, episodes, seed, policy, limits.eval_max_length))
    finally:
        vector.close()
    return out if len(out) == 2 else out * 2


def _prepare_torch() -> None:
    """One thread for torch, whatever the cores: more make layers of this size slower, much so on busy cores."""
    try:
        import stable_baselines3  # noqa: F401
        import torch
    except ImportError as error:
        raise missing_extra("stable-baselines3", "sb3") from error
    torch.set_num_threads(1)


def asked_of(method: str, env: EnvConfig, steps: int, seed: int, episodes: int) -> dict[str, Any]:
    """What `settings.json` holds: all that the run depends on."""
    settings = settings_of(method, env.id)
    made = {"id": env.id, "action_repeat": env.action_repeat, "kwargs": dict(env.kwargs)}
    given = {"method": method, "env": made, "steps": steps, "seed": seed, "episodes": episodes}
    return json.loads(json.dumps({**given, "hyperparameters": asdict(settings)}))


def _finished(folder: Path, asked: dict[str, Any]) -> bool:
    """Whether `folder` holds this very run, whole; `RunDirectoryError` where it holds something else, be that
    finished or not, or something damaged.
    """
    if folder.exists() and not folder.is_dir():
        raise RunDirectoryError(f"{folder} is a file, not a folder: give an empty or new folder.")
    settings = folder / SETTINGS
    if not settings.exists():
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise RunDirectoryError(
                f"{folder} holds files but no baseline ({SETTINGS} is missing): give an empty or new folder."
            )
        return False
    try:
        found = json.loads(settings.read_text())
    except ValueError:  # no JSON, or not even text
        found = None
    if not isinstance(found, dict):
        raise RunDirectoryError(f"{folder} has a damaged {SETTINGS}: delete that folder, or give another.")
    for key, value in asked.items():
        if found.get(key) != value:
            raise RunDirectoryError(
                f"{folder} holds a baseline with {key}={found.get(key)}, but {key}={value} is asked for: give "
                "another folder. Nothing was changed there."
            )
    return evaluation_in(folder, asked["steps"]) is not None


def _begin(folder: Path, asked: dict[str, Any]) -> IO[bytes]:
    """Make `folder` that of a run that has not begun; gives its lock."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = locked(folder)
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    origin = provenance()
    origin["packages"] |= {name: importlib.metadata.version(name) for name in PACKAGES}
    write_text(folder / ORIGIN, json.dumps(origin, indent=2) + "\n")
    write_text(folder / SETTINGS, json.dumps(asked, indent=2) + "\n")
    return lock


def main(arguments: list[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = argparse.ArgumentParser(prog="python -m dreamer_agent.bench.baselines", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("method", help=f"one of {', '.join(METHODS)}")
    parser.add_argument("env", help="a gymnasium id, module:Class, or suite:task")
    parser.add_argument("--steps", type=int, required=True, help="env steps, after action repeat")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, required=True, help="the run directory")
    parser.add_argument("--episodes", type=int, default=20, help="of each evaluation at the end")
    parser.add_argument("--action-repeat", type=int, help="by default what the task is measured with, mostly 1")
    given = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        repeat = repeat_of(given.env) if given.action_repeat is None else given.action_repeat
        env = EnvConfig(id=given.env, action_repeat=repeat)
        train_baseline(given.method, env, given.steps, given.seed, given.run, given.episodes)
    except DreamerError as error:
        print(error, file=sys.stderr)
        return 1
    result = json.loads((given.run / RESULT).read_text())
    for score in result["scores"]:
        print(
            f"{given.method} on {given.env} after {result['env_steps']:,} env steps, {score['policy']} actions: "
            f"return {score['return_mean']:.4g} ± {score['return_std']:.3g} over {score['episodes']} episodes"
        )
    print(f"{time.monotonic() - start:.1f} seconds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
