"""Gaps between slices against their formulas, on real data."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.naive_bayes import GaussianNB

from kerasline.components.evaluator.fairness import gaps
from kerasline.components.metrics.binary import BinaryThresholds
from kerasline.components.metrics.cell_counts import CellCounts
from kerasline.components.metrics.multi_class import Confusion
from kerasline.components.metrics.resampling import Resampling
from tests.components.metrics.of_rows import rows

NAMES = {1: "low", 2: "middle", 3: "high"}


def _cancer():
    features, label = load_breast_cancer(return_X_y=True)
    scores = cross_val_predict(
        LogisticRegression(max_iter=10000), features[:, [4, 9]] * 50, label, method="predict_proba"
    )[:, 1]
    group = 1 + np.searchsorted(np.quantile(features[:, 1], [0.3, 0.7]), features[:, 1])
    return label, scores, group


def counted(family, label, scores, group, weight=None):
    counts = CellCounts(4)
    counts.add(group, family.cells(rows(label, scores)), weight)
    return counts


def rates(label, predicted, group, kind, weight):
    """Return the rates of each slice by their definition."""
    condition = {"selected": np.full(len(label), True), "true positive": label == 1, "false positive": label == 0}[kind]
    return [np.average(predicted[condition & (group == k)], weights=weight[condition & (group == k)]) for k in NAMES]


@pytest.mark.parametrize("weighted", [False, True])
def test_gaps_of_binary_metrics_follow_from_the_rates(weighted):
    label, scores, group = _cancer()
    weight = np.random.default_rng(0).gamma(1.0, size=len(label)) if weighted else np.ones(len(label))
    family = BinaryThresholds()
    found = gaps(counted(family, label, scores, group, weight), family, NAMES, Resampling(0, 200), 0.95)
    by_rate = {k: rates(label, scores > 0.5, group, k, weight) for k in ("selected", "true positive", "false positive")}
    spans = {k: max(v) - min(v) for k, v in by_rate.items()}
    expected = {
        "demographic parity": spans["selected"],
        "equal opportunity": spans["true positive"],
        "equalised odds": max(spans["true positive"], spans["false positive"]),
    }
    assert {gap["definition"]: gap["gap"] for gap in found} == pytest.approx(expected)
    for gap in found:
        assert gap["low"] <= gap["high"] and gap["slices"] == 3
    names = list(NAMES.values())
    assert found[0]["most"] == names[int(np.argmax(by_rate["selected"]))]
    assert found[0]["least"] == names[int(np.argmin(by_rate["selected"]))]


def test_widest_gap_of_several_classes_is_reported():
    features, label = load_digits(return_X_y=True)
    scores = GaussianNB(var_smoothing=0.5).fit(features[::2], label[::2]).predict_proba(features)
    group = 1 + np.searchsorted(np.quantile(features.sum(1), [0.3, 0.7]), features.sum(1))
    family = Confusion(10)
    found = gaps(counted(family, label, scores, group), family, NAMES, Resampling(0, 50), 0.9)
    predicted, ones = scores.argmax(1), np.ones(len(label))
    spans = []
    for digit in range(10):
        values = rates(label == digit, predicted == digit, group, "true positive", ones)
        spans.append(max(values) - min(values))
    assert found[1]["definition"] == "equal opportunity" and found[1]["gap"] == pytest.approx(max(spans))


def test_slices_without_a_rate_are_ignored():
    label = np.array([1, 1, 0, 0, 1, 0, 0])
    scores = np.array([0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.2])
    group = np.array([1, 1, 1, 2, 3, 3, 2])  # no positive row in slice 2
    family = BinaryThresholds()
    found = {
        g["definition"]: g for g in gaps(counted(family, label, scores, group), family, NAMES, Resampling(0, 99), 0.95)
    }
    assert found["equal opportunity"]["gap"] == pytest.approx(0.5)
    assert found["equal opportunity"]["least"] == "low" and found["equal opportunity"]["most"] == "high"


def test_single_slice_has_no_gap():
    label, scores, group = _cancer()
    family = BinaryThresholds()
    assert gaps(counted(family, label, scores, group), family, {1: "low"}, Resampling(0, 9), 0.95) == []


def test_without_replicates_the_gap_has_no_interval():
    label, scores, group = _cancer()
    family = BinaryThresholds()
    found = gaps(counted(family, label, scores, group), family, NAMES, Resampling(0, 0), 0.95)
    assert len(found) == 3 and all(np.isnan(gap["low"]) for gap in found)
