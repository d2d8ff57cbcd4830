"""From whatever a user calls an environment to something that makes `VectorEnv`s of any number.

Ids and callables can be made as often as needed; an instance or a vector environment is borrowed: it is the only
one there is, so that training and evaluation take turns on it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import types
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs.make import make_env, make_jax, refuse_processes
from dreamer_agent.envs.protocol import JaxEnv, VectorEnv
from dreamer_agent.errors import ConfigError

OBJECT = "python"  # the suite of environments that were given as objects: they have no id that makes them


@dataclass(frozen=True)
class Source:
    """`make(env_config, num_envs)`, the id and keyword arguments to write down; the fixed number if borrowed."""

    id: str
    make: Callable[[EnvConfig, int], VectorEnv]
    borrowed: int | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def source_of(env: Any) -> Source:
    """The source for an id, a gymnasium environment or vector environment, a `JaxEnv`, or a callable making one.

    Raises `ConfigError` for anything else.
    """
    if isinstance(env, str):
        return Source(env, make_env)
    if isinstance(env, type):
        return _of_callable(env)
    if isinstance(env, JaxEnv):
        return Source(_name(env), lambda config, count: make_jax(env, config, count))
    if _is_gymnasium(env):
        return _borrow(env)
    if callable(env):
        return _of_callable(env)
    raise ConfigError(
        f"{env!r:.80} is no environment: give an id such as 'CartPole-v1', a gymnasium environment or vector "
        "environment, or a function that makes one."
    )


def make_imported(config: EnvConfig, count: int) -> VectorEnv | None:
    """Environments for the id "module:Name", if the module has a callable `Name`; else None.

    Modules are looked for in the current folder too, as with `python -m`.
    """
    module, colon, name = config.id.partition(":")
    if colon and not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    if not colon or not name.isidentifier():
        return None
    try:
        maker = getattr(importlib.import_module(module), name, None)
    except ValueError:  # a name such as "" or "."; gymnasium says it better
        return None
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            return None  # there is no such module; gymnasium says that, too
        raise ConfigError(
            f"The module '{module}' cannot be imported: {error}. Install what it needs, or mend its imports."
        ) from error
    return _made(maker, config, count) if callable(maker) else None


def _of_callable(maker: Callable[..., Any]) -> Source:
    return Source(_name(maker), lambda config, count: _made(maker, config, count))


def _made(maker: Callable[..., Any], config: EnvConfig, count: int) -> VectorEnv:
    """`count` environments from a callable; the first one made tells what kind they are."""
    import gymnasium as gym

    from dreamer_agent.envs.gymnasium_adapter import GymnasiumEnv, make_configured

    if config.processes and isinstance(maker, type) and issubclass(maker, gym.Env):
        return make_configured([partial(call, maker, config)] * count, config)  # nothing of it happens here
    first = [call(maker, config)]
    if isinstance(first[0], JaxEnv):
        return make_jax(first[0], config, count)
    if isinstance(first[0], gym.vector.VectorEnv):
        refuse_repeat(config)
        refuse_processes(config, "a gymnasium vector environment")
        return GymnasiumEnv(first[0], config.route)
    if not isinstance(first[0], gym.Env):
        raise ConfigError(
            f"{_name(maker)} made {first[0]!r:.80}, which is no environment: it should return a gymnasium.Env, a "
            "gymnasium vector environment or a JaxEnv."
        )
    if config.processes:
        with contextlib.suppress(Exception):  # it told what it is
            first.pop().close()
        return make_configured([partial(call, maker, config)] * count, config)
    return make_configured([lambda: first.pop() if first else call(maker, config)] * count, config)


def call(maker: Callable[..., Any], config: EnvConfig) -> Any:
    """`maker` with the keyword arguments of `config`; `ConfigError` where it does not take them."""
    try:
        return maker(**config.kwargs)
    except TypeError as error:
        if not config.kwargs or "unexpected keyword argument" not in str(error):
            raise
        raise ConfigError(
            f"The environment '{config.id}' does not take env.kwargs {dict(config.kwargs)}: {error}; remove "
            "what it does not know."
        ) from error


def _borrow(env: Any) -> Source:
    import gymnasium as gym

    from dreamer_agent.envs.gymnasium_adapter import BorrowedEnv, lend_vector
    from dreamer_agent.envs.interface import check_repeat

    made: list[BorrowedEnv] = []

    def make(config: EnvConfig, count: int) -> VectorEnv:
        if not made:
            refuse_processes(config, "an environment that was given as an object")
            if isinstance(env, gym.Env):
                made.append(lend_vector(env, config))
            else:
                refuse_repeat(config)
                made.append(BorrowedEnv(env, config.route))
            check_repeat(made[0].interface, config.action_repeat if isinstance(env, gym.Env) else 1)
        return made[0]

    if isinstance(env, gym.vector.VectorEnv):
        return Source(_name(env), make, env.num_envs)
    spec = env.spec
    if spec is not None and not spec.additional_wrappers:  # its id makes the same one again, elsewhere
        return Source(spec.id, make, 1, _kwargs_of(spec))
    return Source(_name(env.unwrapped), make, 1)


def refuse_repeat(config: EnvConfig) -> None:
    """Raise `ConfigError` where `config` repeats actions, which a vector environment cannot do."""
    if config.action_repeat != 1:
        raise ConfigError(
            f"env.action_repeat={config.action_repeat} cannot be done for a vector environment: repeat actions "
            "inside it, or give a function that makes single environments."
        )


def _kwargs_of(spec: Any) -> dict[str, Any]:
    """The keyword arguments with which `gymnasium.make` gives an environment of this spec, without windows."""
    import gymnasium as gym

    kwargs = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
    registered = gym.registry.get(spec.id)
    if registered is not None and registered.max_episode_steps != spec.max_episode_steps:
        kwargs["max_episode_steps"] = spec.max_episode_steps
    return kwargs


def _name_of_lambda(function: types.FunctionType) -> str:
    """A name by what a lambda calls and with which values, so that two do not share a run directory."""
    code = function.__code__
    captured = [cell.cell_contents for cell in function.__closure__ or ()]
    values = [*code.co_consts, *(function.__defaults__ or ()), *captured]
    plain = [value for value in values if isinstance(value, str | int | float | tuple)]
    inside = f"{code.co_names} {code.co_freevars} {plain}"
    words = [*code.co_names[-1:], *(value for value in plain if isinstance(value, str) and len(value) < 40)][:2]
    return "-".join(["lambda", *words, f"{zlib.crc32(inside.encode()):08x}"])


def _is_gymnasium(env: Any) -> bool:
    import gymnasium as gym

    return isinstance(env, gym.Env | gym.vector.VectorEnv)


def _name(env: Any) -> str:
    """ "module:Name" where that imports the callable again, else a name in the suite of objects."""
    name = getattr(env, "__qualname__", None)
    if name is None:
        return f"{OBJECT}:{type(env).__name__}"
    if name.endswith("<lambda>"):
        return f"{OBJECT}:{_name_of_lambda(env)}"
    importable = name.isidentifier() and getattr(env, "__module__", "__main__") != "__main__"
    return f"{env.__module__}:{name}" if importable else f"{OBJECT}:{name}"
