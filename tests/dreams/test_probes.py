"""One-step models: what they learn, and that they are rolled out on what they said themselves."""

from __future__ import annotations

import numpy as np
import pytest

from dreamer_agent.dreams import probes


@pytest.fixture(scope="module")
def swing() -> tuple[np.ndarray, np.ndarray]:
    """Episodes `[E, T, D]` of a damped swing with an offset, pushed by actions `[E, T, A]`."""
    rng = np.random.default_rng(0)
    matrix = np.array([[0.98, 0.2], [-0.2, 0.97]])
    actions = rng.uniform(-1, 1, (8, 60, 1))
    obs = [rng.normal(size=(8, 2))]
    for t in range(59):
        obs.append(obs[-1] @ matrix.T + actions[:, t] * [0.0, 0.3] + [0.01, 0.0])
    return np.stack(obs, 1), actions


def test_the_linear_probe_is_exact_where_the_world_is_linear(swing) -> None:
    obs, actions = swing
    data = probes.Transitions.of(list(zip(obs, actions, strict=True)))
    assert data.obs.shape == (8 * 59, 2) and data.action.shape == (8 * 59, 1)
    told = probes.linear(data).roll_out(obs[:, 10], actions[:, 10:30])
    np.testing.assert_allclose(told, obs[:, 11:31], atol=1e-4)
    late = probes.linear(data).roll_out(obs[:, 10], actions[:, 11:31])
    assert np.abs(late - obs[:, 11:31]).max() > 0.1


def test_a_probe_stays_in_the_range_that_it_was_fitted_on() -> None:
    grows = 1.5 ** np.arange(5.0)[:, None]
    probe = probes.linear(probes.Transitions.of([(grows, np.zeros((5, 1)))]))
    told = probe.roll_out(grows[-1:], np.zeros((1, 6, 1)))
    np.testing.assert_allclose(told, np.full((1, 6, 1), grows[-1]), rtol=1e-4)


def test_the_network_learns_what_a_line_cannot() -> None:
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(2000, 1))
    flip = rng.integers(0, 2, (2000, 1)) * 2.0 - 1
    data = probes.Transitions(obs, flip, flip * obs)  # a product: no line fits it
    start, actions = obs[:500], np.broadcast_to(flip[:500, None], (500, 2, 1))
    truth = np.stack([flip[:500] * start, start], 1)
    errors = [np.square(fit(data).roll_out(start, actions) - truth).mean() for fit in (probes.linear, probes.mlp)]
    assert errors[0] > 0.5 and errors[1] < 0.02
