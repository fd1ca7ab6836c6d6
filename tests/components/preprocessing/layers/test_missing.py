"""Missing values, filled as scikit-learn does; each kind of value has one that says "missing"."""

import keras
import numpy as np
import pytest
from sklearn.impute import SimpleImputer

from kerasline.components.preprocessing.layers.missing import Imputation, MissingIndicator
from tests.components.preprocessing.layers.round_trip import adapted, in_tf_data, round_trips

RANDOM = np.random.default_rng(3)
NUMBERS = RANDOM.integers(0, 6, (301, 3)).astype("float32") + [0, 10, -20]
HOLES = np.where(RANDOM.random(NUMBERS.shape) < 0.2, np.nan, NUMBERS).astype("float32")
WORDS = np.array([[b"b"], [b"a"], [b""], [b"a"], [b"b"], [b""], [b""], [b""]], object)
CODES = np.array([[7], [-1], [5], [5], [-1], [-1]])


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent", "constant"])
@pytest.mark.parametrize("parts", [1, 4])
def test_filled_numbers_agree_with_scikit_learn(strategy, parts):
    layer = Imputation(strategy)
    layer = adapted(layer, HOLES, parts=parts) if strategy != "constant" else layer
    expected = SimpleImputer(strategy=strategy, fill_value=0).fit(HOLES.astype("float64")).transform(HOLES)
    np.testing.assert_allclose(layer(HOLES), expected, rtol=1e-6)


def test_median_of_an_even_count_is_the_mean_of_the_middle_values():
    layer = adapted(Imputation("median"), np.array([1.0, 2.0, 5.0, 100.0, np.nan], "float32"))
    assert layer(np.array([np.nan], "float32")).numpy().tolist() == [3.5]


def test_median_next_to_infinite_numbers_is_finite():
    layer = adapted(Imputation("median"), np.array([1.0, 2.0, np.inf, np.nan], "float32"))
    assert layer(np.array([np.nan], "float32")).numpy().tolist() == [2]


@pytest.mark.parametrize(("values", "filled"), [(WORDS, [b"a"]), (CODES, [5])])
def test_strings_and_integers_get_the_smallest_most_frequent_value(values, filled):
    assert adapted(Imputation("most_frequent"), values)(values[-1:]).numpy().tolist() == [filled]


def test_constant_needs_no_data():
    assert Imputation("constant", fill_value=2.5).new_state() is None
    assert Imputation("constant", fill_value="none")(WORDS[-1:]).numpy().tolist() == [[b"none"]]
    assert Imputation("constant")(CODES).numpy().tolist() == [[7], [0], [5], [5], [0], [0]]
    assert Imputation("constant", fill_value=2.0)(CODES[:2]).numpy().tolist() == [[7], [2]]


def test_booleans_and_unsigned_numbers_are_never_missing():
    for values in (np.array([True, False]), np.array([3, 255], "uint8")):
        filled, indicator = Imputation("constant", indicator=True)(values)
        assert filled.numpy().tolist() == values.tolist() and indicator.numpy().tolist() == [0, 0]


def test_half_precision_policy_keeps_numbers_finite():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        assert Imputation("constant")(np.array([1e6, np.nan], "float32")).numpy().tolist() == [1e6, 0]
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(("values", "missing"), [(HOLES, np.isnan(HOLES)), (WORDS, WORDS == b""), (CODES, CODES == -1)])
def test_indicator_marks_missing_values(values, missing):
    np.testing.assert_array_equal(MissingIndicator()(values), missing.astype("float32"))
    _, indicator = Imputation("constant", indicator=True)(values)
    np.testing.assert_array_equal(indicator, missing.astype("float32"))


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent"])
def test_without_data_missing_values_become_zero(strategy):
    for rows in (0, 1, 5):
        nothing = np.full((rows, 2), np.nan, "float32")
        assert adapted(Imputation(strategy), nothing)(nothing).numpy().tolist() == [[0, 0]] * rows
    if strategy == "most_frequent":
        assert adapted(Imputation(strategy), WORDS[-1:])(WORDS[-1:]).numpy().tolist() == [[b""]]


@pytest.mark.parametrize("indicator", [False, True])
@pytest.mark.parametrize(
    ("values", "strategy"),
    [
        (HOLES, "mean"),
        (HOLES, "median"),
        (HOLES, "most_frequent"),
        (WORDS, "most_frequent"),
        (CODES, "most_frequent"),
        (HOLES[:, 0], "mean"),
    ],
)
def test_saved_and_exported_models_agree(values, strategy, indicator, tmp_path):
    layer = adapted(Imputation(strategy, indicator=indicator), values)
    dtype = "string" if values.dtype == object else str(values.dtype)
    raw = keras.Input(values.shape[1:], name="x", dtype=dtype)
    outputs = layer(raw)
    outputs = {"filled": outputs[0], "missing": outputs[1]} if indicator else {"filled": outputs}
    round_trips(keras.Model({"x": raw}, outputs), {"x": values}, tmp_path)
    in_tf_data(keras.Model({"x": raw}, outputs), {"x": values})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Imputation("mode"), "Imputation: invalid strategy: expected 'mean' or 'median'.*, received 'mode'"),
        (
            lambda: Imputation("mean")(keras.Input((1,), dtype="string")),
            "invalid strategy for string inputs: .* received 'mean'",
        ),
        (
            lambda: Imputation("constant", "x")(keras.Input((1,))),
            "invalid fill_value for float32 inputs: .* received 'x'",
        ),
        (
            lambda: Imputation("constant", 2.5)(keras.Input((1,), dtype="int64")),
            "for int64 inputs: expected an integer, received 2.5",
        ),
        (lambda: Imputation("mean")(np.array(["a"])), "invalid strategy for string inputs: .* received 'mean'"),
    ],
)
def test_invalid_arguments_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_minus_one_is_kept_where_nothing_is_missing():
    ratings = np.array([[-1], [-1], [5]])
    layer = adapted(Imputation("most_frequent", may_be_missing=False, indicator=True), ratings)
    assert layer.fill_value == -1
    filled, missing = layer(ratings)
    assert filled.numpy().tolist() == ratings.tolist() and not missing.numpy().any()
    assert not MissingIndicator(may_be_missing=False)(ratings).numpy().any()
