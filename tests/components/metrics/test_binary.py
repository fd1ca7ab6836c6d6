"""Binary metrics compared with scikit-learn, on the predictions of a real model."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as theirs
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from kerasline.components.core.errors import DataError
from kerasline.components.metrics.binary import (
    BinaryLosses,
    BinaryScores,
    BinaryThresholds,
    checked_probabilities,
    rounded_keys,
    score_keys,
    scores_of,
)
from tests.components.metrics.of_cells import cell_values, counted
from tests.components.metrics.of_rows import rows, values

RANDOM = np.random.default_rng(0)


def _real():
    features, label = load_breast_cancer(return_X_y=True)
    model = LogisticRegression(max_iter=10000)
    # Of three features alone: answers that are often wrong.
    return label, cross_val_predict(model, features[:, [4, 9, 18]] * 50, label, method="predict_proba")[:, 1]


LABEL, SCORE = _real()
TIED = np.round(SCORE, 1)
WEIGHT = RANDOM.gamma(1.0, size=len(LABEL))
CASES = [(SCORE, None), (TIED, None), (SCORE, WEIGHT), (TIED, WEIGHT), (SCORE.astype(np.float32), None)]
IDS = ["exact", "ties", "weights", "ties and weights", "float32"]


@pytest.mark.parametrize(("score", "weight"), CASES, ids=IDS)
@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.9])
def test_metrics_at_a_threshold_agree_with_scikit_learn(score, weight, threshold):
    found = cell_values(BinaryThresholds([threshold, 0.1, 0.7], beta=2), LABEL, score, weight)
    predicted = score > np.asarray(threshold, score.dtype)
    given = {"y_true": LABEL, "y_pred": predicted, "sample_weight": weight}
    expected = {
        "accuracy": theirs.accuracy_score(**given),
        "balanced_accuracy": theirs.balanced_accuracy_score(**given),
        "precision": theirs.precision_score(**given),
        "recall": theirs.recall_score(**given),
        "specificity": theirs.recall_score(**given, pos_label=0),
        "f1": theirs.f1_score(**given),
        "f2": theirs.fbeta_score(**given, beta=2),
        "false_positive_rate": 1 - theirs.recall_score(**given, pos_label=0),
        "selection_rate": np.average(predicted, weights=weight),
        "false_negative_rate": 1 - theirs.recall_score(**given),
        "negative_predictive_value": theirs.precision_score(**given, pos_label=0),
        "false_discovery_rate": 1 - theirs.precision_score(**given),
        "false_omission_rate": 1 - theirs.precision_score(**given, pos_label=0),
        "prevalence": np.average(LABEL, weights=weight),
        "matthews_correlation": theirs.matthews_corrcoef(**given),
    }
    assert found == pytest.approx(expected, rel=1e-12)


def test_confusion_counts_at_each_threshold_agree_with_scikit_learn():
    family = BinaryThresholds([0.5, 0.25, 0.9])
    cells, sums = counted(family, LABEL, SCORE, WEIGHT).of(0)
    table = family.table(cells, sums[1])
    assert [entry["threshold"] for entry in table] == [0.25, 0.5, 0.9]
    for entry in table:
        (tn, fp), (fn, tp) = theirs.confusion_matrix(LABEL, SCORE > entry["threshold"], sample_weight=WEIGHT)
        counts = [entry[f"{name}s"] for name in ("true_negative", "false_positive", "false_negative", "true_positive")]
        assert counts == pytest.approx([tn, fp, fn, tp])


def test_score_at_the_threshold_is_not_above_it():
    assert cell_values(BinaryThresholds([0.7]), np.array([1, 0]), np.float32([0.7, 0.7]))["selection_rate"] == 0


@pytest.mark.parametrize(("score", "weight"), CASES, ids=IDS)
def test_areas_under_curves_agree_with_scikit_learn(score, weight):
    found = cell_values(BinaryScores(), LABEL, score, weight)
    assert found["roc_auc"] == pytest.approx(theirs.roc_auc_score(LABEL, score, sample_weight=weight), rel=1e-12)
    assert found["pr_auc"] == pytest.approx(
        theirs.average_precision_score(LABEL, score, sample_weight=weight), rel=1e-12
    )


@pytest.mark.parametrize(("score", "weight"), CASES, ids=IDS)
def test_calibration_error_is_the_mean_distance_in_ten_bins(score, weight):
    weights = np.ones(len(LABEL)) if weight is None else weight
    bins, total = np.minimum((score.astype(np.float64) * 10).astype(int), 9), 0.0
    for one in range(10):
        inside = bins == one
        total += abs(np.sum(weights[inside] * (LABEL[inside] - score[inside])))
    found = cell_values(BinaryScores(), LABEL, score, weight)["calibration_error"]
    assert found == pytest.approx(total / weights.sum(), rel=1e-9)


@pytest.mark.parametrize(("score", "weight"), CASES, ids=IDS)
def test_losses_agree_with_scikit_learn(score, weight):
    found = values(BinaryLosses(), LABEL, score, weight)

    def mean_of(rows):
        return np.average(score[rows], weights=None if weight is None else weight[rows])

    assert found == pytest.approx(
        {
            "log_loss": theirs.log_loss(LABEL, np.clip(score, 1.2e-7, 1 - 1.2e-7), sample_weight=weight),
            "brier": theirs.brier_score_loss(LABEL, score, sample_weight=weight),
            "mean_prediction": np.average(score, weights=weight),
            "mean_label": np.average(LABEL, weights=weight),
            "calibration_ratio": np.average(score, weights=weight) / np.average(LABEL, weights=weight),
            "discrimination": mean_of(LABEL == 1) - mean_of(LABEL == 0),
        },
        rel=1e-6,
    )


def test_loss_of_a_certain_error_is_the_log_of_the_rounding_unit():
    found = values(BinaryLosses(), [1, 0], np.float32([0, 1]))
    assert found["log_loss"] == pytest.approx(-np.log(np.finfo(np.float32).eps), rel=1e-6)
    # As Keras has it, whose own epsilon is 1e-7.
    assert found["log_loss"] == pytest.approx(16, abs=0.2)


@pytest.mark.parametrize("only", [0, 1])
def test_undefined_metrics_of_a_single_class_are_nan(only):
    label, score = np.full(20, only), RANDOM.random(20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cell_values(BinaryThresholds(), label, score) | cell_values(BinaryScores(), label, score)
    assert np.isnan([found["roc_auc"], found["balanced_accuracy"]]).all()
    assert np.isnan(found["recall"]) == (only == 0) and np.isnan(found["specificity"]) == (only == 1)
    assert np.isnan(found["pr_auc"]) == (only == 0)
    assert found["accuracy"] == pytest.approx(theirs.accuracy_score(label, score > 0.5))


def test_precision_without_positive_predictions_is_zero_as_in_scikit_learn():
    label, score = np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3])
    found = cell_values(BinaryThresholds(), label, score)
    assert found["precision"] == theirs.precision_score(label, score > 0.5, zero_division=0) == 0
    assert found["f1"] == theirs.f1_score(label, score > 0.5) == 0


@pytest.mark.parametrize("weight", [None, np.zeros(3)])
def test_no_rows_or_zero_weight_gives_nan_without_a_warning(weight):
    label = np.zeros(0 if weight is None else 3, np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for family in (BinaryThresholds(), BinaryScores()):
            assert np.isnan(list(cell_values(family, label, label / 1.0, weight).values())).all()
        assert np.isnan(list(values(BinaryLosses(), label, label / 1.0, weight).values())).all()
        family = BinaryScores()
        cells, sums = counted(family, label, label / 1.0, weight).of(0)
        assert "roc" not in family.curves(cells, sums[1])


def _crowded(kind, rows):
    random = np.random.default_rng(3)
    label = (random.random(rows) < 0.3).astype(np.int64)
    logit = random.normal(label * 1.2, 1.0)
    scale, middle = {
        "wide": (1.0, 0.0),
        "near 0": (1.0, -12.0),
        "near 1": (1.0, 9.0),
        "at one half": (1e-3, 0.0),
        "rare": (0.01, -5.0),
        "both ends": (6.0, 0.0),
    }[kind]
    return label, 1 / (1 + np.exp(-(logit * scale + middle)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["wide", "near 0", "near 1", "at one half", "rare", "both ends"])
def test_areas_of_200000_distinct_scores_are_near_the_exact_values(kind, dtype):
    label, score = _crowded(kind, 200_000)
    score = score.astype(dtype)
    found = cell_values(BinaryScores(), label, score)
    assert found["roc_auc"] == pytest.approx(theirs.roc_auc_score(label, score), abs=1e-4)
    assert found["pr_auc"] == pytest.approx(theirs.average_precision_score(label, score), abs=2e-4)


def test_memory_does_not_grow_with_the_number_of_scores():
    family = BinaryScores()
    label, score = _crowded("wide", 400_000)
    assert len(counted(family, label, score).of(0)[0]) <= family.max_exact_cells


def test_score_keys_keep_the_order_and_are_invertible():
    scores = np.unique(
        np.concatenate(
            [
                [0.0, 1.0, 0.5, np.nextafter(0.5, 0), np.nextafter(0.5, 1), np.nextafter(1.0, 0), 1e-30],
                RANDOM.random(1000),
            ]
        )
    )
    keys = score_keys(scores)
    assert (np.diff(keys) > 0).all()
    np.testing.assert_array_equal(scores_of(keys), scores)
    np.testing.assert_array_equal(score_keys(np.array([-0.0, 1 + 1e-7])), score_keys(np.array([0.0, 1.0])))


def test_rounding_in_steps_equals_rounding_at_once():
    keys = score_keys(np.sort(np.append(RANDOM.random(2000), [0, 1, 0.5])))
    for first in (0, 3, 20, 40):
        for then in (first, first + 1, first + 9):
            np.testing.assert_array_equal(rounded_keys(rounded_keys(keys, first), then), rounded_keys(keys, then))
    rounded = scores_of(rounded_keys(keys, 45))
    assert (np.diff(rounded) >= 0).all() and rounded[0] == 0 and rounded[-1] == 1
    assert ((rounded >= 0.5) == (scores_of(keys) >= 0.5)).all()


def test_curves_agree_with_scikit_learn():
    family = BinaryScores()
    cells, sums = counted(family, LABEL, TIED, WEIGHT).of(0)
    curves = family.curves(cells, sums[1])
    false, true, _ = theirs.roc_curve(LABEL, TIED, sample_weight=WEIGHT, drop_intermediate=False)
    np.testing.assert_allclose([curves["roc"]["x"], curves["roc"]["y"]], [false, true], rtol=1e-12)
    precision, recall, _ = theirs.precision_recall_curve(LABEL, TIED, sample_weight=WEIGHT)
    found = curves["precision_recall"]
    np.testing.assert_allclose([found["x"], found["y"]], [recall[:-1][::-1], precision[:-1][::-1]], rtol=1e-12)
    assert sum(curves["calibration"]["rows"]) == pytest.approx(WEIGHT.sum())


def test_curves_have_only_as_many_points_as_a_chart_needs():
    family = BinaryScores()
    cells, sums = counted(family, *_crowded("wide", 20_000)).of(0)
    for curve in family.curves(cells, sums[1]).values():
        assert 2 <= len(curve["x"]) <= 200
    roc = family.curves(cells, sums[1])["roc"]
    assert (roc["x"][0], roc["y"][0], roc["x"][-1], roc["y"][-1]) == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([0.2, 1.5], "gives 0.2 to 1.5, expected probabilities"),
        ([0.2, np.nan], "gives NaN"),
        ([-3.0, 0.1], "gives -3 to 0.1"),
    ],
)
def test_scores_outside_zero_and_one_are_an_error(scores, message):
    with pytest.raises(DataError, match=message):
        checked_probabilities(np.array(scores), "yes")
    checked_probabilities(np.empty(0), "yes")


def test_labels_and_scores_of_shape_n_1_do_not_broadcast():
    assert BinaryLosses().sums(rows(LABEL, SCORE)).shape == (len(LABEL), 6)


# The scores and labels of TFMA's confusion_matrix_metrics_test.py: one true positive above 0.5, two true negatives,
# three false positives and four false negatives.
TFMA_SCORE = np.array([0.6, 0.3, 0.2, 0.6, 0.7, 0.8, 0.1, 0.2, 0.3, 0.4])
TFMA_LABEL = np.array([1, 0, 0, 0, 0, 0, 1, 1, 1, 1])


def test_rates_are_those_of_tfma():
    found = cell_values(BinaryThresholds(), TFMA_LABEL, TFMA_SCORE)
    expected = {
        "precision": 1 / 4,
        "recall": 1 / 5,
        "specificity": 2 / 5,
        "false_positive_rate": 3 / 5,
        "false_negative_rate": 4 / 5,
        "negative_predictive_value": 2 / 6,
        "false_discovery_rate": 3 / 4,
        "false_omission_rate": 4 / 6,
        "prevalence": 5 / 10,
        "matthews_correlation": (1 * 2 - 3 * 4) / np.sqrt(4 * 5 * 5 * 6),
        "selection_rate": 4 / 10,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


OPERATING = {
    "precision_at_recall": [0.5],
    "specificity_at_recall": [0.5],
    "recall_at_precision": [0.5],
    "recall_at_specificity": [0.5],
    "recall_at_false_positive_rate": [0.6],
}


def test_operating_points_are_those_of_tfma():
    found = cell_values(BinaryScores(OPERATING), TFMA_LABEL, TFMA_SCORE)
    expected = {
        "precision_at_recall_0.5": 0.5,
        "specificity_at_recall_0.5": 0.2,
        "recall_at_precision_0.5": 1.0,
        "recall_at_specificity_0.5": 0.0,
        "recall_at_false_positive_rate_0.6": 0.4,
        "threshold_for_specificity_at_recall_0.5": 0.3,  # TFMA's ThresholdAtRecall, 0.29993
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert found["threshold_for_specificity_at_recall_0.5"] < 0.3


@pytest.mark.parametrize(("score", "weight"), CASES, ids=IDS)
@pytest.mark.parametrize("at", [0.1, 0.8, 0.95, 1.0])
def test_operating_points_agree_with_the_curves_of_scikit_learn(score, weight, at):
    found = cell_values(BinaryScores({kind: [at] for kind in OPERATING}), LABEL, score, weight)
    precision, recall, _ = theirs.precision_recall_curve(LABEL, score, sample_weight=weight)
    false, true, _ = theirs.roc_curve(LABEL, score, sample_weight=weight, drop_intermediate=False)
    expected = {
        "precision_at_recall": precision[:-1][recall[:-1] >= at - 1e-12].max(),
        "specificity_at_recall": 1 - false[true >= at - 1e-12].min(),
        "recall_at_precision": recall[precision >= at - 1e-12].max(),
        "recall_at_specificity": true[1 - false >= at - 1e-12].max(),
        "recall_at_false_positive_rate": true[false <= at + 1e-12].max(),
    }
    assert {name: found[f"{name}_{at:g}"] for name in expected} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", OPERATING)
def test_threshold_of_an_operating_point_gives_its_value(kind):
    score = SCORE.astype(np.float32)
    point = cell_values(BinaryScores({kind: [0.8]}), LABEL, score)
    threshold = point[f"threshold_for_{kind}_0.8"]
    found = cell_values(BinaryThresholds([threshold]), LABEL, score)
    metric, constraint = kind.split("_at_")
    assert found[metric] == pytest.approx(point[f"{kind}_0.8"])
    assert found[constraint] <= 0.8 if constraint == "false_positive_rate" else found[constraint] >= 0.8


def test_operating_point_that_no_threshold_reaches():
    found = cell_values(BinaryScores({"recall_at_precision": [0.9]}), [1, 0, 1, 0], np.array([0.1, 0.9, 0.2, 0.8]))
    assert found["recall_at_precision_0.9"] == 0.0 and np.isnan(found["threshold_for_recall_at_precision_0.9"])
