"""Recorded episodes: where the pictures come from, and that they and the rewards are those of the episode."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled

from dreamer_agent.config import EnvConfig
from dreamer_agent.envs import make_env
from dreamer_agent.errors import MissingExtraError
from dreamer_agent.training.evaluate import evaluate
from dreamer_agent.training.record import MAX_SIDE, NoPictureError, film, record_episodes, shrink
from tests.training.test_driver import AGENT, PARAMS, Counting


class Drawing(Counting):
    """Draws a picture whose pixels are its steps so far; every other property is `Counting`'s."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(self, length: int = 3, render_mode: str | None = None, problem: Exception | None = None):
        super().__init__(length, terminates=True)
        self.render_mode, self.problem = render_mode, problem

    def render(self) -> Any:
        if self.problem is not None:
            raise self.problem
        return np.full((6, 4, 3), self.steps, np.uint8)


class Blind(Counting):
    """Numbers only, and nothing that draws them."""

    def __init__(self, length: int = 3):
        super().__init__(length, terminates=True)


class Seeing(Drawing):
    """Observes two images beside its numbers."""

    observation_space = spaces.Dict(
        {
            "obs": Counting.observation_space,
            "small": spaces.Box(0, 255, (16, 16, 3), np.uint8),
            "large": spaces.Box(0, 255, (32, 16, 1), np.uint8),
        }
    )

    def _seen(self, obs: Any) -> dict[str, Any]:
        return {
            "obs": obs,
            "small": np.zeros((16, 16, 3), np.uint8),
            "large": np.full((32, 16, 1), 100 + self.steps, np.uint8),
        }

    def reset(self, **kwargs: Any) -> Any:
        obs, info = super().reset(**kwargs)
        return self._seen(obs), info

    def step(self, action: Any) -> Any:
        obs, *rest = super().step(action)
        return self._seen(obs), *rest


@pytest.fixture(autouse=True)
def ids() -> Any:
    for kind in (Drawing, Blind, Seeing):
        gym.register(f"{kind.__name__}-v0", entry_point=kind)
    yield
    for kind in (Drawing, Blind, Seeing):
        gym.registry.pop(f"{kind.__name__}-v0")


def record(config: EnvConfig, episodes: int = 2, **kwargs: Any) -> list[Any]:
    env, render, _ = film(config)
    try:
        return list(record_episodes(AGENT, PARAMS, env, render, episodes, 0, **kwargs))
    finally:
        env.close()


def test_frames_and_rewards_are_those_of_each_step() -> None:
    config = EnvConfig(id="Drawing-v0", kwargs={"length": 4})
    recordings = record(config)
    assert len(recordings) == 2
    for recording in recordings:
        assert recording.frames.shape == (5, 6, 4, 3) and recording.frames.dtype == np.uint8
        # Each picture is that of its own row: neither one late, nor that of the next episode.
        assert recording.frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
        assert recording.rewards.tolist() == [0, 2, 2, 2, 2]  # every step pays 1 + action 1
    scored = evaluate(AGENT, PARAMS, make_env(config, 1), 2, 0, explore=True, max_length=99)
    assert scored.returns == [recording.rewards.sum() for recording in recordings]


def test_the_mode_is_recorded_where_it_does_not_explore() -> None:
    (recording,) = record(EnvConfig(id="Drawing-v0"), 1, explore=False)
    assert recording.rewards.tolist() == [0, 1, 1, 1]


def test_long_episodes_keep_their_first_frames_and_all_rewards() -> None:
    first, second = record(EnvConfig(id="Drawing-v0", kwargs={"length": 6}), max_frames=3)
    for recording in (first, second):
        assert recording.frames[:, 0, 0, 0].tolist() == [0, 1, 2]
        assert len(recording.rewards) == 7


def test_an_episode_that_does_not_end_is_given_as_far_as_it_went() -> None:
    config = EnvConfig(id="Drawing-v0", kwargs={"length": 1000})
    (recording,) = record(config, episodes=2, max_length=20)
    assert len(recording.rewards) == 21


def test_the_own_rendering_is_preferred_and_the_largest_image_stands_in() -> None:
    config = EnvConfig(id="Seeing-v0")
    (own,) = record(config, 1)
    assert own.frames.shape == (4, 6, 4, 3)
    broken = EnvConfig(id="Seeing-v0", kwargs={"problem": RuntimeError("no display")})
    (seen,) = record(broken, 1)
    assert seen.frames.shape == (4, 32, 16, 1)
    assert seen.frames[:, 0, 0, 0].tolist() == [100, 101, 102, 103]


def test_jax_native_environments_show_their_image() -> None:
    env, render, fps = film(EnvConfig(id="toy:catch"))
    (rows,) = env.reset(0)
    np.testing.assert_array_equal(render(rows), rows.obs["image"][0])
    assert fps == 10


def test_the_pace_is_that_of_the_rendering_over_repeated_actions() -> None:
    for repeat, expected in ((1, 30), (2, 15), (10, 5)):
        assert film(EnvConfig(id="Drawing-v0", action_repeat=repeat)).fps == expected


@pytest.mark.parametrize(
    ("config", "error", "sentence"),
    [
        (EnvConfig(id="Blind-v0"), NoPictureError, "'Blind-v0' has no image observation, nor a rendering"),
        (
            EnvConfig(id="Drawing-v0", kwargs={"problem": RuntimeError("no display.")}),
            NoPictureError,
            r"its rendering failed: no display\)",
        ),
        (
            EnvConfig(id="Drawing-v0", kwargs={"problem": DependencyNotInstalled("pygame is missing")}),
            MissingExtraError,
            r"'pygame' is not installed.*dreamer-agent\[classic\]",
        ),
        (
            EnvConfig(id="Drawing-v0", kwargs={"problem": DependencyNotInstalled("try `pip install swig`")}),
            MissingExtraError,
            "'Drawing-v0' cannot draw itself: try `pip install swig`",
        ),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(config, error, sentence) -> None:
    with pytest.raises(error, match=sentence) as caught:
        film(config)
    assert "\n" not in str(caught.value)


def test_cartpole_without_pygame_names_the_extra(monkeypatch) -> None:
    for name in ("pygame", "pygame.gfxdraw"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"dreamer-agent\[classic\]"):
        film(EnvConfig(id="CartPole-v1"))


def test_shrinking_takes_the_mean_of_squares() -> None:
    image = np.arange(5 * 4 * 3).reshape(5, 4, 3).astype(np.uint8)
    small = shrink(image, 2)  # a factor of three would lose less of the height, but two would not suffice
    assert small.shape == (1, 1, 3)
    np.testing.assert_array_equal(small[0, 0], image[:3, :3].astype(float).mean((0, 1)).round())
    assert shrink(image, 5) is image
    np.testing.assert_array_equal(shrink(np.stack([image, image]), 2), [small, small])


def test_large_renderings_are_shrunk(monkeypatch) -> None:
    monkeypatch.setattr(Drawing, "render", lambda self: np.full((2 * MAX_SIDE, MAX_SIDE, 3), 7, np.uint8))
    (recording,) = record(EnvConfig(id="Drawing-v0"), 1)
    assert recording.frames.shape == (4, MAX_SIDE, MAX_SIDE // 2, 3)
    assert (recording.frames == 7).all()
