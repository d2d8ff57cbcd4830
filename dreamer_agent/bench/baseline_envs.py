"""Our environments in the form that stable-baselines3 trains in, with the wrappers that its settings ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym

from dreamer_agent.bench.baseline_settings import Settings
from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import make_env
from dreamer_agent.errors import ConfigError, missing_extra

COMPOSITE = (gym.spaces.Dict, gym.spaces.Tuple)
TAKEN = {"ppo": ("Box", "Discrete", "MultiDiscrete", "MultiBinary"), "sac": ("Box",)}  # spaces of actions


def flat_minigrid(task: str) -> gym.Env:
    """A task of MiniGrid whose view and mission are one vector of integers, by its wrapper FlatObsWrapper."""
    try:
        from minigrid.wrappers import FlatObsWrapper
    except ImportError as error:
        raise missing_extra("minigrid", "minigrid") from error
    return FlatObsWrapper(gym.make(task))


def vector_env(env: EnvConfig, settings: Settings, count: int, max_length: int | None = None) -> Any:
    """`count` environments as a `VecEnv` that tells the return and length of each episode in its info.

    They are made by our own sources, so that every suite and `env.action_repeat` work, but they are stepped bare:
    spaces are the environment's own, Dict and Tuple observations are one vector, and an environment that fails
    ends the run. `max_length` truncates episodes there. Raises `ConfigError` for environments that only come as a
    vector, and for those in other processes.
    """
    from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

    if settings.env is not None:
        env = replace(env, **settings.env)
    owner = make_env(env, count)
    single = [_prepared(one, max_length) for one in _single(owner, env)]
    vector: Any = DummyVecEnv([iter([one]).__next__ for one in single])  # it takes functions that make them
    vector.owner = owner  # which would close them when it goes
    return VecMonitor(vector)


def wrapped(vector: Any, settings: Settings, training: bool = True) -> Any:
    """`vector` with normalisation, stacked frames and channels first, where there is something to do.

    Not in `training`, statistics stay as they are and rewards are the environment's.
    """
    from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
    from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize, VecTransposeImage

    if settings.normalize is not None:
        given = dict(settings.normalize) | ({} if training else {"norm_reward": False})
        vector = VecNormalize(vector, training=training, **given)
    if settings.frame_stack is not None:
        vector = VecFrameStack(vector, settings.frame_stack)
    space = vector.observation_space
    if is_image_space(space) and not is_image_space_channels_first(space):
        vector = VecTransposeImage(vector)
    return vector


def check_actions(method: str, task: str, space: gym.Space) -> None:
    """Raise `ConfigError` where `method` has no policy for the action space of `task`."""
    kind = type(space).__name__
    if kind not in TAKEN.get(method, (kind,)):
        advice = ": take ppo" if kind in TAKEN["ppo"] else ""
        raise ConfigError(
            f"{method} of stable-baselines3 takes actions of the kind {', '.join(TAKEN[method])}, but those of "
            f"{task} are {kind}{advice}."
        )


def _single(owner: Any, env: EnvConfig) -> list[gym.Env]:
    """The single environments behind one of our vector environments."""
    from dreamer_agent.envs.as_gymnasium import as_gymnasium
    from dreamer_agent.envs.checked import CheckedEnv
    from dreamer_agent.envs.gymnasium_adapter import GymnasiumEnv
    from dreamer_agent.envs.jax_adapter import JaxVectorEnv
    from dreamer_agent.envs.resilient import ResilientVectorEnv

    if isinstance(owner, JaxVectorEnv):
        return [CheckedEnv(as_gymnasium(owner.env), env.action_repeat) for _ in range(owner.num_envs)]
    if isinstance(owner, GymnasiumEnv) and isinstance(owner.env, ResilientVectorEnv) and owner.env.envs:
        return owner.env.envs
    owner.close()
    why = f"env.processes is {env.processes}: set it to 0" if env.processes else "there is only a vector"
    raise ConfigError(f"A baseline needs single environments in its own process, but of '{env.id}' {why}.")


def _prepared(env: gym.Env, max_length: int | None) -> gym.Env:
    if isinstance(env.observation_space, COMPOSITE):
        env = gym.wrappers.FlattenObservation(env)
    return env if max_length is None else gym.wrappers.TimeLimit(env, max_length)
