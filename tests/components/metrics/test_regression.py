"""Regression metrics compared with scikit-learn and NumPy, on the predictions of a real model."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as theirs
from sklearn.datasets import load_diabetes, load_linnerud
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict

from kerasline.components.core.errors import DataError
from kerasline.components.metrics.measuring import _Units
from kerasline.components.metrics.regression import RESIDUAL_QUANTILES, RegressionErrors, ResidualQuantiles
from tests.components.metrics.of_rows import rows, values

RANDOM = np.random.default_rng(2)


def _real(load):
    features, label = load(return_X_y=True)
    return label, cross_val_predict(Ridge(), features, label)


LABEL, PREDICTION = _real(load_diabetes)
LABELS, PREDICTIONS = _real(load_linnerud)  # three numbers a row
WEIGHT = RANDOM.gamma(1.0, size=1000)


def correlation(label, prediction, weight):
    covariance = np.cov(label, prediction, aweights=weight)
    return covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", ["one number", "a column", "several numbers"])
def test_errors_agree_with_scikit_learn(shape, weighted):
    label, prediction = (LABELS, PREDICTIONS) if shape == "several numbers" else (LABEL, PREDICTION)
    weight = WEIGHT[: len(label)] if weighted else None
    expected = {
        "root_mean_squared_error": theirs.root_mean_squared_error(label, prediction, sample_weight=weight),
        "mean_squared_error": theirs.mean_squared_error(label, prediction, sample_weight=weight),
        "mean_absolute_error": theirs.mean_absolute_error(label, prediction, sample_weight=weight),
        "mean_absolute_percentage_error": theirs.mean_absolute_percentage_error(
            label, prediction, sample_weight=weight
        ),
        "mean_error": np.average(prediction - label, axis=0, weights=weight).mean(),
        **{
            f"quantile_loss_{q}": theirs.mean_pinball_loss(label, prediction, sample_weight=weight, alpha=q)
            for q in (0.1, 0.5, 0.75)
        },
        "r2": theirs.r2_score(label, prediction, sample_weight=weight),
        "mean_squared_logarithmic_error": theirs.mean_squared_log_error(
            np.maximum(label, 0), np.maximum(prediction, 0), sample_weight=weight
        ),
        "mean_prediction": np.average(prediction, axis=0, weights=weight).mean(),
        "mean_label": np.average(label, axis=0, weights=weight).mean(),
        "calibration_ratio": np.mean(
            np.average(prediction, axis=0, weights=weight) / np.average(label, axis=0, weights=weight)
        ),
        "pearson_correlation": np.mean(
            [correlation(*pair, weight) for pair in zip(np.atleast_2d(label.T), np.atleast_2d(prediction.T))]
        ),
    }
    if shape == "a column":
        prediction = prediction[:, np.newaxis]
    for middle in (0.0, 150.0):
        found = values(RegressionErrors(middle, (0.1, 0.5, 0.75)), label, prediction, weight)
        assert found == pytest.approx(expected, rel=1e-9)


def test_r2_is_accurate_far_from_zero():
    label, prediction = LABEL + 1e8, PREDICTION + 1e8
    found = values(RegressionErrors(label.mean()), label, prediction)["r2"]
    assert found == pytest.approx(theirs.r2_score(label, prediction), rel=1e-6)


def test_numbers_of_very_different_magnitude_are_accurate():
    label, prediction = LABELS + [0, 1e7, 1e9], PREDICTIONS + [0, 1e7, 1e9]
    found = values(RegressionErrors(label.mean(axis=0)), label, prediction)["r2"]
    assert found == pytest.approx(theirs.r2_score(label, prediction), rel=1e-6)


@pytest.mark.parametrize("weight", [None, WEIGHT[: len(LABEL)]])
def test_replicates_of_r2_are_accurate_far_from_the_center(weight):
    """Such as in a slice whose labels are far from those of all rows and close to each other."""
    label, prediction = 1000 + LABEL / 1e3, 1000 + PREDICTION / 1e3
    family = RegressionErrors(0.0)
    counts = RANDOM.poisson(1.0, (len(label), 8))
    sums = _Units(family.sums(rows(label, prediction)), weight, counts.astype(np.float32)).resampled()
    expected = [
        theirs.r2_score(label, prediction, sample_weight=one * (1 if weight is None else weight)) for one in counts.T
    ]
    np.testing.assert_allclose(family.values(sums)["r2"], expected, rtol=1e-2)


def test_constant_labels_have_no_r2():
    found = values(RegressionErrors(3.0), np.full(9, 3.1), PREDICTION[:9])
    assert np.isnan(found["r2"]) and found["mean_error"] == pytest.approx(np.mean(PREDICTION[:9] - 3.1))


def test_zero_label_is_treated_as_in_scikit_learn():
    label, prediction = [0.0, 2.0], [1.0, 1.0]
    found = values(RegressionErrors(), label, prediction)["mean_absolute_percentage_error"]
    assert found == pytest.approx(theirs.mean_absolute_percentage_error(label, prediction))


def test_residual_quantiles_agree_with_numpy():
    family = ResidualQuantiles()
    one, other = family.new_state(), family.new_state()
    one.add(rows(LABEL[:100], PREDICTION[:100]))
    other.add(rows(LABEL[100:], PREDICTION[100:, np.newaxis]))
    one.merge(other)
    estimates = family.estimates(one, 0)
    expected = np.quantile(PREDICTION - LABEL, RESIDUAL_QUANTILES, method="inverted_cdf")
    assert [estimate.value for estimate in estimates.values()] == pytest.approx(list(expected))
    assert list(estimates) == list(family.directions) == [f"residual_q{q}" for q in ("05", "25", "50", "75", "95")]
    for estimate in estimates.values():
        low, high = estimate.interval(0.95)
        assert low < estimate.value < high


def test_several_numbers_per_row_count_as_one_unit_in_intervals():
    """Three copies of a residual in a row do not add information."""
    family = ResidualQuantiles()
    single, triple = family.new_state(), family.new_state()
    single.add(rows(LABEL, PREDICTION))
    triple.add(rows(np.tile(LABEL[:, None], 3), np.tile(PREDICTION[:, None], 3)))
    for name, estimate in family.estimates(triple, 0).items():
        assert estimate.interval(0.9) == pytest.approx(family.estimates(single, 0)[name].interval(0.9))


def test_wrong_shapes_are_an_error():
    for family in (RegressionErrors(), ResidualQuantiles().new_state()):
        with pytest.raises(DataError, match="has 1 numbers a row, but the prediction has 3"):
            (family.sums if isinstance(family, RegressionErrors) else family.add)(rows(LABELS[:, 0], PREDICTIONS))


def test_no_rows_give_nan_without_a_warning():
    family = ResidualQuantiles()
    state = family.new_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = values(RegressionErrors(), np.empty((0, 3)), np.empty((0, 3)))
        state.add(rows(np.empty(0), np.empty(0)))
        estimates = family.estimates(state, 0)
    assert np.isnan(list(found.values())).all()
    assert all(np.isnan(e.value) and np.isnan(e.interval(0.95)).all() for e in estimates.values())
