"""From the name of an environment to a `VectorEnv`.

`suite:task` goes to a registered suite; `module:Name` to a class or function of that name, if the module has one;
anything else is a gymnasium id ("module:Id-v0" imports first). gymnasium itself is imported only when one of its
environments is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs.protocol import JaxEnv, VectorEnv
from dreamer_agent.envs.suites.libraries import build
from dreamer_agent.errors import ConfigError, MissingExtraError
from dreamer_agent.registry import Registry

SuiteFactory = Callable[[str, EnvConfig, int], VectorEnv]
SUITES: Registry[SuiteFactory] = Registry("suite")


def register_suite(name: str, *, replace: bool = False) -> Callable[[SuiteFactory], SuiteFactory]:
    """Register `factory(task, env_config, num_envs) -> VectorEnv` for ids that start with `name:`.

    Raises `ConfigError` where another suite has the name, unless `replace` is set.
    """
    return SUITES.register(name, replace=replace)


def make_env(config: EnvConfig, num_envs: int | None = None) -> VectorEnv:
    """The environments that `config` describes; `num_envs` overrides its number."""
    count = config.num_envs if num_envs is None else num_envs
    suite, colon, task = config.id.partition(":")
    if colon and suite in SUITES:
        env = SUITES.get(suite)(task, config, count)
    else:
        from dreamer_agent.envs.sources import make_imported

        env = make_imported(config, count) or _gymnasium(config, count)
    return env


def _gymnasium(config: EnvConfig, count: int) -> VectorEnv:
    import gymnasium as gym

    from dreamer_agent.envs.gymnasium_adapter import make_configured

    return make_configured([partial(_gymnasium_env, config, gym.registry.get(config.id))] * count, config)


def _gymnasium_env(config: EnvConfig, registered: Any) -> Any:
    """One environment by its id; `registered` is its entry, which another process may not have."""
    import gymnasium as gym

    from dreamer_agent.envs.sources import call

    if registered is not None:
        gym.registry.setdefault(config.id, registered)
    try:
        # Our own checks say what is wrong in one sentence, gymnasium's stop at an assertion.
        return call(partial(gym.make, config.id, disable_env_checker=True), config)
    except gym.error.DependencyNotInstalled as error:
        raise MissingExtraError(
            f"The environment '{config.id}' needs a package that is not installed: {error}"
        ) from error
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise ConfigError(
            f"There is no environment '{config.id}': {str(error).rstrip('.')}. Known suites are "
            f"{', '.join(sorted(SUITES))}, written suite:task; anything else is module:Class or a gymnasium id."
        ) from error


def make_jax(env: JaxEnv, config: EnvConfig, count: int) -> VectorEnv:
    """`count` copies of a JAX-native environment."""
    from dreamer_agent.envs.jax_adapter import JaxVectorEnv

    refuse_processes(config, "a JAX-native environment")
    return JaxVectorEnv(env, count, config.action_repeat, config.max_faults)


def refuse_processes(config: EnvConfig, what: str) -> None:
    """Raise `ConfigError` where `config` asks for processes over which `what` cannot be spread."""
    if config.processes:
        raise ConfigError(
            f"env.processes={config.processes} cannot be done for {what}, which runs here: set env.processes=0."
        )


@register_suite("python")
def _python(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """Environments given as Python objects: their runs are used from Python."""
    raise ConfigError(
        f"The environment {task} was given as a Python object, which a run cannot make again: load the run from "
        "Python, Dreamer.load(RUN, env=...), or train with an importable class, module:Name."
    )


@register_suite("toy")
def _toy(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """Small games of our own: catch (16x16 pixels), rooms (walk to a goal)."""
    from dreamer_agent.envs.rooms import Rooms
    from dreamer_agent.envs.toy import Catch

    games: dict[str, Callable[..., JaxEnv]] = {"catch": Catch, "rooms": Rooms}
    if task not in games:
        raise ConfigError(f"The suite 'toy' has the tasks {', '.join(games)}; got '{task}'.")
    return make_jax(games[task](**config.kwargs), config, count)


@register_suite("gymnax")
def _gymnax(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """JAX-native tasks of gymnax, such as CartPole-v1 or Breakout-MinAtar."""
    from dreamer_agent.envs.suites.gymnax import GymnaxEnv

    return make_jax(GymnaxEnv(task, **config.kwargs), config, count)


@register_suite("brax")
def _brax(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """Physics of brax, such as ant or reacher; `backend` as in brax."""
    from dreamer_agent.envs.suites.brax import BraxEnv

    return make_jax(BraxEnv(task, **config.kwargs), config, count)


@register_suite("craftax")
def _craftax(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """Craftax and Craftax-Classic, symbolic or from pixels, such as Craftax-Classic-Symbolic-v1."""
    from dreamer_agent.envs.suites.craftax import CraftaxEnv

    return make_jax(CraftaxEnv(task, **config.kwargs), config, count)


@register_suite("navix")
def _navix(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """MiniGrid in JAX by navix, such as Navix-Empty-8x8-v0; `observation_fn` by its name."""
    from dreamer_agent.envs.suites.navix import NavixEnv

    return make_jax(NavixEnv(task, **config.kwargs), config, count)


@register_suite("xminigrid")
def _xminigrid(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """MiniGrid in JAX by xminigrid, such as MiniGrid-Empty-8x8."""
    from dreamer_agent.envs.suites.xminigrid import XMinigridEnv

    return make_jax(XMinigridEnv(task, **config.kwargs), config, count)


@register_suite("playground")
def _playground(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """Physics of MuJoCo Playground, such as CartpoleBalance."""
    from dreamer_agent.envs.suites.playground import PlaygroundEnv

    return make_jax(PlaygroundEnv(task, **config.kwargs), config, count)


@register_suite("minigrid")
def _minigrid(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """MiniGrid and BabyAI, the agent's 7x7 view: pixels, or `view: symbols`."""
    return _hosted("minigrid", "make_task", task, config, count)


@register_suite("dmc")
def _dmc(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """DeepMind Control Suite, such as walker_walk; `pixels: true` for images."""
    return _hosted("dmc", "ControlEnv", task, config, count)


@register_suite("atari")
def _atari(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """Atari 2600, such as pong; unless told otherwise as in Atari 100k."""
    return _hosted("atari", "make_game", task, config, count)


@register_suite("crafter")
def _crafter(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """Crafter from pixels: reward, or noreward."""
    return _hosted("crafter", "CrafterEnv", task, config, count)


@register_suite("bsuite")
def _bsuite(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """Behaviour Suite, such as catch/0."""
    return _hosted("bsuite", "BsuiteEnv", task, config, count)


@register_suite("memory_maze")
def _memory_maze(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """Memory Maze from pixels: 9x9, 11x11, 13x13, 15x15."""
    return _hosted("memory_maze", "MemoryMazeEnv", task, config, count)


@register_suite("envpool")
def _envpool(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """Whatever envpool has, such as HalfCheetah-v4, stepped together by its own threads."""
    from dreamer_agent.envs.suites.envpool import make

    refuse_processes(config, "envpool")
    return make(task, config, count)


@register_suite("procgen")
def _procgen(task: str, config: EnvConfig, count: int) -> VectorEnv:
    """Procgen by envpool, such as coinrun; `mode` and `levels` choose the levels."""
    return _hosted("procgen", "ProcgenEnv", task, config, count)


def _hosted(module: str, name: str, task: str, config: EnvConfig, count: int) -> VectorEnv:
    """`count` environments of the gymnasium class `name` of our own adapter `module`."""
    from dreamer_agent.envs.gymnasium_adapter import make_configured

    return make_configured([partial(_hosted_env, module, name, task, dict(config.kwargs))] * count, config)


def _hosted_env(module: str, name: str, task: str, kwargs: Mapping[str, Any]) -> Any:
    adapter = getattr(importlib.import_module(f"dreamer_agent.envs.suites.{module}"), name)
    return build(f"{module}:{task}", partial(adapter, task), dict(kwargs))
