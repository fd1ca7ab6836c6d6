"""Several labels a row against scikit-learn."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
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
    """Digits with the labels even, prime, square, above 7 and nine-or-less but one (which only one row lacks)."""
    data = load_digits()
    digit = data.target
    label = np.stack(
        [digit % 2 == 0, np.isin(digit, [2, 3, 5, 7]), np.isin(digit, [0, 1, 4, 9]), digit > 7, digit >= 0], axis=1
    ).astype(int)
    label[0, 4] = 0
    few = data.data[:, ::9]
    model = MultiOutputClassifier(LogisticRegression(max_iter=1000)).fit(few[:500], label[:500])
    told = np.stack([of_label[:, 1] for of_label in model.predict_proba(few)], axis=1)
    return label, np.clip(told, 1e-6, 1 - 1e-6)  # where no library clips them for the logarithm


def expected_of(label, predicted, weight=None):
    found = {
        "subset_accuracy": accuracy_score(label, predicted, sample_weight=weight),
        "hamming_loss": hamming_loss(label, predicted, sample_weight=weight),
    }
    for kind in ("micro", "macro", "weighted"):
        told = precision_recall_fscore_support(label, predicted, average=kind, zero_division=0, sample_weight=weight)
        found |= {f"{kind}_{name}": value for name, value in zip(NAMES, told)}
    return found


@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.9])
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_are_those_of_scikit_learn(digits, threshold, weighted):
    label, probability = digits
    weight = np.random.default_rng(0).uniform(0, 3, len(label)) if weighted else None
    found = values(MultiLabelMetrics(5, threshold=threshold), label, probability, weight)
    expected = expected_of(label, probability > threshold, weight)
    told = [log_loss(label[:, place], probability[:, place], sample_weight=weight) for place in range(5)]
    assert found == pytest.approx({**expected, "log_loss": np.mean(told)}, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_each_label_is_told_as_scikit_learn_tells_it(digits, weighted):
    label, probability = digits
    weight = np.random.default_rng(0).uniform(0, 3, len(label)) if weighted else None
    family, names = MultiLabelMetrics(5), ["even", "prime", "square", "high", "any"]
    found = family.per_class(total(family, rows(label, probability, weight)), names)
    predicted = probability > 0.5
    told = precision_recall_fscore_support(label, predicted, zero_division=0, sample_weight=weight)
    for place, name in enumerate(names):
        expected = dict(zip((*NAMES, "rows"), (column[place] for column in told[:3])))
        support = (label[:, place] * (1 if weight is None else weight)).sum()
        assert found[name] == pytest.approx({**expected, "rows": support}, rel=1e-12)


@pytest.mark.parametrize("there", [0, 1])
@pytest.mark.parametrize("told", [0.0, 1.0])
def test_labels_of_one_value_give_what_scikit_learn_gives(there, told):
    label, probability = np.full((4, 3), there), np.full((4, 3), told, np.float32)
    found = values(MultiLabelMetrics(3), label, probability)
    of_log_loss = log_loss(label[:, 0], probability[:, 0], labels=[0, 1])
    assert found == pytest.approx({**expected_of(label, probability > 0.5), "log_loss": of_log_loss}, rel=1e-6)


def test_probability_at_the_threshold_does_not_predict_as_in_keras():
    label, probability = np.array([[1, 0], [0, 1]]), np.array([[0.5, 0.5], [0.6, 0.5]])
    metric = keras.metrics.Precision(thresholds=0.5)
    metric.update_state(label, probability)
    assert values(MultiLabelMetrics(2), label, probability)["micro_precision"] == float(metric.result()) == 0.0


def test_labels_and_predictions_of_any_number_type_give_the_same(digits):
    label, probability = digits
    expected = values(MultiLabelMetrics(5), label, probability.astype(np.float32))
    for dtype in (bool, np.uint8, np.float32):
        assert values(MultiLabelMetrics(5), label.astype(dtype), probability.astype(np.float32)) == expected


def test_no_rows_give_no_values():
    family = MultiLabelMetrics(4)
    empty = rows(np.zeros((0, 4)), np.zeros((0, 4)))
    assert family.sums(empty).shape == (0, 15)
    assert all(np.isnan(value) for value in family.values(total(family, empty)).values())


def test_values_of_many_sums_at_once(digits):
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
@settings(deadline=None)
def test_parts_in_any_order_add_up_to_the_whole(drawn, cuts, random):
    label, probability = (np.array(side) for side in zip(*drawn))
    family = MultiLabelMetrics(3)
    parts = [
        total(family, rows(part, told))
        for part, told in zip(np.split(label, sorted(cuts)), np.split(probability, sorted(cuts)))
    ]
    random.shuffle(parts)
    assert sum(parts) == pytest.approx(total(family, rows(label, probability)), rel=1e-9)


@pytest.mark.parametrize(
    ("label", "probability", "said"),
    [
        ([[0, 1]], [[0.5, 0.5, 0.5]], r"predictions .* have the shape \(2,\) a row, but they have \(3,\)"),
        ([0, 1], [0.5, 0.5], r"labels .* but they have \(\)"),
        ([[0, 2]], [[0.5, 0.5]], "0 or 1, but some are neither"),
    ],
)
def test_data_of_another_kind_is_told_in_one_line(label, probability, said):
    with pytest.raises(DataError, match=said):
        MultiLabelMetrics(2).sums(rows(label, probability))
