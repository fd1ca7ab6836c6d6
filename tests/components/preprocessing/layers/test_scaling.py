"""Numbers on other scales, compared with scikit-learn; NaN stays NaN."""

import keras
import numpy as np
import pytest
from scipy import stats
from sklearn import preprocessing as theirs

from kerasline.components.preprocessing.layers import scaling
from tests.components.preprocessing.layers.round_trip import adapted, in_tf_data, round_trips

RANDOM = np.random.default_rng(7)
NUMBERS = RANDOM.normal([1, -50, 1e4], [2, 0.1, 300], (401, 3)).astype("float32")
HOLES = np.where(RANDOM.random(NUMBERS.shape) < 0.1, np.nan, NUMBERS)
OF_FEW_VALUES = RANDOM.integers(0, 5, (400, 1)).astype("float32")

LIKE_SKLEARN = [
    (lambda: scaling.MinMaxScaling(), theirs.MinMaxScaler()),
    (lambda: scaling.MinMaxScaling((-1, 2), clip=True), theirs.MinMaxScaler((-1, 2), clip=True)),
    (lambda: scaling.RobustScaling(), theirs.RobustScaler()),
    (lambda: scaling.RobustScaling((10, 95)), theirs.RobustScaler(quantile_range=(10, 95))),
    (lambda: scaling.QuantileTransform(50), theirs.QuantileTransformer(n_quantiles=50)),
    (
        lambda: scaling.QuantileTransform(50, "normal"),
        theirs.QuantileTransformer(n_quantiles=50, output_distribution="normal"),
    ),
]
LAYERS = [*(make for make, _ in LIKE_SKLEARN), scaling.SignedLog1p, scaling.QuantileClipping]


@pytest.mark.parametrize(("make", "other"), LIKE_SKLEARN)
@pytest.mark.parametrize("seen", [NUMBERS, HOLES, OF_FEW_VALUES], ids=["numbers", "holes", "few values"])
def test_scales_agree_with_scikit_learn(make, other, seen):
    layer = adapted(make(), seen)
    other.fit(seen.astype("float64"))
    beyond = np.concatenate([seen, seen[:20] * 3, seen[:20] - 1e6, np.full((1, seen.shape[1]), np.nan)])
    expected = other.transform(beyond.astype("float64"))
    np.testing.assert_allclose(layer(beyond), expected, rtol=1e-4, atol=3e-3 if "normal" in str(vars(other)) else 1e-4)


def test_logarithm_keeps_the_sign():
    values = np.array([0.0, 1, -1, 1e6, np.nan], "float32")
    np.testing.assert_allclose(scaling.SignedLog1p()(values), np.sign(values) * np.log1p(np.abs(values)), rtol=1e-6)


def test_clipping_limits_values_to_the_quantiles():
    layer = adapted(scaling.QuantileClipping(0.1, 0.8), HOLES)
    low, high = np.nanquantile(HOLES, [0.1, 0.8], axis=0)
    np.testing.assert_allclose(layer(HOLES), np.clip(HOLES, low, high), rtol=1e-6)
    assert layer(np.array([[np.inf, -np.inf, np.nan]])).numpy()[0, :2] == pytest.approx([high[0], low[1]])


def test_quantile_transform_gives_a_normal_distribution():
    uneven = RANDOM.exponential(size=(5000, 1)).astype("float32")
    assert stats.kstest(adapted(scaling.QuantileTransform(output="normal"), uneven)(uneven)[:, 0], "norm").pvalue > 0.1


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize(
    "values",
    [np.full((5, 2), 3.0), np.full((5, 2), np.nan), np.zeros((1, 2)), np.zeros((0, 2))],
    ids=["constant", "missing", "one row", "no rows"],
)
def test_constant_or_empty_columns_give_finite_numbers(make, values):
    layer = make()
    layer = adapted(layer, values.astype("float32")) if hasattr(layer, "new_state") else layer
    given = np.array([[3.0, -7.0], [np.nan, 0.0]], "float32")
    assert (np.isfinite(layer(given)) == np.isfinite(given)).all()


def test_single_value_agrees_with_scikit_learn():
    values, given = np.full((5, 1), 3.0, "float32"), np.array([[3.0], [4.0], [2.0]], "float32")
    for make, other in LIKE_SKLEARN:
        other.fit(values.astype("float64"))
        np.testing.assert_allclose(adapted(make(), values)(given), other.transform(given.astype("float64")), atol=2e-2)


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("shape", [(3,), ()], ids=str)
def test_saved_and_exported_models_agree(make, shape, tmp_path):
    values = HOLES if shape else HOLES[:, 0]
    layer = make()
    layer = adapted(layer, values) if hasattr(layer, "new_state") else layer
    raw = keras.Input(shape, name="x")
    model = keras.Model({"x": raw}, {"y": layer(raw)})
    round_trips(model, {"x": values.astype("float32")}, tmp_path)
    in_tf_data(model, {"x": values.astype("float32")})


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_global_dtype_policy_changes_nothing(make, policy):
    values = HOLES.astype("float32") * 1e4  # beyond what 16 bits have
    expected = adapted(make(), values)(values) if hasattr(make(), "new_state") else make()(values)
    keras.config.set_dtype_policy(policy)
    try:
        layer = make()
        layer = adapted(layer, values) if hasattr(layer, "new_state") else layer
        np.testing.assert_array_equal(layer(values), expected)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("make", LAYERS)
def test_float64_is_computed_on_request(make):
    layer = type(make()).from_config({**make().get_config(), "dtype": "float64"})
    values = HOLES.astype("float64")
    layer = adapted(layer, values) if hasattr(layer, "new_state") else layer
    found = layer(values).numpy()
    assert found.dtype == np.float64
    single = adapted(make(), HOLES) if hasattr(layer, "new_state") else make()
    np.testing.assert_allclose(found, single(HOLES), rtol=1e-3, atol=1e-3)


def test_infinite_numbers_do_not_change_the_ranks_of_finite_ones():
    above, below = np.array([1, 2, 3, 4, np.inf], "float32"), np.array([-np.inf, 1, 2, 3, 4], "float32")
    uniform = adapted(scaling.QuantileTransform(5), above)
    np.testing.assert_allclose(uniform(above), [0, 0.25, 0.5, 0.75, 1], atol=1e-6)
    np.testing.assert_allclose(uniform(np.array([2.5, 1e9], "float32")), [0.375, 0.75], atol=1e-6)
    uniform = adapted(scaling.QuantileTransform(5), below)
    np.testing.assert_allclose(uniform(below), [0, 0.25, 0.5, 0.75, 1], atol=1e-6)
    np.testing.assert_allclose(uniform(np.array([-1e9, 2.5], "float32")), [0.25, 0.625], atol=1e-6)
    robust = adapted(scaling.RobustScaling(), above)  # quartiles 2 and 4, median 3
    assert robust(above).numpy().tolist() == [-1, -0.5, 0, 0.5, np.inf]


def test_integers_become_floats():
    assert adapted(scaling.MinMaxScaling(), np.array([[0], [4]]))(np.array([[1]])).numpy().tolist() == [[0.25]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: scaling.MinMaxScaling((1, 0)),
            r"MinMaxScaling: invalid feature_range: expected two numbers.*, received \(1, 0\)",
        ),
        (lambda: scaling.MinMaxScaling(3), "MinMaxScaling: invalid feature_range: expected two numbers.*, received 3"),
        (lambda: scaling.MinMaxScaling(("a", "b")), "expected two numbers, the lower first"),
        (lambda: scaling.RobustScaling((75, 25)), "RobustScaling: invalid quantile_range: .* the lower first"),
        (lambda: scaling.QuantileClipping(0.9, 0.1), "QuantileClipping: invalid lower, upper: .* received"),
        (
            lambda: scaling.QuantileTransform(1),
            "QuantileTransform: invalid quantiles: expected an integer from 2.*, received 1",
        ),
        (
            lambda: scaling.QuantileTransform(output="flat"),
            "invalid output: expected 'uniform' or 'normal'.*, received 'flat'",
        ),
        (
            lambda: scaling.SignedLog1p()(keras.Input((1,), dtype="string")),
            "invalid inputs: expected numbers, received 'string'",
        ),
    ],
)
def test_invalid_arguments_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_weighted_ranks_are_shares_of_the_weight():
    random = np.random.default_rng(7)
    values, weights = random.normal(size=(900, 1)), random.exponential(size=900)
    layer = scaling.QuantileTransform(quantiles=12, sample_weight="w")
    layer.adapt(values, sample_weight=weights)
    expected = np.quantile(values[:, 0], np.linspace(0, 1, 12), weights=weights, method="inverted_cdf")
    np.testing.assert_allclose(layer.references[0], expected, rtol=1e-6)
    shares = [weights[values[:, 0] <= value].sum() / weights.sum() for value in (-1.0, 0.0, 1.0)]
    np.testing.assert_allclose(layer(np.array([[-1.0], [0.0], [1.0]]))[:, 0], shares, atol=0.02)
