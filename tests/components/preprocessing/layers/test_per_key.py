"""Numbers on the scale of their key, compared with pandas' groups."""

import keras
import numpy as np
import pandas as pd
import pytest

from kerasline.components.preprocessing.layers.per_key import BucketsPerKey, ScalingPerKey
from tests.components.preprocessing.layers.round_trip import adapted, in_tf_data, round_trips

RANDOM = np.random.default_rng(4)
KEYS = RANDOM.choice(np.array([b"a", b"b", "é".encode(), b"c", b""], object), 400)
VALUES = (RANDOM.normal(size=400) * 3 + np.array([len(key) * 10 for key in KEYS])).astype("float32")
VALUES[::17] = np.nan
VALUES[KEYS == b"c"] = 5.0


def expected(method, keys=KEYS, values=VALUES):
    frame = pd.DataFrame({"key": keys, "value": values.astype("float64")})
    groups = frame.groupby("key").value
    if method == "z_score":
        offset, scale = groups.transform("mean"), groups.transform(lambda x: x.std(ddof=0))
        whole = frame.value.mean(), frame.value.std(ddof=0)
    else:
        offset, scale = groups.transform("min"), groups.transform("max") - groups.transform("min")
        whole = frame.value.min(), frame.value.max() - frame.value.min()
    missing = frame.key.isin([b"", -1])
    offset, scale = offset.mask(missing, whole[0]), scale.mask(missing, whole[1])
    return ((frame.value - offset) / scale.mask(scale == 0, 1)).to_numpy()


@pytest.mark.parametrize("method", ["z_score", "min_max"])
@pytest.mark.parametrize("parts", [1, 5])
def test_each_key_has_its_own_scale(method, parts):
    layer = adapted(ScalingPerKey(method), VALUES, KEYS, parts=parts)
    np.testing.assert_allclose(layer([VALUES, KEYS]), expected(method), rtol=1e-4, atol=1e-5)


def test_integers_are_keys():
    codes = RANDOM.choice([3, -1, 7], 400)
    layer = adapted(ScalingPerKey(), VALUES[:, None], codes[:, None])
    np.testing.assert_allclose(
        layer([VALUES[:, None], codes[:, None]])[:, 0], expected("z_score", codes), rtol=1e-4, atol=1e-5
    )


def test_unseen_key_uses_the_statistics_of_all_rows():
    layer = adapted(ScalingPerKey("min_max"), VALUES, KEYS)
    low, high = np.nanmin(VALUES), np.nanmax(VALUES)
    found = layer([np.array([high, low], "float32"), np.array([b"new", b""], object)])
    np.testing.assert_allclose(found, [1, 0], atol=1e-6)


def test_most_frequent_keys_are_kept():
    layer = adapted(ScalingPerKey(max_keys=2), VALUES, KEYS)
    known = pd.Series([key.decode() for key in KEYS[~np.isnan(VALUES)] if key]).value_counts()
    assert list(layer.figures) == ["", *known.index[:2]]


@pytest.mark.parametrize("method", ["z_score", "min_max"])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_without_data_numbers_are_unchanged(method, rows):
    layer = adapted(ScalingPerKey(method), np.full(rows, np.nan, "float32"), np.array([b"\xff"] * rows, object))
    assert layer([np.array([4.0], "float32"), np.array([b"a"], object)]).numpy().tolist() == [4]


def test_saved_and_exported_models_agree(tmp_path):
    layer = adapted(ScalingPerKey(), VALUES[:, None], KEYS[:, None])
    value, key = keras.Input((1,), name="value"), keras.Input((1,), name="key", dtype="string")
    model = keras.Model({"value": value, "key": key}, {"y": layer([value, key])})
    round_trips(model, {"value": VALUES[:, None], "key": KEYS[:, None]}, tmp_path)
    in_tf_data(model, {"value": VALUES[:, None], "key": KEYS[:, None].astype(bytes)})


def test_key_with_constant_numbers_is_only_centered():
    values, keys = np.array([0.1] * 7 + [0.3] * 3), np.array([b"a"] * 7 + [b"b"] * 3, object)
    layer = adapted(ScalingPerKey(), values, keys, parts=2)  # in float64, seven times 0.1 is not 0.7
    found = layer([np.array([0.1, 0.2], "float32"), np.array([b"a", b"a"], object)])
    np.testing.assert_allclose(found, [0, 0.1], atol=1e-6)


@pytest.mark.parametrize("codes", [np.array([1, 1, 255], "uint8"), np.array([True, True, False])])
def test_unsigned_numbers_and_booleans_are_keys(codes):
    values = np.array([0, 2, 5], "float32")
    assert adapted(ScalingPerKey(), values, codes)([values, codes]).numpy().tolist() == [-1, 1, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScalingPerKey("mean"), "invalid method: expected 'z_score' or 'min_max'.*, received 'mean'"),
        (lambda: ScalingPerKey(max_keys=0), "invalid max_keys: .* received 0"),
        (
            lambda: ScalingPerKey()([keras.Input((1,)), keras.Input((1,))]),
            "invalid inputs: .* received \\['float32', 'float32'\\]",
        ),
        (
            lambda: ScalingPerKey()([keras.Input((1,)), keras.Input((), dtype="string")]),
            r"expected tensors of the same shape, or .*, received \[\(None, 1\), \(None,\)\]",
        ),
        (lambda: ScalingPerKey()([np.zeros(1), np.array(["a"])]), "has no figures yet; adapt it"),
    ],
)
def test_invalid_arguments_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("parts", [1, 4])
def test_buckets_hold_equal_shares_of_each_key(parts):
    layer = adapted(BucketsPerKey(4), VALUES, KEYS, parts=parts)
    found = layer([VALUES, KEYS]).numpy()
    for key in (b"a", b"b", "é".encode(), b"c", b""):
        mine = (KEYS == key) & ~np.isnan(VALUES)
        rows = mine if key else ~np.isnan(VALUES)  # a missing key takes the boundaries of all
        bounds = np.quantile(VALUES[rows].astype("float64"), [0.25, 0.5, 0.75])
        np.testing.assert_array_equal(found[mine], np.searchsorted(bounds, VALUES[mine], side="right") + 1)
        if key not in (b"c", b""):
            assert np.ptp(np.bincount(found[mine])[1:]) <= 2
    assert (found[np.isnan(VALUES)] == 0).all()


def test_scaling_then_buckets_would_not_be_buckets_of_each_key():
    """Keys whose distributions have other forms: the share of each bucket is equal only with boundaries of its own."""
    values = np.concatenate([np.arange(100.0), np.arange(100.0) ** 4])
    keys = np.repeat(np.array([b"even", b"skewed"], object), 100)
    found = adapted(BucketsPerKey(4), values, keys)([values, keys]).numpy()
    assert np.bincount(found[:100])[1:].tolist() == np.bincount(found[100:])[1:].tolist() == [25] * 4


def test_buckets_of_integers_unseen_keys_and_few_keys(tmp_path):
    values, keys = np.array([[1], [2], [3], [4], [-1]]), np.array([["a"], ["a"], ["b"], ["b"], ["b"]], object)
    layer = adapted(BucketsPerKey(2, max_keys=1), values, keys, parts=2)
    assert list(layer.boundaries) == ["", "b"]
    assert layer([values, keys]).numpy().ravel().tolist() == [1, 1, 1, 2, 0]
    value, key = keras.Input((1,), name="value", dtype="int64"), keras.Input((1,), name="key", dtype="string")
    model = keras.Model({"value": value, "key": key}, {"y": layer([value, key])})
    round_trips(model, {"value": values, "key": keys}, tmp_path)
    with pytest.raises(ValueError, match="boundaries: expected a dict with the key '' and lists of 1 numbers"):
        BucketsPerKey(2, boundaries={"": [1.0, 2.0]})


@pytest.mark.parametrize("method", ["z_score", "min_max"])
def test_numbers_of_a_vector_share_the_figures_of_its_key(method):
    vectors, keys = VALUES.reshape(100, 4), KEYS[:100, None]
    found = adapted(ScalingPerKey(method), vectors, keys)([vectors, keys])
    flat = expected(method, np.repeat(KEYS[:100], 4), vectors.ravel())
    np.testing.assert_allclose(found, flat.reshape(100, 4), rtol=1e-4, atol=1e-5)


def test_weights_scale_and_bucket_each_key():
    random = np.random.default_rng(6)
    values, weights = random.normal(size=600), random.integers(0, 4, 600).astype(float)
    keys = np.where(np.arange(600) % 3 == 0, "a", "b").astype(object)
    scaling, buckets = ScalingPerKey(sample_weight="w"), BucketsPerKey(4, sample_weight="w")
    scaling.adapt(values, keys, sample_weight=weights)
    buckets.adapt(values, keys, sample_weight=weights)
    for key in ("a", "b", ""):
        mine = keys == key if key else np.full(600, True)
        repeated = np.repeat(values[mine], weights[mine].astype(int))  # a weight of 3 is three rows
        np.testing.assert_allclose(scaling.figures[key], [repeated.mean(), repeated.std()], rtol=1e-9)
        expected = np.quantile(repeated, [0.25, 0.5, 0.75], method="inverted_cdf")
        np.testing.assert_array_equal(buckets.boundaries[key], expected)


def test_minus_one_is_a_key_and_a_number_where_nothing_is_missing():
    values, keys = np.array([-1, 1, 2, 3]), np.array([-1, -1, 5, 5])
    scaling = ScalingPerKey("min_max", may_be_missing=False)
    scaling.adapt(values, keys)
    assert scaling.figures["-1"] == [-1.0, 2.0]
    buckets = BucketsPerKey(2, may_be_missing=False)
    buckets.adapt(values, keys)
    assert buckets([values, keys]).numpy().tolist() == [1, 2, 1, 2]


def test_near_timestamps_as_floats_are_in_different_buckets_of_a_key():
    layer = BucketsPerKey(2, boundaries={"": [1e9 + 1]})
    assert layer([np.array([1e9, 1e9 + 1]), np.array(["a", "a"])]).numpy().tolist() == [1, 2]
