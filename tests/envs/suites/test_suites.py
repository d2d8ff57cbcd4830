"""JAX-native libraries: specs, limits apart from ends, one compilation; each where it is installed."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import Rows, make_env
from dreamer_agent.envs.jax_adapter import JaxVectorEnv
from dreamer_agent.envs.suites.parts import pixels, settled
from dreamer_agent.errors import ConfigError, MissingExtraError
from dreamer_agent.specs import ArraySpec
from tests.envs.suites.training import assert_trains

LIMIT = 3


class Task(NamedTuple):
    """A task, what makes it last `LIMIT` steps, its observations, its action."""

    id: str
    kwargs: dict[str, Any]
    obs: dict[str, ArraySpec]
    action: ArraySpec


def cells(side: int, **classes: int) -> dict[str, ArraySpec]:
    return {key: ArraySpec("discrete", (side, side), count) for key, count in classes.items()}


TASKS = [
    Task(
        "brax:inverted_pendulum",
        {"episode_length": LIMIT, "backend": "generalized"},
        {"obs": ArraySpec("continuous", (4,))},
        ArraySpec("continuous", (1,)),
    ),
    Task(
        "craftax:Craftax-Classic-Symbolic-v1",
        {"max_timesteps": LIMIT},
        {"obs": ArraySpec("continuous", (1345,))},
        ArraySpec("discrete", (), 17),
    ),
    Task(
        "navix:Navix-Empty-5x5-v0",
        {"max_steps": LIMIT},
        cells(5, object=11, colour=6, state=4),
        ArraySpec("discrete", (), 7),
    ),
    Task(
        "xminigrid:MiniGrid-Empty-5x5",
        {"max_steps": LIMIT},
        cells(7, tile=13, colour=12),
        ArraySpec("discrete", (), 6),
    ),
]


class Played(NamedTuple):
    """A task, two environments of it, their rows for two steps more than the limit."""

    task: Task
    env: JaxVectorEnv
    rows: list[Rows]


def made(id: str, **kwargs: Any) -> JaxVectorEnv:
    pytest.importorskip(id.partition(":")[0])
    env = make_env(EnvConfig(id=id, num_envs=2, kwargs=kwargs))
    assert isinstance(env, JaxVectorEnv)
    return env


@functools.cache
def played_of(suite: str) -> Played:
    (task,) = (task for task in TASKS if task.id.startswith(f"{suite}:"))
    env = made(task.id, **task.kwargs)
    action = np.zeros((2, *task.action.shape), task.action.dtype)
    rows = env.reset(0)
    for _ in range(LIMIT + 2):
        rows += env.step({"action": action})
    return Played(task, env, rows)


@pytest.fixture(params=["brax", "craftax", "navix", "xminigrid"])
def played(request: pytest.FixtureRequest) -> Played:
    return played_of(request.param)


def test_observations_and_actions_are_what_the_specs_say(played: Played) -> None:
    assert played.env.obs_specs == played.task.obs
    assert played.env.act_specs == {"action": played.task.action}
    _, obs = jax.eval_shape(played.env.env.reset, jax.random.PRNGKey(0))
    for rows in played.rows:
        assert rows.reward.dtype == np.float32 and rows.reward.shape == (2,)
        for key, spec in played.task.obs.items():
            assert obs[key].dtype == spec.dtype  # as the library's own loop sees it, too
            assert rows.obs[key].shape == (2, *spec.shape) and rows.obs[key].dtype == spec.dtype
            assert spec.kind != "discrete" or set(np.unique(rows.obs[key])) <= set(range(spec.classes))


def test_a_limit_truncates_and_is_no_end(played: Played) -> None:
    assert played.env.env.time_limit == LIMIT
    assert [rows.is_last.tolist() for rows in played.rows] == [[t == LIMIT] * 2 for t in range(LIMIT + 3)]
    assert not any(rows.is_terminal.any() for rows in played.rows)
    assert [rows.is_first.tolist() for rows in played.rows] == [
        [t in (0, LIMIT + 1)] * 2 for t in range(LIMIT + 3)
    ]


def test_it_trains(played: Played, tmp_path: Path) -> None:
    if played.task.id.startswith("craftax:"):
        pytest.skip("test_craftax trains it with its own preset")
    kwargs = [f"env.kwargs.{key}={value}" for key, value in played.task.kwargs.items()]
    assert_trains(played.task.id, "classic", tmp_path, *kwargs)


def test_step_compiles_once(played: Played) -> None:
    assert played.env._start._cache_size() == played.env._advance._cache_size() == 1


def test_a_scan_carries_the_state_of_many_environments(played: Played) -> None:
    env, spec = played.env.env, played.task.action

    def roll(key: Any) -> Any:
        keys = jax.random.split(key, 3)
        action = {"action": jnp.zeros((3, *spec.shape), spec.dtype)}
        state, _ = jax.vmap(env.reset)(keys)

        def step(state: Any, _: None) -> Any:
            state, *out = jax.vmap(env.step)(keys, state, action)
            return state, out

        return jax.lax.scan(step, state, None, 4)[1]

    obs, reward, terminated, truncated = jax.eval_shape(roll, jax.random.PRNGKey(0))
    assert {key: value.shape for key, value in obs.items()} == {
        key: (4, 3, *spec.shape) for key, spec in played.task.obs.items()
    }
    assert (reward.shape, reward.dtype) == ((4, 3), np.float32)
    assert terminated.dtype == truncated.dtype == bool


def test_an_unknown_task_is_told_with_the_nearest(played: Played) -> None:
    suite, _, name = played.task.id.partition(":")
    with pytest.raises(ConfigError, match=f"{suite} has no environment '{name}x' \\('{name}' is the nearest"):
        make_env(EnvConfig(id=f"{suite}:{name}x"))


def test_unknown_keyword_arguments_are_told(played: Played) -> None:
    with pytest.raises(ConfigError, match=r"does not take env\.kwargs {'gravitas': 1}.*remove"):
        make_env(EnvConfig(id=played.task.id, kwargs={"gravitas": 1}))


@pytest.mark.parametrize("suite", ["brax", "craftax", "navix", "xminigrid"])
def test_a_library_that_is_missing_is_named_with_its_extra(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (suite, "brax.envs", "craftax.craftax_env"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=f"'{suite}' is not installed.*dreamer-agent\\[{suite}\\]"):
        make_env(EnvConfig(id=f"{suite}:anything"))


def from_a_changed_start(suite: str, change: Callable[[Any], Any]) -> Rows:
    """The row after one step from a state in which `change` was made, in both environments."""
    env = played_of(suite).env
    env.reset(0)
    env._carry = env._carry._replace(state=change(env._carry.state))
    spec = env.act_specs["action"]
    (rows,) = env.step({"action": np.zeros((2, *spec.shape), spec.dtype)})
    return rows


def ends(rows: Rows) -> list[list[bool]]:
    return [rows.is_last.tolist(), rows.is_terminal.tolist()]


FIRST = [[True, False]] * 2


def test_a_pendulum_of_brax_that_leans_too_far_is_terminal() -> None:
    def lean(state: Any) -> Any:
        return state.tree_replace({"pipeline_state.q": state.pipeline_state.q.at[0, 1].set(0.5)})

    assert ends(from_a_changed_start("brax", lean)) == FIRST


def test_a_death_in_craftax_is_terminal() -> None:
    rows = from_a_changed_start("craftax", lambda s: s.replace(player_health=s.player_health.at[0].set(0)))
    assert ends(rows) == FIRST


def test_a_goal_in_xminigrid_is_terminal_and_pays_less_later() -> None:
    def approach(step: Any) -> Any:
        agent = step.state.agent
        agent = agent.replace(position=agent.position.at[0].set(jnp.array([3, 2])))
        return step.replace(state=step.state.replace(agent=agent))

    rows = from_a_changed_start("xminigrid", approach)
    np.testing.assert_allclose(rows.reward, [1 - 0.9 * 1 / LIMIT, 0], rtol=1e-6)
    assert ends(rows) == FIRST


def test_a_goal_in_navix_in_the_last_step_is_terminal() -> None:
    env = made("navix:Navix-Empty-5x5-v0", max_steps=5)
    env.reset(0)
    for action in (2, 2, 1, 2, 2):  # twice forward, right, twice forward; the second one only turns
        (rows,) = env.step({"action": np.array([action, 1], np.int32)})
    assert rows.reward.tolist() == [1, 0]
    assert ends(rows) == [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("id", "limit"),
    [
        ("brax:reacher", 1000),
        ("craftax:Craftax-Classic-Symbolic-v1", 10_000),
        ("navix:Navix-Empty-8x8-v0", 100),
        ("xminigrid:MiniGrid-Empty-8x8", 4 * 8 * 8),
    ],
)
def test_limits_are_those_of_the_library(id: str, limit: int) -> None:
    assert made(id).env.time_limit == limit


def test_navix_is_seen_as_pixels_and_as_objects() -> None:
    key = jax.random.PRNGKey(0)
    pictures = made("navix:Navix-Empty-5x5-v0", observation_fn="rgb_first_person").env
    image = np.asarray(jax.jit(pictures.reset)(key)[1]["image"])
    assert pictures.obs_specs == {"image": ArraySpec("image", (56, 56, 3))}
    assert image.shape == (56, 56, 3) and image.dtype == np.uint8 and image.max() > 200
    objects = made("navix:Navix-Empty-5x5-v0", observation_fn="categorical").env
    grid = np.asarray(jax.jit(objects.reset)(key)[1]["object"])
    assert objects.obs_specs["object"].classes == 12
    assert (grid[[0, -1]] == 0).all() and (grid[:, [0, -1]] == 0).all()  # walls
    assert grid[1, 1] == 11 and grid[3, 3] == 9  # the player and the goal


def test_navix_is_not_seen_in_other_ways() -> None:
    pytest.importorskip("navix")
    with pytest.raises(ConfigError, match="is 'smell': navix is looked at by one of symbolic, categorical, rgb"):
        make_env(EnvConfig(id="navix:Navix-Empty-5x5-v0", kwargs={"observation_fn": "smell"}))


def test_pictures_of_floats_become_bytes() -> None:
    assert pixels(jnp.array([-0.1, 0, 0.499 / 255, 0.501 / 255, 0.5, 1, 1.2])).tolist() == [
        0,
        0,
        0,
        1,
        128,
        255,
        255,
    ]
    assert pixels(jnp.zeros(())).dtype == jnp.uint8


def test_settled_states_are_strong_and_keep_their_types() -> None:
    start = settled({"steps": 0, "speed": 0.5, "none": None, "flag": jnp.zeros((), bool)})
    step = jax.eval_shape(lambda s: settled({**s, "steps": s["steps"] + 1.0, "flag": 0.0}, s), start)
    types = jax.tree.map(lambda x: (str(x.dtype), x.weak_type), step)
    assert types == {
        "steps": ("int32", False),
        "speed": ("float32", False),
        "none": None,
        "flag": ("bool", False),
    }
