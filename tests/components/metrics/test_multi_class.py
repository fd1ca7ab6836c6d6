"""Multi-class metrics compared with scikit-learn, on the predictions of a real model."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as theirs
from sklearn.datasets import load_digits
from sklearn.naive_bayes import GaussianNB

from kerasline.components.metrics.multi_class import Confidence, Confusion, MultiClassLosses
from tests.components.metrics.of_cells import cell_values, counted
from tests.components.metrics.of_rows import values

CLASSES = 10
RANDOM = np.random.default_rng(1)


def _real():
    features, label = load_digits(return_X_y=True)
    noisy = features + RANDOM.normal(0, 3, features.shape)
    model = GaussianNB(var_smoothing=0.5).fit(noisy[:900], label[:900])
    return label[900:], model.predict_proba(noisy[900:])


LABEL, SCORES = _real()
WEIGHT = RANDOM.gamma(1.0, size=len(LABEL))
# Of some classes no row is true, of another none is predicted.
SOME = (LABEL != 4) & (SCORES.argmax(1) != 7)
CASES = [
    (LABEL, SCORES, None),
    (LABEL, SCORES, WEIGHT),
    (LABEL[SOME], SCORES[SOME], None),
    (LABEL[SOME], SCORES[SOME], WEIGHT[SOME]),
]
IDS = ["all classes", "weights", "missing classes", "missing classes and weights"]


@pytest.mark.parametrize(("label", "scores", "weight"), CASES, ids=IDS)
def test_averages_over_classes_agree_with_scikit_learn(label, scores, weight):
    found = cell_values(Confusion(CLASSES), label, scores, weight)
    predicted = scores.argmax(1)
    given = {"y_true": label, "y_pred": predicted, "sample_weight": weight}
    expected = {"accuracy": theirs.accuracy_score(**given), "matthews_correlation": theirs.matthews_corrcoef(**given)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are predicted but never true
        expected["balanced_accuracy"] = theirs.balanced_accuracy_score(**given)
    for average in ("macro", "weighted", "micro"):
        averages = theirs.precision_recall_fscore_support(**given, average=average, zero_division=0)
        expected |= {f"{average}_{name}": value for name, value in zip(("precision", "recall", "f1"), averages)}
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("label", "scores", "weight"), CASES, ids=IDS)
def test_confusion_matrix_agrees_with_scikit_learn(label, scores, weight):
    family = Confusion(CLASSES)
    cells, sums = counted(family, label, scores, weight).of(0)
    expected = theirs.confusion_matrix(label, scores.argmax(1), sample_weight=weight, labels=range(CLASSES))
    np.testing.assert_allclose(family.matrix(cells, sums[1]), expected, rtol=1e-12)


@pytest.mark.parametrize(("label", "scores", "weight"), CASES, ids=IDS)
def test_metrics_per_class_agree_with_scikit_learn(label, scores, weight):
    family = Confusion(CLASSES)
    cells, sums = counted(family, label, scores, weight).of(0)
    entries = family.per_class(cells, sums[1], weight is not None, 0.95)
    precision, recall, f1, support = theirs.precision_recall_fscore_support(
        label, scores.argmax(1), sample_weight=weight, labels=range(CLASSES), zero_division=0
    )
    expected = {"precision": precision, "recall": recall, "f1": f1}
    for entry in entries:
        assert entry["value"] == pytest.approx(expected[entry["metric"]][entry["class"]])
        assert entry["rows"] == pytest.approx(support[entry["class"]])
        if weight is None and entry["metric"] != "f1" and not np.isnan(entry["low"]):
            assert entry["low"] <= entry["value"] <= entry["high"]
    assert len(entries) == 3 * CLASSES


@pytest.mark.parametrize("top", [1, 2, 5])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_losses_and_top_k_agree_with_scikit_learn(top, weight):
    found = values(MultiClassLosses(top), LABEL, SCORES, weight)
    one_hot = np.eye(CLASSES)[LABEL]
    assert found == pytest.approx(
        {
            f"top_{top}_accuracy": theirs.top_k_accuracy_score(LABEL, SCORES, k=top, sample_weight=weight),
            f"precision_at_{top}": theirs.top_k_accuracy_score(LABEL, SCORES, k=top, sample_weight=weight) / top,
            "log_loss": theirs.log_loss(LABEL, SCORES, sample_weight=weight),
            "brier": np.average(np.square(SCORES - one_hot).sum(1), weights=weight),
        },
        rel=1e-6,
    )


def test_tied_classes_do_not_count_in_top_k():
    found = values(MultiClassLosses(2), [0, 1, 2], np.full((3, 3), 1 / 3))
    assert found["top_2_accuracy"] == 0
    assert found["log_loss"] == pytest.approx(np.log(3))


def test_calibration_uses_the_most_likely_class():
    found = cell_values(Confidence(), LABEL, SCORES, WEIGHT)["calibration_error"]
    sure, right = SCORES.max(1), SCORES.argmax(1) == LABEL
    bins = np.minimum((sure * 10).astype(int), 9)
    total = sum(abs(np.sum(WEIGHT[bins == b] * (right[bins == b] - sure[bins == b]))) for b in range(10))
    assert found == pytest.approx(total / WEIGHT.sum(), rel=1e-9)


def test_single_class_agrees_with_scikit_learn():
    label, scores = np.full(30, 3), SCORES[LABEL == 3][:30]
    found = cell_values(Confusion(CLASSES), label, scores)
    macro = theirs.precision_recall_fscore_support(label, scores.argmax(1), average="macro", zero_division=0)
    assert [found[f"macro_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(macro[:3])


def test_no_rows_give_nan_without_a_warning():
    label, scores = np.empty(0, np.int64), np.empty((0, CLASSES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cell_values(Confusion(CLASSES), label, scores) | values(MultiClassLosses(3), label, scores)
        found |= cell_values(Confidence(), label, scores)
    assert np.isnan(list(found.values())).all()


@pytest.mark.parametrize(("label", "scores", "weight"), CASES, ids=IDS)
def test_metrics_of_named_classes_agree_with_scikit_learn(label, scores, weight):
    found = cell_values(Confusion(CLASSES, named={3: "three", 4: "four"}), label, scores, weight)
    predicted = scores.argmax(1)
    for place, name in ((3, "three"), (4, "four")):
        given = {"y_true": label == place, "y_pred": predicted == place, "sample_weight": weight}
        assert found[f"precision_of_{name}"] == pytest.approx(theirs.precision_score(**given, zero_division=0))
        assert found[f"false_positive_rate_of_{name}"] == pytest.approx(1 - theirs.recall_score(**given, pos_label=0))
        if (label == place).any():
            assert found[f"recall_of_{name}"] == pytest.approx(theirs.recall_score(**given))
            assert found[f"f1_of_{name}"] == pytest.approx(theirs.f1_score(**given))


def test_class_weights_average_the_classes():
    weights = np.arange(CLASSES) % 4 * 1.0
    found = cell_values(Confusion(CLASSES, weights=weights), LABEL, SCORES, WEIGHT)
    each = theirs.precision_recall_fscore_support(LABEL, SCORES.argmax(1), sample_weight=WEIGHT)
    expected = [np.average(values, weights=weights) for values in each[:3]]
    assert [found[f"class_weighted_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(expected)
