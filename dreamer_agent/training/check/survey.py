"""One gymnasium environment looked at without stopping at its first fault: our checks, and gymnasium's own."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import env_checker

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import VectorEnv, make_env
from dreamer_agent.envs.checked import CheckedEnv
from dreamer_agent.envs.gymnasium_adapter import BorrowedEnv
from dreamer_agent.registry import in_one_line
from dreamer_agent.training.check.rollout import RandomRollout, sentence_of

OWN_WRAPPERS = ("CheckedEnv", "OrderEnforcing", "TimeLimit", "PassiveEnvChecker")  # gymnasium.make's and ours
LONGEST = 300  # characters of a finding

# Advice of gymnasium's that does not matter here.
IRRELEVANT = (
    "is different from the unwrapped version",  # it trains as it is wrapped
    "symmetric and normalized space",  # actions are stretched over the bounds
    "value is -infinity",  # numbers enter in symlog space; actions without bounds have a notice of ours
    "value is infinity",
)
# What it says in several ways, or unclearly, and the one sentence for it.
UNSEEDED = "reset() does not seed the environment's random numbers: let it call super().reset(seed=seed)."
NO_SEED = "reset() lacks arguments: write it as reset(self, *, seed=None, options=None)."
OUTSIDE = "What {}() observes is not within the observation space."
CLEARER = {
    "_np_random": UNSEEDED,
    "bit_generator": UNSEEDED,
    "random number generator to have been": UNSEEDED,
    "method does not provide": NO_SEED,
    "can be passed": NO_SEED,
    "returned by `env.reset(": OUTSIDE.format("reset"),
    "returned by the `reset()` method is not within": OUTSIDE.format("reset"),
    "returned by the `step()` method is not within": OUTSIDE.format("step"),
}


def single_env(make: Callable[[int], VectorEnv] | None, config: EnvConfig) -> gym.Env | None:
    """A fresh environment as gymnasium knows it, from `make` or else `config`; None where it is another kind.

    What `config` names is also made where our own adapter refuses its spaces. Whatever its constructor raises is
    raised.
    """
    try:
        vector = make(1) if make else make_env(config, 1)
    except Exception:
        return None if make else _made_without_us(config)
    envs = getattr(getattr(vector, "env", None), "envs", None)
    if not envs or isinstance(vector, BorrowedEnv):  # what was lent is not played with, nor closed
        vector.close()
        return None
    return inner(envs[0])


def inner(env: gym.Env) -> gym.Env:
    """The environment without the wrappers that gymnasium.make and we put around it."""
    while isinstance(env, gym.Wrapper) and type(env).__name__ in OWN_WRAPPERS:
        env = env.env
    return env


def _made_without_us(config: EnvConfig) -> gym.Env | None:
    import importlib

    module, _, name = config.id.partition(":")
    if name.isidentifier():
        try:
            maker = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError:
            return None
        made = maker(**config.kwargs) if callable(maker) else None
        return made if isinstance(made, gym.Env) else None
    return inner(gym.make(config.id, **{"disable_env_checker": True, **config.kwargs}))


def survey(
    env: gym.Env, rollout: RandomRollout, wishes: Mapping[str, str] | None = None, steps: int = 300,
    observations: bool = True,
) -> None:  # fmt: skip
    """Step `env` with actions sampled from its space, and add whatever breaks the API to `rollout.faults`.

    `wishes` is `env.route` of the configuration. `observations` is false where they are of a space that cannot be
    encoded anyway, and are not checked.
    """
    try:
        checker = _Checker(env, wishes, observations)
        env.action_space.seed(0)
        good, begun = None, False
        for _ in range(steps):
            try:
                result = env.step(env.action_space.sample()) if begun else env.reset(seed=0)
            except Exception as error:
                if "unexpected keyword argument" not in str(error):  # `CheckedEnv` says it better
                    rollout.add_fault(sentence_of(error))
                if not begun:
                    return
                begun = False
                continue
            if begun and isinstance(result, tuple) and len(result) == 5:
                variants: list[Any] = (
                    [result] if good is None else [(good, *result[1:]), (result[0], 0.0, *result[2:])]
                )
                begun = not any(np.any(value) for value in result[2:4])
            else:
                variants, begun = [result], True
            faults = [checker.fault(variant) for variant in variants]
            for fault in filter(None, faults):
                rollout.add_fault(fault)
            if good is None and isinstance(result, tuple) and not any(faults):
                good = result[0]
    except Exception as error:
        rollout.add_fault(sentence_of(error))


class _Checker:
    """Our checks of single answers: a `CheckedEnv` around an environment that only hands them on."""

    def __init__(self, env: gym.Env, wishes: Mapping[str, str] | None, observations: bool):
        class Echo(gym.Env):
            answer: Any = None

            def reset(self, **_: Any) -> Any:
                return self.answer

            def step(self, _: Any) -> Any:
                return self.answer

        Echo.__name__ = type(env.unwrapped).__name__
        self.echo = Echo()
        self.observed, self.echo.action_space = observations, env.action_space
        self.echo.observation_space = env.observation_space if observations else gym.spaces.Discrete(1)
        self.echo.spec = env.spec
        self.checked = CheckedEnv(self.echo, wishes=wishes)

    def fault(self, answer: Any) -> str | None:
        """What is wrong with what reset (two values) or step gave."""
        if isinstance(answer, tuple) and not self.observed:
            answer = (0, *answer[1:])
        self.echo.answer = answer
        try:
            if isinstance(answer, tuple) and len(answer) == 2:
                self.checked.reset()
            else:
                self.checked.step(None)
        except Exception as error:
            return sentence_of(error)
        return None


def gymnasium_findings(env: gym.Env) -> list[str]:
    """What gymnasium's own checker says, each in a line; empty where it is content.

    It stops at its first objection; its parts are then asked one by one.
    """
    found: list[str] = []
    if not _ask(lambda: env_checker.check_env(env, skip_render_check=True, skip_close_check=True), found):
        for part in (
            env_checker.check_reset_return_type,
            env_checker.check_reset_seed_determinism,
            env_checker.check_reset_options,
            env_checker.env_reset_passive_checker,
            env_checker.check_step_determinism,
        ):
            _ask(lambda part=part: part(env), found)  # type: ignore[misc]
        _ask(lambda: env_checker.env_step_passive_checker(env, env.action_space.sample()), found)
    return found


def _ask(question: Callable[[], Any], found: list[str]) -> bool:
    """Whether `question` passes without raising; warnings and what it raises are added to `found`."""
    passed = True
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            question()
        except Exception as error:
            passed = False
            known = isinstance(error, AssertionError) and str(error)
            raised = f"{type(error).__name__} was raised" if not str(error) else in_one_line(error)
            _note(str(error) if known else raised, found)
    for warning in caught:
        if not issubclass(warning.category, DeprecationWarning) or "gymnasium" in warning.filename:
            _note(str(warning.message), found)
    return passed


def _note(text: str, found: list[str]) -> None:
    line = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())
    line = re.sub(r"^(WARN|ERROR): ", "", line)
    line = line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
    line = next((clearer for part, clearer in CLEARER.items() if part in line), line)
    if line not in found and not any(part in line for part in IRRELEVANT):
        found.append(line)
