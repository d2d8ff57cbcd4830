"""Environments from ids, classes, functions, instances and vector environments."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import make_env, source_of
from dreamer_agent.envs.toy import Catch
from dreamer_agent.errors import ConfigError, EnvironmentFault, MissingExtraError

CONFIG = EnvConfig(id="unused", num_envs=3)


class Walk(gym.Env):
    """A position that moves by the action, between -limit and limit."""

    def __init__(self, limit: int = 5):
        self.limit = limit
        self.observation_space = spaces.Box(-limit, limit, (1,), np.float64)
        self.action_space = spaces.Discrete(3, start=-1)
        self.closed = False

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.position = 0
        return np.array([0.0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.position += int(action)
        return np.array([float(self.position)]), 1.0, abs(self.position) >= self.limit, False, {}

    def close(self) -> None:
        self.closed = True


def make_walk(limit: int = 5) -> gym.Env:
    return Walk(limit)


def walks(env: Any, count: int) -> np.ndarray:
    """Positions after two steps up for the first environment and down for the others."""
    assert env.num_envs == count
    env.reset(0)
    action = np.array([2] + [0] * (count - 1))
    for _ in range(2):
        (rows,) = env.step({"action": action})
    return rows.obs["obs"][:, 0]


HERE = "tests.envs.test_sources"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (Walk, f"{HERE}:Walk"),
        (make_walk, f"{HERE}:make_walk"),
        (lambda **kwargs: Walk(**kwargs), "python:test_sources.<lambda>"),
        (partial(Walk), "python:partial"),
        (f"{HERE}:Walk", f"{HERE}:Walk"),
    ],
)
def test_what_makes_environments_makes_as_many_as_are_asked_for(given: Any, name: str) -> None:
    source = source_of(given)
    assert source.borrowed is None
    assert source.id == name or name.startswith("python")
    assert source.id.startswith("python:") == name.startswith("python:")
    config = EnvConfig(id=source.id, kwargs={"limit": 2})
    for count in (3, 1):
        env = source.make(config, count)
        assert walks(env, count).tolist() == [2.0] + [-2.0] * (count - 1)
        env.close()


def test_an_importable_class_is_made_again_from_its_id() -> None:
    env = make_env(EnvConfig(id=source_of(Walk).id, num_envs=2))
    assert walks(env, 2).tolist() == [2, -2]
    with pytest.raises(ConfigError, match="given as a Python object"):
        make_env(EnvConfig(id=source_of(partial(Walk)).id))


def test_a_module_of_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_walks_xyz.py").write_text(f"from {HERE} import Walk\nnumber = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != ""])
    env = make_env(EnvConfig(id="my_walks_xyz:Walk", num_envs=1))
    assert env.num_envs == 1
    for name in ("Missing", "number"):
        with pytest.raises(ConfigError, match=f"no environment 'my_walks_xyz:{name}'"):
            make_env(EnvConfig(id=f"my_walks_xyz:{name}"))


def test_an_instance_is_borrowed() -> None:
    walk = Walk(limit=3)
    source = source_of(walk)
    assert (source.borrowed, source.id) == (1, "python:Walk")
    env = source.make(CONFIG, 7)
    assert walks(env, 1).tolist() == [2]
    assert source.make(CONFIG, 1) is env
    env.close()
    assert not walk.closed
    assert walk.position == 2


def test_an_instance_that_gymnasium_made_keeps_its_id_and_arguments() -> None:
    source = source_of(gym.make("CartPole-v1", max_episode_steps=7, sutton_barto_reward=True))
    assert source.id == "CartPole-v1"
    assert source.kwargs == {"max_episode_steps": 7, "sutton_barto_reward": True}
    assert source_of(gym.make("CartPole-v1", render_mode="rgb_array")).kwargs == {}
    env = make_env(EnvConfig(id=source.id, num_envs=1, kwargs=source.kwargs))
    env.reset(0)
    rewards = [env.step({"action": np.array([i % 2])})[0] for i in range(7)]
    assert rewards[-1].is_last[0] and not rewards[-1].is_terminal[0]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_vector_environment_is_borrowed_with_its_number(mode: AutoresetMode) -> None:
    vector = SyncVectorEnv([Walk, Walk], autoreset_mode=mode)
    source = source_of(vector)
    assert source.borrowed == 2
    env = source.make(CONFIG, 5)
    assert walks(env, 2).tolist() == [2, -2]
    env.close()
    assert not vector.closed
    made = source_of(lambda: SyncVectorEnv([Walk, Walk])).make(CONFIG, 2)
    assert walks(made, 2).tolist() == [2, -2]


def test_jax_native_environments_are_sources_too() -> None:
    for given in (Catch(balls=1), Catch, lambda **kwargs: Catch(balls=1)):
        env = source_of(given).make(CONFIG, 2)
        (rows,) = env.reset(0)
        assert rows.obs["image"].shape == (2, 16, 16, 3)
        assert env.interface.obs_specs == env.obs_specs


def test_environments_that_share_their_state_are_refused() -> None:
    walk = Walk()
    with pytest.raises(ConfigError, match="gave the same one twice"):
        source_of(lambda: walk).make(CONFIG, 2)
    assert source_of(lambda: walk).make(CONFIG, 1).num_envs == 1


@pytest.mark.parametrize("wrong", [3, None, spaces.Discrete(2), np.zeros(3), {"id": "CartPole-v1"}])
def test_what_is_no_environment_is_told_in_one_sentence(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"is no environment: give an id such as 'CartPole-v1'.*\.$"):
        source_of(wrong)


def test_a_function_that_makes_something_else_is_told_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"made 3, which is no environment: it should return a gymnasium\.Env"):
        source_of(lambda: 3).make(CONFIG, 1)


@pytest.mark.parametrize("given", ["CartPole-v1", Walk, f"{HERE}:Walk"])
def test_arguments_that_a_constructor_does_not_take_are_told_in_one_sentence(given: Any) -> None:
    source = source_of(given)
    with pytest.raises(ConfigError, match=r"does not take env\.kwargs .*wheels") as caught:
        source.make(EnvConfig(id=source.id, kwargs={"wheels": 4}), 1)
    assert "\n" not in str(caught.value)


def test_a_package_that_an_environment_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: Any, **__: Any) -> Any:
        raise gym.error.DependencyNotInstalled("MuJoCo is not installed, run `pip install mujoco`")

    monkeypatch.setattr(gym, "make", lacking)
    with pytest.raises(MissingExtraError, match="'Ant-v5' needs a package that is not installed: MuJoCo"):
        make_env(EnvConfig(id="Ant-v5"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_simulator.py").write_text("import a_package_that_nobody_has\n")
    with pytest.raises(ConfigError, match=r"'my_simulator' cannot be imported.*a_package_that_nobody_has"):
        make_env(EnvConfig(id="my_simulator:Env"))


def test_a_vector_environment_that_does_not_say_when_it_resets_is_taken_at_its_word() -> None:
    class Silent(gym.vector.VectorWrapper):
        metadata = {}  # noqa: RUF012

    env = Silent(SyncVectorEnv([Walk, Walk], autoreset_mode=AutoresetMode.SAME_STEP))
    with pytest.warns(UserWarning, match="does not say when it resets"):
        vector = source_of(env).make(EnvConfig(), 2)
    vector.reset(0)
    with pytest.raises(EnvironmentFault, match=r"AutoresetMode\.SAME_STEP"):
        for _ in range(50):
            vector.step({"action": np.full(2, 2, np.int32)})
