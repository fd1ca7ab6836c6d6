"""Distances of features compared with SciPy's matrix square root and scikit-learn's kernel."""

import functools

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import polynomial_kernel

from kerasline.components.core.errors import DataError
from kerasline.components.metrics import distances
from kerasline.components.metrics.base import Rows
from kerasline.components.metrics.distances import FeatureDistances


def features(rows=300, width=6, seed=0):
    """Return correlated real features, and generated ones of another mean and covariance."""
    random = np.random.default_rng(seed)
    real = random.normal(size=(rows, width)) @ random.normal(size=(width, width))
    generated = random.normal(0.3, 1.5, (rows, width)) @ random.normal(size=(width, width))
    return real.astype(np.float32), generated.astype(np.float32)


def rows_of(real, generated, weight=None, first=0):
    return Rows(real, generated, weight, np.arange(first, first + len(real)))


def state_of(parts):
    state = FeatureDistances().new_state()
    for part in parts:
        state.add(part)
    return state


def estimated(*parts):
    return FeatureDistances().estimates(state_of(parts), seed=0)


def frechet(real, generated):
    s, t = (np.atleast_2d(np.cov(side, rowvar=False)) for side in (real, generated))
    apart = real.mean(0) - generated.mean(0)
    return apart @ apart + np.trace(s + t - 2 * scipy.linalg.sqrtm(s @ t).real)


def kernel(real, generated):
    m = len(real)
    xx, yy, xy = (polynomial_kernel(*pair) for pair in ((real, real), (generated, generated), (real, generated)))
    return (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (m * (m - 1)) - 2 * xy.mean()


@pytest.mark.parametrize("width", [1, 6, 40])
def test_distances_equal_those_of_other_libraries(width):
    real, generated = (side.astype(np.float64) for side in features(width=width))
    found = estimated(rows_of(real, generated))
    assert found["frechet_distance"].value == pytest.approx(frechet(real, generated).item(), rel=1e-8)
    assert found["kernel_distance"].value == pytest.approx(kernel(real, generated), rel=1e-9)


def test_equal_features_have_no_distance():
    real, _ = features()
    found = estimated(rows_of(real, real))
    assert found["frechet_distance"].value == pytest.approx(0, abs=1e-5)
    assert found["kernel_distance"].value <= 0  # unbiased: the pairs of equal rows count only across


def test_fewer_rows_than_features_have_a_distance():
    real, generated = features(rows=10, width=30)
    found = estimated(rows_of(real, generated))
    assert found["frechet_distance"].value == pytest.approx(frechet(real, generated).item(), rel=1e-4)


@settings(max_examples=25)
@given(
    cuts=st.lists(st.integers(1, 99), max_size=5),
    order=st.randoms(use_true_random=False),
    weighted=st.booleans(),
    most=st.sampled_from([20, 1000]),
)
def test_states_merge_in_any_order(cuts, order, weighted, most):
    real, generated = features(rows=100)
    weight = np.random.default_rng(1).uniform(0.5, 2, 100) if weighted else None
    whole = rows_of(real, generated, weight)
    parts = [whole.take(part) for part in np.split(np.arange(100), sorted(cuts)) if len(part)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "MOST_COMPARED", most)
        expected = estimated(whole)
        order.shuffle(parts)
        states = [state_of([part]) for part in parts]

        def merged(a, b):
            a.merge(b)
            return a

        found = FeatureDistances().estimates(functools.reduce(merged, states), seed=0)
    for name, one in expected.items():
        assert (found[name].value, *found[name].error) == pytest.approx((one.value, *one.error), rel=1e-6)


def test_weights_count_as_numbers_of_rows():
    real, generated = features(rows=40)
    times = np.arange(40) % 3
    found = estimated(rows_of(real, generated, times.astype(float)))
    repeated = [np.repeat(side, times, axis=0).astype(np.float64) for side in (real, generated)]
    assert found["frechet_distance"].value == pytest.approx(frechet(*repeated).item(), rel=1e-5)


def test_sampled_rows_do_not_depend_on_the_others(monkeypatch):
    monkeypatch.setattr(distances, "MOST_COMPARED", 50)
    real, generated = features()
    state = state_of([rows_of(real, generated)])
    kept = state._number.astype(int)
    assert len(set(kept)) == 50
    expected = kernel(real[kept].astype(float), generated[kept].astype(float))
    assert FeatureDistances().estimates(state, 0)["kernel_distance"].value == pytest.approx(expected, rel=1e-9)


def test_intervals_cover_the_mean_of_repeated_samples():
    random = np.random.default_rng(0)
    draws = [(random.normal(size=(100, 3)), random.normal(0.5, 1, (100, 3))) for _ in range(30)]
    covered = {"frechet_distance": 0, "kernel_distance": 0}
    means = {name: np.mean([estimated(rows_of(*draw))[name].value for draw in draws]) for name in covered}
    for draw in draws:
        for name, one in estimated(rows_of(*draw)).items():
            low, high = one.interval(0.95)
            covered[name] += low <= means[name] <= high
    assert min(covered.values()) >= 25


def test_many_features_have_no_interval_of_the_frechet_distance(monkeypatch):
    monkeypatch.setattr(distances, "MOST_FEATURES_WITH_INTERVAL", 5)
    found = estimated(rows_of(*features()))
    assert found["frechet_distance"].method is None and found["kernel_distance"].method == "jackknife"


@pytest.mark.parametrize("wrong", [np.zeros(3), np.array([[1.0, np.nan]] * 3)])
def test_features_that_are_no_vectors_of_numbers_are_refused(wrong):
    with pytest.raises(DataError, match="features: "):
        estimated(rows_of(wrong, wrong))


def test_no_rows_have_no_distance():
    assert all(np.isnan(one.value) for one in estimated(rows_of(np.zeros((0, 2)), np.zeros((0, 2)))).values())
    assert all(np.isnan(one.value) for one in estimated(rows_of(np.ones((1, 2)), np.zeros((1, 2)))).values())
