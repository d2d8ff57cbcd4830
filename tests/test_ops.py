"""The equations against hand-worked numbers, plain recursions and identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent import ops

BINS = ops.symexp_bins()


@pytest.mark.parametrize(
    "x, expected",
    [(0.0, 0.0), (np.e - 1, 1.0), (1 - np.e, -1.0), (99.0, np.log(100.0)), (-9999.0, -np.log(10000.0))],
)
def test_symlog_of_known_numbers(x, expected):
    np.testing.assert_allclose(ops.symlog(jnp.float32(x)), expected, rtol=1e-6)


@pytest.mark.parametrize("x, expected", [(0.0, 0.0), (1.0, np.e - 1), (-1.0, 1 - np.e), (3.0, np.e**3 - 1)])
def test_symexp_of_known_numbers(x, expected):
    np.testing.assert_allclose(ops.symexp(jnp.float32(x)), expected, rtol=1e-6)


def test_symexp_inverts_symlog():
    x = jnp.array([-1e6, -37.5, -1.0, -1e-5, 0.0, 1e-5, 0.3, 1.0, 1234.0, 1e8])
    np.testing.assert_allclose(ops.symexp(ops.symlog(x)), x, rtol=2e-5)
    y = jnp.linspace(-15.0, 15.0, 31)
    np.testing.assert_allclose(ops.symlog(ops.symexp(y)), y, rtol=1e-5, atol=1e-7)


def test_symlog_has_unit_slope_near_zero():
    slope = jax.vmap(jax.grad(ops.symlog))(jnp.array([-1e-6, 1e-6, 1.0, -3.0]))
    np.testing.assert_allclose(slope, [1.0, 1.0, 0.5, 0.25], rtol=1e-5)


def test_bins_are_the_mirrored_symexp_grid():
    grid = np.linspace(-20.0, 0.0, 128)
    half = np.sign(grid) * (np.exp(np.abs(grid)) - 1)
    assert BINS.shape == (255,) and BINS.dtype == np.float32
    np.testing.assert_allclose(BINS[:128], half, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(BINS[127:], -half[::-1], rtol=1e-6, atol=1e-12)


def test_bins_are_symmetric_around_an_exact_zero():
    assert BINS[127] == 0.0
    np.testing.assert_array_equal(BINS, -BINS[::-1])
    assert (np.diff(BINS) > 0).all()


@pytest.mark.parametrize("count", [0, 1, 2, 254])
def test_bins_without_a_middle_are_refused(count):
    with pytest.raises(ValueError, match="odd"):
        ops.symexp_bins(count)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 7)])
def test_cumulative_is_the_running_sum(shape):
    x = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    np.testing.assert_allclose(ops.cumulative(jnp.asarray(x)), x.astype(np.float64).cumsum(-1), rtol=1e-6)


def test_twohot_by_hand():
    bins = np.array([-4.0, -1.0, 0.0, 1.0, 4.0], np.float32)
    weights = ops.twohot(jnp.array([2.0, -0.25, -3.25]), bins)
    expected = [[0, 0, 0, 2 / 3, 1 / 3], [0, 0.25, 0.75, 0, 0], [0.75, 0.25, 0, 0, 0]]
    np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-7)


def test_twohot_on_a_bin_is_one_hot():
    bins = np.array([-4.0, -1.0, 0.0, 1.0, 4.0], np.float32)
    np.testing.assert_array_equal(ops.twohot(jnp.asarray(bins), bins), np.eye(5))
    np.testing.assert_allclose(ops.twohot(jnp.asarray(BINS), BINS), np.eye(255), atol=2e-7)


def test_twohot_clips_at_both_ends():
    weights = np.asarray(ops.twohot(jnp.array([-1e30, -jnp.inf, 1e30, jnp.inf]), BINS))
    np.testing.assert_array_equal(weights.argmax(-1), [0, 0, 254, 254])
    np.testing.assert_array_equal(weights.sum(-1), 1.0)
    np.testing.assert_array_equal(weights.max(-1), 1.0)


def test_twohot_weights_sum_to_one_and_recover_the_number():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=50), rng.normal(size=50) * 1e3, rng.normal(size=50) * 1e7])
    x = x.astype(np.float32).reshape(3, 50)
    weights = np.asarray(ops.twohot(jnp.asarray(x), BINS), np.float64)
    assert weights.shape == (3, 50, 255)
    assert ((weights >= 0).all()) and ((weights > 0).sum(-1) <= 2).all()
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose((weights * BINS.astype(np.float64)).sum(-1), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 3.7, -250.0])
def test_mean_of_equal_logits_is_exactly_zero(level):
    logits = jnp.full((4, 255), level)
    np.testing.assert_array_equal(ops.symmetric_mean(logits, BINS), np.zeros(4))


def test_mean_equals_softmax_times_bins():
    bins = ops.symexp_bins(31, limit=5.0)
    logits = np.random.default_rng(1).normal(size=(6, 2, 31)) * 3
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = (probs * bins.astype(np.float64)).sum(-1)
    np.testing.assert_allclose(ops.symmetric_mean(jnp.asarray(logits), bins), expected, rtol=1e-4, atol=1e-4)


def test_mean_of_huge_logits_is_finite_with_finite_gradient():
    logits = jnp.zeros(255).at[200].set(1e4)
    value, gradient = jax.value_and_grad(ops.symmetric_mean)(logits, BINS)
    np.testing.assert_allclose(value, BINS[200], rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_gradient_of_the_mean_is_that_of_softmax_times_bins():
    bins = ops.symexp_bins(5, limit=2.0)
    logits = np.array([0.3, -1.0, 0.2, 0.9, -0.4])
    probs = np.exp(logits) / np.exp(logits).sum()
    expected = probs * (bins - (probs * bins).sum())  # d mean / d logit_i = p_i (b_i - mean)
    gradient = jax.grad(ops.symmetric_mean)(jnp.asarray(logits, jnp.float32), bins)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_straight_through_has_the_sample_value_and_the_gradient_of_the_probabilities():
    sample, weights = jnp.array([0.0, 1.0, 0.0]), jnp.array([2.0, -3.0, 5.0])
    probs = jnp.array([0.2, 0.5, 0.3])
    np.testing.assert_allclose(ops.straight_through(sample, probs), sample, atol=1e-7)
    by_sample, by_probs = jax.grad(lambda s, p: (ops.straight_through(s, p) * weights).sum(), (0, 1))(
        sample, probs
    )
    np.testing.assert_array_equal(by_sample, 0.0)
    np.testing.assert_array_equal(by_probs, weights)


def test_mix_uniform_by_hand():
    logits = jnp.log(jnp.array([0.5, 0.25, 0.25, 1e-30])) + 7.0
    mixed = jnp.exp(ops.mix_uniform(logits, 0.01))
    np.testing.assert_allclose(mixed, [0.4975, 0.25, 0.25, 0.0025], rtol=1e-5)


def test_mix_uniform_of_nothing_normalises():
    mixed = ops.mix_uniform(jnp.array([1.0, 2.0, 3.0]), 0.0)
    np.testing.assert_allclose(
        mixed, np.array([1.0, 2.0, 3.0]) - np.log(np.exp([1.0, 2.0, 3.0]).sum()), rtol=1e-6
    )


def lambda_return_by_recursion(reward, discount, value, lambda_):
    """The defining recursion, backwards in plain Python, for one row."""
    later, returns = value[-1], []
    for r, d, v, l in zip(reward[::-1], discount[::-1], value[::-1], lambda_[::-1], strict=True):
        later = r + d * ((1 - l) * v + l * later)
        returns.append(later)
    return returns[::-1]


def draw_rows(rows=3, length=7):
    rng = np.random.default_rng(2)
    reward, value = rng.normal(size=(2, rows, length))
    discount = rng.uniform(0.5, 1.0, (rows, length)) * (rng.random((rows, length)) > 0.15)
    return reward, discount, value, rng.uniform(0, 1, (rows, length))


def test_lambda_return_by_hand():
    reward, discount = jnp.array([[1.0, 2.0]]), jnp.array([[0.5, 0.5]])
    returns = ops.lambda_return(reward, discount, jnp.array([[4.0, 8.0]]), 0.5)
    # R_1 = 2 + 0.5 * 8 = 6; R_0 = 1 + 0.5 (0.5 * 4 + 0.5 * 6) = 3.5
    np.testing.assert_allclose(returns, [[3.5, 6.0]])


@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_lambda_return_equals_the_recursion(length):
    rows = draw_rows(length=length)
    returns = ops.lambda_return(*(jnp.asarray(x, jnp.float32) for x in rows))
    expected = [lambda_return_by_recursion(*row) for row in zip(*rows, strict=True)]
    np.testing.assert_allclose(returns, expected, rtol=1e-5, atol=1e-6)


def test_lambda_zero_is_the_one_step_target():
    reward, discount, value, _ = (jnp.asarray(x, jnp.float32) for x in draw_rows())
    returns = ops.lambda_return(reward, discount, value, 0.0)
    np.testing.assert_allclose(returns, np.asarray(reward) + np.asarray(discount) * value, rtol=1e-6)


def test_lambda_one_is_monte_carlo_with_bootstrap():
    reward = jnp.array([[1.0, 1.0, 1.0]])
    returns = ops.lambda_return(reward, jnp.full((1, 3), 0.9), jnp.array([[100.0, -50.0, 10.0]]), 1.0)
    last = 1 + 0.9 * 10
    np.testing.assert_allclose(returns, [[1 + 0.9 * (1 + 0.9 * last), 1 + 0.9 * last, last]], rtol=1e-6)


def test_lambda_by_step_cuts_at_the_end_of_an_episode():
    reward, value = jnp.array([[1.0, 2.0, 3.0, 4.0]]), jnp.array([[10.0, 20.0, 30.0, 40.0]])
    lambda_ = jnp.array([[0.9, 0.0, 0.9, 0.9]])  # the second transition ends an episode by truncation
    returns = ops.lambda_return(reward, jnp.full((1, 4), 0.5), value, lambda_)
    # R_1 = 2 + 0.5 * 20 = 12; R_0 = 1 + 0.5 (0.1 * 10 + 0.9 * 12) = 6.9
    np.testing.assert_allclose(returns[0, :2], [6.9, 12.0], rtol=1e-6)
    other = ops.lambda_return(reward.at[:, 2:].set(99.0), jnp.full((1, 4), 0.5), value, lambda_)
    np.testing.assert_array_equal(other[0, :2], returns[0, :2])
    assert (other[0, 2:] != returns[0, 2:]).all()


def test_zero_discount_ends_the_return():
    returns = ops.lambda_return(
        jnp.array([[1.0, 2.0, 3.0]]), jnp.array([[1.0, 0.0, 1.0]]), jnp.full((1, 3), 1e6), 1.0
    )
    np.testing.assert_allclose(returns[0, :2], [3.0, 2.0])


def test_rows_of_the_lambda_return_are_independent():
    reward, discount, value, lambda_ = (jnp.asarray(x, jnp.float32) for x in draw_rows())
    whole = ops.lambda_return(reward, discount, value, lambda_)
    changed = ops.lambda_return(reward.at[0].add(5.0), discount, value.at[0].set(0.0), lambda_)
    np.testing.assert_array_equal(changed[1:], whole[1:])
    for i in range(3):
        row = ops.lambda_return(*(x[i : i + 1] for x in (reward, discount, value, lambda_)))
        np.testing.assert_allclose(row[0], whole[i], rtol=1e-6)


def test_percentile_range_by_hand():
    # Of 0..100 the 5th percentile is 5 and the 95th is 95.
    norm = ops.PercentileRange.zeros().update(jnp.arange(101.0).reshape(1, 101), 0.1)
    np.testing.assert_allclose([norm.low, norm.high, norm.scale], [0.5, 9.5, 9.0], rtol=1e-5)
    norm = norm.update(jnp.arange(101.0) * 2, 0.1)
    # low: 0.9 * 0.5 + 0.1 * 10 = 1.45; high: 0.9 * 9.5 + 0.1 * 190 = 27.55
    np.testing.assert_allclose([norm.low, norm.high, norm.scale], [1.45, 27.55, 26.1], rtol=1e-5)


def test_percentiles_interpolate_between_neighbours():
    norm = ops.PercentileRange.zeros().update(jnp.array([1.0, 0.0]), 1.0)
    np.testing.assert_allclose([norm.low, norm.high], [0.05, 0.95], rtol=1e-5)


def test_scale_is_never_below_one():
    assert ops.PercentileRange.zeros().scale == 1.0
    assert ops.PercentileRange.zeros().update(jnp.full(10, 7.0), 1.0).scale == 1.0
    assert ops.PercentileRange(jnp.float32(-1.0), jnp.float32(2.0)).scale == 3.0


def test_percentile_range_carries_no_gradient():
    gradient = jax.grad(lambda x: ops.PercentileRange.zeros().update(x, 1.0).scale)(jnp.arange(50.0))
    np.testing.assert_array_equal(gradient, 0.0)
