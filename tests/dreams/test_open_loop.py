"""Open-loop predictions: what is observed, what is imagined, and which sequences are shown."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dreamer_agent.dreams import open_loop, whole_windows
from dreamer_agent.specs import ArraySpec
from tests.conftest import Learner, random_batch, small_config


def test_the_imagined_half_depends_on_actions_but_not_on_observations(learner) -> None:
    batch = random_batch(learner.agent)
    batch["is_first"][:] = False
    observed, key = 4, jax.random.PRNGKey(0)
    base = open_loop(learner.agent, learner.state.params, batch, key, observed)
    assert base.prediction["vector"].shape == base.truth["vector"].shape == (4, 8, 3)
    assert base.prediction["integer"].dtype.kind == "i"

    changed = jax.tree.map(np.copy, batch)
    changed["obs"]["vector"][:, 1 + observed :] += 5.0
    other = open_loop(learner.agent, learner.state.params, changed, key, observed)
    np.testing.assert_array_equal(base.prediction["vector"], other.prediction["vector"])

    moved = jax.tree.map(np.copy, batch)
    moved["action"]["move"][:, observed:] = -moved["action"]["move"][:, observed:]
    other = open_loop(learner.agent, learner.state.params, moved, key, observed)
    np.testing.assert_array_equal(base.reward.prediction[:, :observed], other.reward.prediction[:, :observed])
    gap = np.abs(base.prediction["vector"] - other.prediction["vector"])
    assert (gap[:, :observed] == 0).all() and gap[:, observed].max() > 0


def test_continue_has_the_discount_divided_out(learner) -> None:
    dream = open_loop(learner.agent, learner.state.params, random_batch(learner.agent), jax.random.PRNGKey(0), 4)
    truth, prediction = dream.continue_
    assert (prediction > 0).all() and (prediction <= 333 / 332 + 1e-6).all()
    assert set(np.unique(truth)) <= {0.0, 1.0}


def test_error_by_step_is_the_mean_square(learner) -> None:
    dream = open_loop(learner.agent, learner.state.params, random_batch(learner.agent), jax.random.PRNGKey(0), 4)
    expected = [
        np.mean([(dream.truth["vector"][b, t] - dream.prediction["vector"][b, t]) ** 2 for b in range(4)])
        for t in range(8)
    ]
    np.testing.assert_allclose(dream.error_by_step("vector"), expected, rtol=1e-5)
    for name, pair in (("reward", dream.reward), ("continue", dream.continue_)):
        np.testing.assert_allclose(dream.error_by_step(name), ((pair[0] - pair[1]) ** 2).mean(0), rtol=1e-5)


def test_an_observation_may_be_called_reward() -> None:
    obs = {"reward": ArraySpec("continuous", (2,)), "continue": ArraySpec("discrete", (), 3)}
    learner = Learner(small_config(), obs, {"move": ArraySpec("continuous", (1,))})
    batch = random_batch(learner.agent)
    dream = open_loop(learner.agent, learner.state.params, batch, jax.random.PRNGKey(0), 4)
    np.testing.assert_array_equal(dream.truth["reward"], batch["obs"]["reward"][:, 1:])
    np.testing.assert_array_equal(dream.truth["continue"], batch["obs"]["continue"][:, 1:])
    np.testing.assert_array_equal(dream.reward.truth, batch["reward"][:, 1:])
    assert dream.prediction["reward"].shape == (4, 8, 2) and dream.reward.prediction.shape == (4, 8)
    assert dream.prediction["continue"].dtype.kind == "i" and dream.continue_.prediction.dtype.kind == "f"
    gap = batch["reward"][:, 1:] - dream.reward.prediction
    np.testing.assert_allclose(dream.error_by_step("reward"), (gap**2).mean(0), rtol=1e-5)
    gap = batch["obs"]["reward"][:, 1:] - dream.prediction["reward"]
    expected = (gap**2).mean((0, 2))
    np.testing.assert_allclose(dream.observation("reward").error_by_step(), expected, rtol=1e-5)
    np.testing.assert_array_equal(dream.is_first, batch["is_first"][:, 1:])


@pytest.mark.parametrize("observed", [0, 8])
def test_both_halves_need_a_step(learner, observed) -> None:
    with pytest.raises(ValueError, match="at least one step"):
        open_loop(
            learner.agent, learner.state.params, random_batch(learner.agent), jax.random.PRNGKey(0), observed
        )


def test_windows_without_a_start_inside_are_preferred() -> None:
    first = np.zeros((3, 10), bool)
    first[0, 5] = True  # only windows on either side of step 5 are whole
    first[1, 2] = True
    first[2, [3, 6]] = True  # no window of 5 is whole
    numbers = np.arange(30.0).reshape(3, 10)
    steps = [{"is_first": first[:, t], "reward": numbers[:, t]} for t in range(10)]
    batch = whole_windows(steps, 5, 2)
    assert batch["reward"].tolist() == [[0, 1, 2, 3, 4], [12, 13, 14, 15, 16]]
    assert not batch["is_first"][:, 1:].any()
