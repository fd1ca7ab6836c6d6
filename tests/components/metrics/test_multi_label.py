"""Metrics of several labels per row, compared with scikit-learn."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, hamming_loss, log_loss, precision_recall_fscore_support
from sklearn.multioutput import MultiOutputClassifier

from kerasline.components.core.errors import DataError
from kerasline.components.metrics.multi_label import MultiLabelMetrics
from tests.components.metrics.of_rows import rows, total, values

NAMES = ("precision", "recall", "f1")


@pytest.fixture(scope="module")
def digits():
    """Return digits with the labels even, prime, square and above 7, and a label that all rows but one have."""
    data = load_digits()
    digit = data.target
    label = np.stack(
        [digit % 2 == 0, np.isin(digit, [2, 3, 5, 7]), np.isin(digit, [0, 1, 4, 9]), digit > 7, digit >= 0], axis=1
    ).astype(int)
    label[0, 4] = 0
    few = data.data[:, ::9]
    model = MultiOutputClassifier(LogisticRegression(max_iter=1000)).fit(few[:500], label[:500])
    probability = np.stack([of_label[:, 1] for of_label in model.predict_proba(few)], axis=1)
    return label, np.clip(probability, 1e-6, 1 - 1e-6)  # no library clips these for the logarithm


def expected_of(label, predicted, weight=None):
    found = {
        "subset_accuracy": accuracy_score(label, predicted, sample_weight=weight),
        "hamming_loss": hamming_loss(label, predicted, sample_weight=weight),
    }
    for kind in ("micro", "macro", "weighted"):
        scores = precision_recall_fscore_support(label, predicted, average=kind, zero_division=0, sample_weight=weight)
        found |= {f"{kind}_{name}": value for name, value in zip(NAMES, scores)}
    return found


def at_k(label, probability, top, weight=None):
    """Return precision and recall of the `top` most likely labels of each row as one set of decisions."""
    likely = np.argsort(-probability, axis=1, kind="stable")[:, :top]
    decided = np.zeros(label.shape, int)
    np.put_along_axis(decided, likely, 1, axis=1)
    scores = precision_recall_fscore_support(label, decided, average="micro", zero_division=0, sample_weight=weight)
    return {f"precision_at_{top}": scores[0], f"recall_at_{top}": scores[1]}


@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.9])
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_agree_with_scikit_learn(digits, threshold, weighted):
    label, probability = digits
    weight = np.random.default_rng(0).uniform(0, 3, len(label)) if weighted else None
    found = values(MultiLabelMetrics(5, threshold=threshold, top=2), label, probability, weight)
    expected = expected_of(label, probability > threshold, weight) | at_k(label, probability, 2, weight)
    losses = [log_loss(label[:, place], probability[:, place], sample_weight=weight) for place in range(5)]
    assert found == pytest.approx({**expected, "log_loss": np.mean(losses)}, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_per_label_agree_with_scikit_learn(digits, weighted):
    label, probability = digits
    weight = np.random.default_rng(0).uniform(0, 3, len(label)) if weighted else None
    family, names = MultiLabelMetrics(5), ["even", "prime", "square", "high", "any"]
    found = family.per_class(total(family, rows(label, probability, weight)), names)
    predicted = probability > 0.5
    columns = precision_recall_fscore_support(label, predicted, zero_division=0, sample_weight=weight)
    for place, name in enumerate(names):
        expected = dict(zip((*NAMES, "rows"), (column[place] for column in columns[:3])))
        support = (label[:, place] * (1 if weight is None else weight)).sum()
        assert found[name] == pytest.approx({**expected, "rows": support}, rel=1e-12)


@pytest.mark.parametrize("true", [0, 1])
@pytest.mark.parametrize("predicted", [0.0, 1.0])
def test_constant_labels_agree_with_scikit_learn(true, predicted):
    label, probability = np.full((4, 3), true), np.full((4, 3), predicted, np.float32)
    found = values(MultiLabelMetrics(3), label, probability)
    of_log_loss = log_loss(label[:, 0], probability[:, 0], labels=[0, 1])
    expected = {**expected_of(label, probability > 0.5), "log_loss": of_log_loss}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_probability_at_the_threshold_does_not_predict_as_in_keras():
    label, probability = np.array([[1, 0], [0, 1]]), np.array([[0.5, 0.5], [0.6, 0.5]])
    metric = keras.metrics.Precision(thresholds=0.5)
    metric.update_state(label, probability)
    assert values(MultiLabelMetrics(2), label, probability)["micro_precision"] == float(metric.result()) == 0.0


def test_all_numeric_types_give_the_same_values(digits):
    label, probability = digits
    expected = values(MultiLabelMetrics(5), label, probability.astype(np.float32))
    for dtype in (bool, np.uint8, np.float32):
        assert values(MultiLabelMetrics(5), label.astype(dtype), probability.astype(np.float32)) == expected


def test_no_rows_give_no_values():
    family = MultiLabelMetrics(4)
    empty = rows(np.zeros((0, 4)), np.zeros((0, 4)))
    assert family.sums(empty).shape == (0, 16)
    assert all(np.isnan(value) for value in family.values(total(family, empty)).values())


def test_vectorized_values_equal_single_values(digits):
    label, probability = digits
    family = MultiLabelMetrics(5)
    drawn = np.random.default_rng(0).poisson(1, (3, 2, len(label)))
    found = family.values(drawn @ family.sums(rows(label, probability)))
    expected = expected_of(label, probability > 0.5, drawn[2, 1])
    assert {name: found[name][2, 1] for name in expected} == pytest.approx(expected, rel=1e-12)


THREE = {"min_size": 3, "max_size": 3}


@given(
    st.lists(st.tuples(st.lists(st.booleans(), **THREE), st.lists(st.floats(0, 1), **THREE)), min_size=1, max_size=20),
    st.lists(st.integers(0, 20), max_size=3),
    st.randoms(),
)
def test_sums_of_parts_in_any_order_equal_the_whole(drawn, cuts, random):
    label, probability = (np.array(side) for side in zip(*drawn))
    family = MultiLabelMetrics(3)
    parts = [
        total(family, rows(part, scores))
        for part, scores in zip(np.split(label, sorted(cuts)), np.split(probability, sorted(cuts)))
    ]
    random.shuffle(parts)
    assert sum(parts) == pytest.approx(total(family, rows(label, probability)), rel=1e-9)


@pytest.mark.parametrize(
    ("label", "probability", "message"),
    [
        ([[0, 1]], [[0.5, 0.5, 0.5]], r"predictions .* have the shape \(2,\) a row, but they have \(3,\)"),
        ([0, 1], [0.5, 0.5], r"labels .* but they have \(\)"),
        ([[0, 2]], [[0.5, 0.5]], "0 or 1, but some are neither"),
    ],
)
def test_invalid_data_is_an_error_in_one_line(label, probability, message):
    with pytest.raises(DataError, match=message):
        MultiLabelMetrics(2).sums(rows(label, probability))


def test_class_weights_and_named_labels(digits):
    label, probability = digits
    weights = np.array([1.0, 0.0, 2.0, 0.0, 0.5])
    found = values(MultiLabelMetrics(5, weights=weights, named={1: "prime"}), label, probability)
    each = precision_recall_fscore_support(label, probability > 0.5, zero_division=0)
    for place, name in enumerate(NAMES):
        assert found[f"class_weighted_{name}"] == pytest.approx(np.average(each[place], weights=weights))
        assert found[f"{name}_of_prime"] == pytest.approx(each[place][1])
