"""Differences of predictions from those of a baseline, by the tables of TFMA's tests."""

from dataclasses import replace

import numpy as np
import pytest

from kerasline.components.metrics.baseline_comparison import BaselineComparison
from tests.components.metrics.of_rows import rows, total


def compared(family, prediction, baseline, weight=None):
    given = rows(np.zeros(len(prediction)), prediction, weight)
    given = replace(given, baseline=np.asarray(baseline))
    return {name: float(value) for name, value in family.values(total(family, given)).items()}


def test_flip_rates_are_those_of_tfma():
    """flip_metrics_test.py."""
    prediction, baseline = [0.9, 0.1, 0.2, 0.8], [0.1, 0.9, 0.1, 0.9]
    found = compared(BaselineComparison(threshold=0.5), prediction, baseline, [1, 2, 3, 4])
    assert found["flip_rate"] == pytest.approx(3 / 10)
    assert found["negative_to_positive_rate"] == pytest.approx(1 / 10)
    assert found["positive_to_negative_rate"] == pytest.approx(2 / 10)


def test_prediction_difference_is_that_of_tfma():
    """prediction_difference_metrics_test.py."""
    found = compared(BaselineComparison(), [0.2, 0.3, 0.8], [0.1, 0.2, 0.9], [1, 2, 3])
    expected = (2 * 0.1 / 0.3 * 1 + 2 * 0.1 / 0.5 * 2 + 2 * 0.1 / 1.7 * 3) / 6
    assert found == {"prediction_difference": pytest.approx(expected)}
    assert compared(BaselineComparison(), [0.1, 0.0], [0.1, 0.0]) == {"prediction_difference": 0.0}


def test_flips_of_classes_and_labels():
    prediction, baseline = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], [[0.4, 0.5, 0.1], [0.3, 0.6, 0.1]]
    assert compared(BaselineComparison(classes=True), prediction, baseline)["flip_rate"] == 1 / 2
    found = compared(BaselineComparison(threshold=0.45), prediction, baseline)
    assert (found["flip_rate"], found["negative_to_positive_rate"]) == pytest.approx((2 / 6, 1 / 6))


def test_without_a_baseline_nothing_is_known():
    family = BaselineComparison(threshold=0.5)
    assert np.isnan(list(family.values(total(family, rows([0, 1], [0.2, 0.7]))).values())).all()


def test_prediction_at_the_threshold_is_negative():
    at = np.float32([0.3])
    assert compared(BaselineComparison(threshold=0.3), at, np.float32([0.2]))["flip_rate"] == 0.0
