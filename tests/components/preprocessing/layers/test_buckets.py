"""Buckets by rank: as scikit-learn's KBinsDiscretizer, except for the id of missing values."""

import keras
import numpy as np
import pytest
from sklearn.preprocessing import KBinsDiscretizer

from kerasline.components.preprocessing.layers.buckets import BucketIds
from tests.components.preprocessing.layers.round_trip import adapted, in_tf_data, round_trips

NUMBERS = np.random.default_rng(5).normal(size=(1001, 1)).astype("float32")


@pytest.mark.parametrize("bins", [2, 10, 64])
def test_buckets_agree_with_scikit_learn(bins):
    other = KBinsDiscretizer(bins, encode="ordinal", strategy="quantile", quantile_method="linear")
    expected = other.fit(NUMBERS.astype("float64")).transform(NUMBERS) + 1
    assert (
        adapted(BucketIds(bins), NUMBERS)(NUMBERS).numpy() != expected
    ).mean() <= bins / 1001  # boundaries themselves


def test_missing_infinite_and_boundary_values():
    layer = BucketIds(boundaries=[0.0, 1.0])
    assert layer.new_state() is None
    given = np.array([np.nan, -np.inf, -1, 0, 0.5, 1, np.inf], "float32")
    assert layer(given).numpy().tolist() == [0, 1, 1, 2, 2, 3, 3]


def test_minus_one_marks_a_missing_integer():
    codes = np.array([-1] * 50 + list(range(100)))
    layer = adapted(BucketIds(2), codes)  # of 0 to 99, the median is 49.5
    assert layer(np.array([-1, 0, 49, 50, 99])).numpy().tolist() == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("values", [np.full(5, 3.0), np.full(5, np.nan), np.zeros(1), np.zeros(0)])
def test_constant_or_empty_columns_are_accepted(values):
    ids = adapted(BucketIds(4), values.astype("float32"))(np.array([3.0, np.nan], "float32")).numpy()
    assert ids.tolist() == [4, 0]


@pytest.mark.parametrize("layer", [BucketIds(4), BucketIds(boundaries=[0.0, 1.0])], ids=["bins", "boundaries"])
def test_saved_and_exported_models_agree(layer, tmp_path):
    if layer.boundaries is None:
        adapted(layer, NUMBERS)
    raw = keras.Input((1,), name="x")
    round_trips(keras.Model({"x": raw}, {"y": layer(raw)}), {"x": NUMBERS}, tmp_path)
    in_tf_data(keras.Model({"x": raw}, {"y": layer(raw)}), {"x": NUMBERS})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "invalid bins: .* received None"),
        ({"bins": 1}, "an integer from 2, received 1"),
        ({"boundaries": [2, 1]}, "ascending numbers"),
        ({"boundaries": [float("nan")]}, "ascending numbers"),
        ({"boundaries": 3}, "ascending numbers"),
        ({"boundaries": ["a", "b"]}, "ascending numbers"),
    ],
)
def test_invalid_arguments_raise(options, message):
    with pytest.raises(ValueError, match=f"BucketIds: .*{message}"):
        BucketIds(**options)


@pytest.mark.parametrize("unit", [1, 1000, 1_000_000])
def test_timestamps_keep_their_order(unit):
    times = (1_700_000_000 + np.arange(1000)) * unit
    layer = adapted(BucketIds(10), times.reshape(-1, 1))
    np.testing.assert_array_equal(np.bincount(layer(times).numpy(), minlength=11)[1:], 100)


def test_weighted_boundaries_are_those_of_numpy():
    random = np.random.default_rng(4)
    values, weights = random.normal(size=3000), random.exponential(size=3000)
    layer = BucketIds(5, sample_weight="w")
    layer.adapt(values, sample_weight=weights)
    expected = np.quantile(values, [0.2, 0.4, 0.6, 0.8], weights=weights, method="inverted_cdf")
    found = np.searchsorted(expected, values, side="right") + 1
    np.testing.assert_array_equal(layer(values), found)
    shares = np.bincount(found, weights)[1:] / weights.sum()
    np.testing.assert_allclose(shares, 0.2, atol=2e-3)


def test_minus_one_is_a_number_where_nothing_is_missing():
    codes = np.array([-1] * 50 + list(range(100)))
    layer = adapted(BucketIds(3, may_be_missing=False), codes)
    assert layer(np.array([-1, 0, 49, 99])).numpy().tolist() == [1, 2, 2, 3]


def test_weights_are_checked():
    layer = BucketIds(2, sample_weight="w")
    with pytest.raises(ValueError, match="invalid sample_weight: expected an array"):
        layer.adapt([1.0, 2.0])
    with pytest.raises(ValueError, match="invalid sample_weight: expected None"):
        BucketIds(2).adapt([1.0, 2.0], sample_weight=[1, 2])


def test_near_timestamps_as_floats_are_in_different_buckets():
    seconds = np.array([[1e9], [1e9 + 1], [1e9 + 2]])
    layer = BucketIds(boundaries=[1e9 + 1, 1e9 + 2])
    raw = keras.Input((1,), name="x", dtype="float64")
    model = keras.Model({"x": raw}, {"y": layer(raw)})
    assert layer(seconds).numpy().tolist() == model({"x": seconds})["y"].numpy().tolist() == [[1], [2], [3]]
