"""Confidence intervals compared with SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from kerasline.components.data.accumulators.quantiles import Quantiles
from kerasline.components.evaluator.results import holm
from kerasline.components.metrics.estimates import Estimate, _student, wilson


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (5, 5), (1, 30), (812, 1000), (3, 100_000), (1, 1)])
def test_wilson_interval_agrees_with_scipy(successes, trials, confidence):
    theirs = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert wilson(successes, trials, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_without_trials_the_interval_is_nan():
    assert np.isnan(wilson(0, 0, 0.95)).all()


@pytest.mark.parametrize("freedom", [8, 12, 19, 60])
@pytest.mark.parametrize("probability", [0.75, 0.9, 0.975, 0.995])
def test_student_t_quantile_agrees_with_scipy(probability, freedom):
    assert _student(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-3)


def test_interval_ends_are_quantiles_of_the_replicates():
    """They are the 5th and the 195th of 199, which leave 5% on both sides together."""
    replicates = np.random.default_rng(0).permutation(199) + 1.0
    estimate = Estimate(100.0, replicates=replicates)
    assert estimate.method == "bootstrap"
    assert estimate.interval(0.95) == pytest.approx((5, 195))
    assert estimate.standard_error == pytest.approx(np.std(replicates, ddof=1))


def test_undefined_replicates_are_ignored():
    replicates = np.append(np.arange(1.0, 200.0), [np.nan] * 7)
    assert Estimate(100.0, replicates=replicates).interval(0.95) == pytest.approx((5, 195))
    assert Estimate(1.0, replicates=np.full(9, np.nan)).method is None


def test_ends_beyond_the_replicates_are_normal():
    """0.05% of 200 replicates is none of them: their spread tells it, not the outermost one."""
    replicates = np.random.default_rng(1).normal(3, 2, 200)
    low, high = Estimate(3.0, replicates=replicates).interval(0.999)
    reach = stats.norm.ppf(0.9995) * np.std(replicates, ddof=1)
    assert (low, high) == pytest.approx((3 - reach, 3 + reach))
    inside = [Estimate(3.0, replicates=replicates).interval(c) for c in (0.5, 0.8, 0.9, 0.95, 0.96, 0.99, 0.9999)]
    assert all(wide[0] <= narrow[0] and wide[1] >= narrow[1] for narrow, wide in zip(inside, inside[1:]))


def test_standard_error_gives_a_student_t_interval():
    low, high = Estimate(2.0, error=(0.5, 19)).interval(0.95)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 19, 2.0, 0.5), rel=1e-4)


def test_undefined_value_has_no_interval():
    estimate = Estimate(math.nan, share=(1, 2), replicates=np.arange(9.0))
    assert estimate.method is None and np.isnan(estimate.interval(0.95)).all()
    assert np.isnan(Estimate(1.0).interval(0.95)).all()


def test_holm_correction_follows_its_definition():
    p = [0.01, 0.04, 0.03, 0.005, 0.8]
    # Sorted 0.005*5, 0.01*4, 0.03*3, 0.04*2 -> not below 0.09, 0.8
    assert holm(p) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.8])
    assert holm([]) == []
    assert holm([0.9, 0.6]) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    ("rows", "q"), [(60, 0.25), (60, 0.5), (200, 0.05), (200, 0.95), (500, 0.05), (500, 0.5), (5000, 0.95)]
)
def test_order_statistics_cover_a_quantile_at_their_confidence(rows, q):
    """Follows from the binomial distribution: the interval of a permutation of 1..n has its ranks."""
    from kerasline.components.metrics.regression import ResidualState, _Ends

    state = ResidualState()
    state.numbers_a_row = 1
    state.quantiles = Quantiles()
    state.quantiles.add(np.arange(1.0, rows + 1))
    low, high = _Ends(state, q)(0.95)
    # The quantile lies above the k-th smallest value where at least k rows are below it.
    covered = stats.binom.cdf(high - 1, rows, q) - stats.binom.cdf(low - 1, rows, q)
    assert 0.94 <= covered <= 0.98
