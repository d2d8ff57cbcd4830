"""Distributions against scipy, hand-worked numbers, and counted samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dreamer_agent import ops
from dreamer_agent.distributions import (
    ILLEGAL,
    Bernoulli,
    Categorical,
    GaussianPixels,
    GaussianVector,
    Normal,
    PixelError,
    TanhNormal,
    TruncatedNormal,
    TwoHot,
    VectorError,
    number,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, 3, 5)).astype(np.float32) * 2
OTHER = RNG.normal(size=(2, 3, 5)).astype(np.float32)
INDEX = RNG.integers(0, 5, (2, 3))


def softmax(logits):
    weights = np.exp(np.asarray(logits, np.float64))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("event_ndim, shape", [(0, (2, 3)), (1, (2,)), (2, ())])
def test_categorical_sums_over_the_event(event_ndim, shape):
    dist = Categorical.from_logits(jnp.asarray(LOGITS), event_ndim)
    other = Categorical.from_logits(jnp.asarray(OTHER), event_ndim)
    p, q = softmax(LOGITS), softmax(OTHER)
    axes = tuple(range(2 - event_ndim, 2))
    log_prob = np.log(np.take_along_axis(p, INDEX[..., None], -1)[..., 0]).sum(axes)
    assert dist.log_prob(jnp.asarray(INDEX)).shape == shape
    np.testing.assert_allclose(dist.log_prob(jnp.asarray(INDEX)), log_prob, rtol=1e-5)
    np.testing.assert_allclose(dist.loss(jnp.asarray(INDEX)), -log_prob, rtol=1e-5)
    np.testing.assert_allclose(dist.entropy(), stats.entropy(p, axis=-1).sum(axes), rtol=1e-5)
    np.testing.assert_allclose(dist.kl(other), stats.entropy(p, q, axis=-1).sum(axes), rtol=1e-4)
    np.testing.assert_array_equal(dist.mode(), LOGITS.argmax(-1))


def test_categorical_by_hand():
    dist = Categorical.from_logits(jnp.log(jnp.array([0.5, 0.25, 0.25])))
    np.testing.assert_allclose(dist.entropy(), 1.5 * np.log(2), rtol=1e-6)
    uniform = Categorical.from_logits(jnp.zeros(3))
    np.testing.assert_allclose(uniform.entropy(), np.log(3), rtol=1e-6)
    np.testing.assert_allclose(dist.kl(uniform), np.log(3) - 1.5 * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(dist.kl(dist), 0.0, atol=1e-7)


def test_unimix_enters_probability_entropy_and_kl():
    dist = Categorical.from_logits(jnp.asarray(LOGITS), 1, unimix=0.01)
    other = Categorical.from_logits(jnp.asarray(OTHER), 1, unimix=0.01)
    p, q = (0.99 * softmax(x) + 0.01 / 5 for x in (LOGITS, OTHER))
    np.testing.assert_allclose(jnp.exp(dist.log_probs), p, rtol=1e-5)
    np.testing.assert_allclose(dist.entropy(), stats.entropy(p, axis=-1).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(dist.kl(other), stats.entropy(p, q, axis=-1).sum(-1), rtol=1e-4)


def test_unimix_bounds_the_kl_of_certain_distributions():
    sure = [Categorical.from_logits(jnp.eye(4)[i] * 1e4, unimix=0.01) for i in range(2)]
    high, low = 0.99 + 0.0025, 0.0025
    np.testing.assert_allclose(sure[0].kl(sure[1]), (high - low) * np.log(high / low), rtol=1e-5)


def test_categorical_takes_half_precision_logits():
    dist = Categorical.from_logits(jnp.asarray(LOGITS, jnp.bfloat16))
    assert dist.log_probs.dtype == jnp.float32
    np.testing.assert_allclose(jnp.exp(dist.log_probs).sum(-1), 1.0, rtol=1e-6)


def test_onehot_has_the_gradient_of_the_mixed_probabilities():
    logits, weights = jnp.asarray(LOGITS[0]), jnp.asarray(RNG.normal(size=(3, 5)), jnp.float32)

    def through_onehot(logits):
        dist = Categorical.from_logits(logits, 1, unimix=0.01)
        return (dist.onehot(jnp.asarray(INDEX[0])) * weights).sum()

    def through_probs(logits):
        return ((0.99 * jax.nn.softmax(logits) + 0.01 / 5) * weights).sum()

    np.testing.assert_allclose(
        jax.grad(through_onehot)(logits), jax.grad(through_probs)(logits), rtol=1e-4, atol=1e-6
    )
    hot = Categorical.from_logits(logits, 1, unimix=0.01).onehot(jnp.asarray(INDEX[0]))
    np.testing.assert_allclose(hot, np.eye(5)[INDEX[0]], atol=1e-6)


def test_categorical_samples_with_the_mixed_frequencies():
    probs = np.array([0.7, 0.3, 0.0])
    dist = Categorical.from_logits(jnp.log(jnp.tile(probs, (40_000, 1)) + 1e-30), unimix=0.3)
    counts = np.bincount(np.asarray(dist.sample(jax.random.PRNGKey(0))), minlength=3) / 40_000
    np.testing.assert_allclose(counts, 0.7 * probs + 0.1, atol=0.01)


def test_categorical_quantiles_by_hand():
    probs = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]])
    dist = Categorical.from_logits(jnp.log(jnp.asarray(probs)), 1)
    last = np.nextafter(np.float32(1), np.float32(0))  # the largest number that jax.random.uniform may give
    for level, expected in (([0, 0], [0, 0]), ([0.6, 0.1], [1, 0]), ([0.8, 0.5], [2, 1]), ([last, last], [2, 2])):
        assert dist.quantile(jnp.array(level, jnp.float32)).tolist() == expected


def test_categorical_quantiles_of_uniform_levels_have_the_frequencies():
    probs = np.array([0.6, 0.1, 0.3])
    dist = Categorical.from_logits(jnp.log(jnp.asarray(probs)))
    levels = (np.arange(10_000) + 0.5) / 10_000
    index = Categorical(jnp.tile(dist.log_probs, (10_000, 1))).quantile(jnp.asarray(levels, jnp.float32))
    np.testing.assert_allclose(np.bincount(index) / 10_000, probs, atol=2e-4)


def test_categorical_samples_of_an_event_are_independent():
    probs = np.array([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6]])
    dist = Categorical.from_logits(jnp.log(jnp.tile(probs, (40_000, 1, 1)) + 1e-30), 1)
    index = np.asarray(dist.sample(jax.random.PRNGKey(1)))
    joint = np.bincount(index[:, 0] * 3 + index[:, 1], minlength=9).reshape(3, 3) / 40_000
    np.testing.assert_allclose(joint, np.outer(*probs), atol=0.01)


def test_categorical_never_samples_what_has_no_probability():
    legal = jnp.array([[False, True, False, True, False], [True, False, False, False, False]])
    logits = jnp.array([[3.0, -40.0, 9.0, 0.0, 9.0], [-80.0, 1.0, 1.0, 1.0, 1.0]])
    dist = Categorical.from_logits(jnp.tile(logits, (5_000, 1, 1)), legal=jnp.tile(legal, (5_000, 1, 1)))
    index = np.asarray(dist.sample(jax.random.PRNGKey(0)))
    assert set(index[:, 0]) <= {1, 3} and set(index[:, 1]) == {0}


def test_normal_against_scipy():
    loc, std = RNG.normal(size=(2, 4, 3)).astype(np.float32), RNG.uniform(0.1, 2, (2, 4, 3)).astype(np.float32)
    x = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    dist = Normal(jnp.asarray(loc), jnp.asarray(std), 1)
    np.testing.assert_allclose(dist.log_prob(jnp.asarray(x)), stats.norm(loc, std).logpdf(x).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(dist.entropy(), stats.norm(loc, std).entropy().sum(-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(dist.mode(), loc)
    assert Normal(jnp.asarray(loc), jnp.asarray(std)).log_prob(jnp.asarray(x)).shape == (2, 4, 3)
    assert Normal(jnp.asarray(loc), jnp.asarray(std), 3).entropy().shape == ()


def test_standard_normal_by_hand():
    dist = Normal(jnp.zeros(2), jnp.ones(2), 1)
    np.testing.assert_allclose(dist.log_prob(jnp.array([0.0, 2.0])), -2.0 - np.log(2 * np.pi), rtol=1e-6)
    np.testing.assert_allclose(dist.entropy(), 1 + np.log(2 * np.pi), rtol=1e-6)


def test_bounded_normal_by_its_formula():
    mean, std = np.array([0.0, 0.5, -3.0]), np.array([0.0, -2.0, 1.3])
    dist = Normal.bounded(jnp.asarray(mean, jnp.bfloat16), jnp.asarray(std, jnp.float32), 1)
    assert dist.loc.dtype == dist.std.dtype == jnp.float32
    np.testing.assert_allclose(dist.loc, np.tanh(mean), rtol=1e-6)
    np.testing.assert_allclose(dist.std, 0.9 / (1 + np.exp(-(std + 2))) + 0.1, rtol=1e-6)
    assert dist.std[1] == pytest.approx(0.55)


def test_bounded_normal_stays_within_its_limits():
    dist = Normal.bounded(jnp.array([-50.0, 50.0]), jnp.array([-50.0, 50.0]), 1)
    np.testing.assert_allclose(dist.loc, [-1.0, 1.0])
    np.testing.assert_allclose(dist.std, [0.1, 1.0], rtol=1e-6)
    narrow = Normal.bounded(jnp.zeros(2), jnp.array([-50.0, 50.0]), 1, low=0.2, high=0.4)
    np.testing.assert_allclose(narrow.std, [0.2, 0.4], rtol=1e-6)


def test_normal_samples_have_mean_and_std():
    dist = Normal(jnp.full((40_000, 1), -2.0), jnp.full((40_000, 1), 0.5), 1)
    x = np.asarray(dist.sample(jax.random.PRNGKey(1)))
    assert x.shape == (40_000, 1)
    assert x.mean() == pytest.approx(-2.0, abs=0.01) and x.std() == pytest.approx(0.5, abs=0.01)


def test_bernoulli_loss_with_hard_and_soft_targets():
    logit = jnp.array([0.0, np.log(3.0), -2.0], jnp.float32)
    p = np.array([0.5, 0.75, 1 / (1 + np.exp(2.0))])
    for target in (0.0, 1.0, 1 - 1 / 333):
        expected = -(target * np.log(p) + (1 - target) * np.log(1 - p))
        np.testing.assert_allclose(Bernoulli(logit).loss(target), expected, rtol=1e-5)
    np.testing.assert_allclose(Bernoulli(logit).prob(), p, rtol=1e-6)
    np.testing.assert_array_equal(Bernoulli(logit).mode(), [False, True, False])


def test_soft_target_is_where_the_bernoulli_loss_is_flat():
    target = 1 - 1 / 333
    logit = np.log(target / (1 - target))
    slope = jax.grad(lambda x: Bernoulli(x).loss(target))(jnp.float32(logit))
    assert slope == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(Bernoulli(jnp.array([-1e4, 1e4])).loss(target)).all()


def test_twohot_loss_by_hand():
    bins = np.array([-3.0, -1.0, 0.0, 1.0, 3.0], np.float32)
    logits = jnp.array([[0.1, -0.2, 0.3, 0.4, -0.5], [0.0, 0.0, 0.0, 0.0, 0.0]])
    log_p = np.log(softmax(logits))
    loss = TwoHot(logits, bins).loss(jnp.array([2.5, -1.0]))
    np.testing.assert_allclose(loss, [-(0.25 * log_p[0, 3] + 0.75 * log_p[0, 4]), np.log(5)], rtol=1e-5)


def test_twohot_gives_its_target_no_gradient_and_its_logits_the_difference_of_weights():
    bins = ops.symexp_bins(7, limit=2.0)
    logits = jnp.array([0.1, -0.2, 0.3, 0.4, -0.5, 0.0, 1.0])
    by_logits, by_target = jax.grad(lambda l, t: TwoHot(l, bins).loss(t), (0, 1))(logits, jnp.float32(bins[4]))
    np.testing.assert_allclose(by_logits, softmax(logits) - np.eye(7)[4], rtol=1e-4, atol=1e-6)
    assert by_target == 0.0


def test_twohot_mean_is_exactly_zero_at_the_start():
    head = TwoHot(jnp.zeros((3, 255)), ops.symexp_bins())
    np.testing.assert_array_equal(head.mean(), 0.0)
    np.testing.assert_array_equal(head.mode(), 0.0)


def test_twohot_mean_of_a_certain_head_is_the_bin():
    bins = ops.symexp_bins(7, limit=2.0)
    np.testing.assert_allclose(TwoHot(jnp.eye(7) * 100, bins).mean(), bins, rtol=1e-5, atol=1e-5)


def test_symlog_error_by_hand():
    head = VectorError(jnp.array([[1.0, 0.0, -1.0], [0.0, 0.0, 2.0]]), 1)
    target = jnp.array([[np.e - 1, 0.0, np.e - 1], [0.0, np.e**3 - 1, 0.0]], jnp.float32)
    np.testing.assert_allclose(head.loss(target), [4.0, 9.0 + 4.0], rtol=1e-5)
    np.testing.assert_allclose(head.mode()[0], [np.e - 1, 0.0, 1 - np.e], rtol=1e-5)
    assert VectorError(jnp.zeros((2, 3)), 0).loss(target).shape == (2, 3)


def test_vector_error_without_symlog():
    head = VectorError(jnp.array([[1.0, 0.0, -1.0]]), 1, symlog=False)
    np.testing.assert_allclose(head.loss(jnp.array([[3.0, 0.0, 2.0]])), [4.0 + 9.0], rtol=1e-6)
    np.testing.assert_array_equal(head.mode(), [[1.0, 0.0, -1.0]])


def test_a_number_by_hand():
    raw, target = jnp.array([[1.0], [-1.0], [0.0]]), jnp.array([np.e**2 - 1, 0.0, 0.0], jnp.float32)
    logged, plain = number(raw, None, symlog=True), number(raw, None, symlog=False)
    np.testing.assert_allclose(logged.loss(target), [0.5, 0.5, 0.0], rtol=1e-5)
    np.testing.assert_allclose(logged.mean(), [np.e - 1, 1 - np.e, 0.0], rtol=1e-5)
    np.testing.assert_allclose(plain.loss(target), [0.5 * (np.e**2 - 2) ** 2, 0.5, 0.0], rtol=1e-5)
    np.testing.assert_array_equal(plain.mode(), [1.0, -1.0, 0.0])
    assert isinstance(number(jnp.zeros((3, 5)), ops.symexp_bins(5), True), TwoHot)
    slope = jax.grad(lambda x: number(x, None, True).loss(target).sum())(raw)
    np.testing.assert_allclose(slope[:, 0], [-1.0, -1.0, 0.0], atol=1e-5)
    slope = jax.grad(lambda x: number(x, None, True).detached().loss(target).sum())(raw)
    np.testing.assert_array_equal(slope, jnp.zeros_like(raw))


def test_pixel_error_by_hand():
    head = PixelError(jnp.full((2, 2, 3, 1), 0.5))
    target = jnp.asarray(np.array([0, 255], np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8))
    np.testing.assert_allclose(head.loss(target), [1.5, 1.5], rtol=1e-6)
    np.testing.assert_allclose(PixelError(jnp.ones((2, 2, 3, 1))).loss(target), [6.0, 0.0], rtol=1e-6)
    shown = PixelError(jnp.array([0.0, 1.0, 0.1]).reshape(1, 1, 3)).mode()
    assert shown.dtype == jnp.uint8
    np.testing.assert_array_equal(shown.ravel(), [0, 255, 26])  # 25.5 rounds to even


def test_an_illegal_class_has_no_probability_mixed_or_not() -> None:
    logits, legal = jnp.array([1.0, 2.0, 5.0]), jnp.array([True, True, False])
    for unimix in (0.0, 0.3):
        dist = Categorical.from_logits(logits, unimix=unimix, legal=legal)
        probs = np.exp(np.asarray(dist.log_probs))
        assert probs[2] == 0 and probs.sum() == pytest.approx(1, abs=1e-6)
        gradient = jax.grad(lambda x, u=unimix: Categorical.from_logits(x, unimix=u, legal=legal).entropy())(
            logits
        )
        assert np.isfinite(gradient).all()
    free = Categorical.from_logits(logits[:2])
    plain = Categorical.from_logits(logits, legal=legal)
    np.testing.assert_allclose(plain.log_probs[:2], free.log_probs, atol=1e-6)


LOC, STD = np.array([-0.95, 0.0, 0.6], np.float32), np.array([0.1, 0.7, 2.0], np.float32)


def test_truncated_normal_equals_scipy():
    dist = TruncatedNormal(jnp.asarray(LOC), jnp.asarray(STD))
    known = stats.truncnorm((-1 - LOC) / STD, (1 - LOC) / STD, LOC, STD)
    x = np.array([-0.9, 0.3, -0.2])
    np.testing.assert_allclose(dist.log_prob(jnp.asarray(x)), known.logpdf(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dist.entropy(), [known.entropy()[i] for i in range(3)], rtol=1e-3, atol=1e-4)
    many = TruncatedNormal(jnp.tile(jnp.asarray(LOC), (20_000, 1)), jnp.tile(jnp.asarray(STD), (20_000, 1)), 1)
    drawn = np.asarray(many.sample(jax.random.PRNGKey(0)))
    assert np.abs(drawn).max() <= 1
    np.testing.assert_allclose(drawn.mean(0), known.mean(), atol=0.02)
    np.testing.assert_allclose(drawn.std(0), known.std(), atol=0.02)
    assert many.log_prob(jnp.asarray(drawn)).shape == many.entropy().shape == (20_000,)


def test_truncated_normal_has_the_raw_form_of_v2():
    dist = TruncatedNormal.from_raw(jnp.array([0.0, 50.0]), jnp.array([0.0, -50.0]), 1)
    np.testing.assert_allclose(dist.std, [1.1, 0.1], rtol=1e-5)
    np.testing.assert_allclose(dist.mode(), [0.0, 1.0], atol=1e-6)
    assert np.isfinite(dist.log_prob(dist.mode())) and np.isfinite(dist.entropy())


def test_tanh_normal_is_a_change_of_variables():
    loc, std = np.array([0.3, -1.0]), np.array([0.5, 1.5])
    dist = TanhNormal(Normal(jnp.float32(loc), jnp.float32(std), 1))
    x = np.array([0.4, -0.97])
    density = stats.norm(loc, std).logpdf(np.arctanh(x)) - np.log1p(-(x**2))
    np.testing.assert_allclose(dist.log_prob(jnp.float32(x)), density.sum(), rtol=1e-4)
    np.testing.assert_allclose(dist.mode(), np.tanh(loc), rtol=1e-5)
    grid = np.linspace(-12, 12, 200_001)  # of the normal's numbers
    total = 0.0
    for m, s in zip(loc, std, strict=True):
        p = stats.norm(m, s).pdf(grid)
        slope = 2 * (np.log(2) - grid - np.logaddexp(0, -2 * grid))
        total += stats.norm(m, s).entropy() + (p * slope).sum() * (grid[1] - grid[0])
    np.testing.assert_allclose(dist.entropy(), total, rtol=1e-3, atol=2e-3)
    edge = dist.log_prob(jnp.array([1.0, -1.0]))
    assert np.isfinite(edge)


def test_tanh_normal_starts_wide():
    dist = TanhNormal.from_raw(jnp.zeros(20_000), jnp.zeros(20_000), 0)
    np.testing.assert_allclose(dist.base.std, 5.0, rtol=1e-3)
    drawn = np.asarray(dist.sample(jax.random.PRNGKey(0)))
    assert np.abs(drawn).max() <= 1 and np.mean(np.abs(drawn) > 0.9) == pytest.approx(
        2 * stats.norm(0, 5).sf(np.arctanh(0.9)), abs=0.02
    )
    bounded = TanhNormal.from_raw(jnp.array([500.0]), jnp.array([-50.0]), 1)
    np.testing.assert_allclose(bounded.base.loc, 5.0, rtol=1e-5)


def test_noise_is_added_within_the_bounds_or_makes_choices_anew():
    x = jnp.zeros((10_000,))
    noisy = np.asarray(Normal(x, x).noisy(jax.random.PRNGKey(0), x, 0.3))
    assert noisy.std() == pytest.approx(0.3, abs=0.01) and np.abs(noisy).max() <= 1
    near = TanhNormal(Normal(x, x)).noisy(jax.random.PRNGKey(0), x + 0.99, 0.3)
    assert near.max() == 1.0 and near.min() > -0.5
    log_probs = jnp.tile(jnp.array([0.0, -50.0, -50.0, ILLEGAL]), (10_000, 1))
    chosen = Categorical(log_probs).noisy(jax.random.PRNGKey(0), jnp.zeros(10_000, jnp.int32), 0.3)
    # A share of 0.3 is drawn anew from the three that may occur.
    np.testing.assert_allclose(np.bincount(chosen, minlength=4) / 10_000, [0.8, 0.1, 0.1, 0.0], atol=0.012)


def test_predictions_of_unit_variance_have_half_the_squared_error():
    prediction, target = jnp.array([[1.0, -2.0]]), jnp.array([[3.0, -2.5]])
    np.testing.assert_allclose(GaussianVector(prediction, 1, False).loss(target), [2.125], rtol=1e-6)
    image = jnp.full((1, 2, 2, 1), 1.5)
    np.testing.assert_allclose(
        GaussianPixels(image).loss(jnp.full((1, 2, 2, 1), 255, jnp.uint8)), [0.5], rtol=1e-6
    )
    np.testing.assert_array_equal(GaussianPixels(image).mode(), 255)


def test_tempered_probabilities_are_powers() -> None:
    probs = Categorical(jnp.log(jnp.array([0.8, 0.2, 0.0]) + 1e-30))
    assert probs.tempered(1.0) is probs
    np.testing.assert_allclose(jnp.exp(probs.tempered(2.0).log_probs), [2 / 3, 1 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(jnp.exp(probs.tempered(0.5).log_probs), [16 / 17, 1 / 17, 0], atol=1e-6)
    np.testing.assert_array_equal(jnp.exp(probs.tempered(0).log_probs), [1, 0, 0])
    sure = Categorical(jnp.log(jnp.array([0.1, 0.2, 0.7]))).tempered(0)
    assert sure.quantile(jnp.array([0.0, 0.5, 0.999])[:, None, None].squeeze(-1)).ravel().tolist() == [2, 2, 2]
