"""Any partition of the rows, merged in any order, equals one pass. One pass equals NumPy."""

import functools
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kerasline.components.data.accumulators.moments import Covariance, Extremes, FeatureMoments, Moments
from kerasline.components.data.accumulators.most_frequent import MostFrequent
from kerasline.components.data.accumulators.quantiles import FeatureQuantiles
from kerasline.components.preprocessing.layers.per_key import KeyFigures

NUMBERS = st.floats(-1e5, 1e5, width=32) | st.sampled_from([float("nan"), float("inf"), -float("inf")])
TABLES = arrays("float32", st.tuples(st.integers(1, 40), st.just(2)), elements=NUMBERS)


def merged(make, data, *arrays):
    size = len(arrays[0])
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=4)))
    pieces = data.draw(st.permutations(list(zip(*(np.split(one, cuts) for one in arrays)))))
    whole = make()
    for piece in pieces:
        one = make()
        one.add(*piece)
        whole.merge(pickle.loads(pickle.dumps(one)))
    return whole


def finite(column):
    return column[np.isfinite(column)].astype("float64")


@given(st.data(), TABLES)
def test_moments_and_extremes_match_numpy(data, table):
    moments, extremes = merged(lambda: FeatureMoments(2), data, table), merged(lambda: Extremes(2), data, table)
    for place in range(2):
        known = finite(table[:, place])
        assert moments.count[place] == len(known)
        if len(known):
            np.testing.assert_allclose(moments.mean[place], known.mean(), rtol=1e-9, atol=1e-7)
            np.testing.assert_allclose(moments.variance[place], known.var(), rtol=1e-6, atol=1e-4)
            assert (extremes.minimum[place], extremes.maximum[place]) == (known.min(), known.max())


@given(st.data(), TABLES)
def test_covariance_matches_numpy(data, table):
    state = merged(lambda: Covariance(2), data, table)
    known = table[np.isfinite(table).all(axis=1)].astype("float64")
    assert state.count == len(known)
    if len(known) > 1:
        np.testing.assert_allclose(state.covariance, np.cov(known.T), rtol=1e-6, atol=1e-3)


@given(st.data(), TABLES, st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_quantiles_match_numpy(data, table, shares):
    state = merged(lambda: FeatureQuantiles(2), data, table)
    for ours, column in zip(state.at(shares), table.T):
        known = column[~np.isnan(column)].astype("float64")
        known = np.clip(known, -1e30, 1e30)  # NumPy gives NaN between infinities
        ours = np.clip(ours, -1e30, 1e30)
        expected = np.quantile(known, shares) if len(known) else np.full(len(shares), np.nan)
        near = np.abs(known).max(initial=0) < 1e29
        if near or not len(known):
            np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 2, np.inf], [1, 2, np.inf]), ([-np.inf, 1, 2], [-np.inf, 1, 2]), ([1, np.inf], [1, np.inf, np.inf])],
)
def test_quantiles_next_to_infinite_numbers(values, expected):
    state = FeatureQuantiles()
    state.add(np.array(values))
    assert state.at([0, 0.5, 1])[0].tolist() == expected


@given(
    st.data(), arrays("float32", st.tuples(st.integers(1, 30), st.just(2)), elements=st.sampled_from([1, 2, 3, np.nan]))
)
def test_most_frequent_matches_counts(data, table):
    state = merged(lambda: MostFrequent(2), data, table)
    for value, column in zip(state.values(), table.T):
        known = finite(column)
        counts = {one: int((known == one).sum()) for one in sorted(set(known))}
        assert value == (max(counts, key=counts.get) if counts else None)


@given(st.data(), arrays("float32", st.integers(1, 40), elements=NUMBERS))
def test_statistics_of_keys_match_numpy(data, values):
    keys = np.array(
        data.draw(st.lists(st.sampled_from([b"a", b"b", b"", b"\xff"]), min_size=len(values), max_size=len(values))),
        object,
    )
    readable = merged(functools.partial(KeyFigures, True), data, values, keys).readable()
    for key in ("a", "b"):
        known = finite(values[keys == key.encode()])
        if len(known):
            assert readable[key]["count"] == len(known) and readable[key]["maximum"] == known.max()
            np.testing.assert_allclose(readable[key]["mean"], known.mean(), rtol=1e-9, atol=1e-7)
    assert set(readable) <= {"a", "b"}


@pytest.mark.parametrize("features", [1, 64, 5000])
def test_quantiles_of_many_features_are_bounded_in_memory(features):
    state = FeatureQuantiles(features)
    state.add(np.zeros((3, features)))
    assert state._features[0]._capacity * features <= 64 << 16 or state._features[0]._capacity == 1024


@pytest.mark.parametrize("values", [[1e308] * 3, [1.7e308, -1.7e308], [-1.7e308, 1.7e308, 1.7e308], [1e308, 2.0]])
def test_means_near_the_largest_float_are_finite(values):
    exact = float(sum(map(Fraction, values)) / len(values))
    whole, merged = Moments(), Moments()
    whole.add(np.array(values))
    for value in values:
        one = Moments()
        one.add(np.array([value]))
        merged.merge(one)
    assert whole.mean == pytest.approx(exact, rel=1e-15, abs=1e292)
    assert merged.mean == pytest.approx(exact, rel=1e-15, abs=1e292)
    assert whole.std >= 0 and merged.std >= 0
