"""Areas of each class against the rest compared with scikit-learn, on the predictions of a real model."""

import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from kerasline.components.core.component import Context
from kerasline.components.metrics.cell_counts import CellCounts
from kerasline.components.metrics.measuring import Measure, measure
from kerasline.components.metrics.metric_values import cell_spread, estimate
from kerasline.components.metrics.one_vs_rest import OneVsRestScores
from kerasline.components.metrics.resampling import Resampling
from kerasline.components.metrics.slices import SliceTable
from tests.components.metrics.of_cells import cell_values, counted
from tests.components.metrics.of_rows import rows
from tests.components.metrics.test_multi_class import CLASSES, LABEL, SCORES, WEIGHT

ONE_HOT = np.eye(CLASSES, dtype=int)[LABEL]
# Each image also has the label of the next digit, if it is even.
SEVERAL = ONE_HOT | np.roll(ONE_HOT, 1, axis=1) * (LABEL % 2 == 0)[:, np.newaxis]
SCORES32 = SCORES.astype(np.float32)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["no weights", "weights"])
@pytest.mark.parametrize("label", [LABEL, SEVERAL], ids=["multi-class", "multi-label"])
@pytest.mark.parametrize("scores", [SCORES32, np.round(SCORES32, 1)], ids=["exact", "ties"])
def test_averages_agree_with_scikit_learn(label, scores, weight):
    found = cell_values(OneVsRestScores(CLASSES), label, scores, weight)
    hot = ONE_HOT if label.ndim == 1 else label
    expected = {}
    for average in ("macro", "weighted", "micro"):
        given = {"average": average, "sample_weight": weight}
        expected[f"{average}_roc_auc"] = roc_auc_score(hot, scores, **given)
        expected[f"{average}_pr_auc"] = average_precision_score(hot, scores, **given)
    assert found == pytest.approx(expected, rel=1e-12)


def test_named_classes_and_class_weights_agree_with_scikit_learn():
    weights = np.arange(CLASSES) % 3 * 1.0
    found = cell_values(OneVsRestScores(CLASSES, weights=weights, named={7: "seven"}), LABEL, SCORES32)
    areas = [roc_auc_score(ONE_HOT[:, k], SCORES32[:, k]) for k in range(CLASSES)]
    assert found["class_weighted_roc_auc"] == pytest.approx(np.average(areas, weights=weights))
    assert found["roc_auc_of_seven"] == pytest.approx(areas[7])
    assert found["pr_auc_of_seven"] == pytest.approx(average_precision_score(ONE_HOT[:, 7], SCORES32[:, 7]))


def test_class_without_rows_is_left_out_of_the_mean():
    some = LABEL != 4
    found = cell_values(OneVsRestScores(CLASSES, named={4: "four"}), LABEL[some], SCORES32[some])
    areas = [roc_auc_score(ONE_HOT[some, k], SCORES32[some, k]) for k in range(CLASSES) if k != 4]
    assert found["macro_roc_auc"] == pytest.approx(np.mean(areas)) and np.isnan(found["roc_auc_of_four"])


def test_no_rows_give_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cell_values(OneVsRestScores(3, weights=np.ones(3)), np.empty(0, np.int64), np.empty((0, 3)))
    assert np.isnan(list(found.values())).all()


@pytest.mark.parametrize("label", [LABEL, SEVERAL], ids=["multi-class", "multi-label"])
def test_spread_equals_that_of_a_bootstrap_of_rows(label):
    """The cells of a row are drawn together, because they are not independent."""
    family, spreads = OneVsRestScores(CLASSES), []
    for number in range(4):  # other numbers, other groups of rows; one alone estimates a standard deviation to 13%
        given = rows(label, SCORES32, first=number * len(label))
        counts = CellCounts(1, family.max_exact_cells, family.coarsen, family.coarsening_levels)
        counts.add(np.zeros(label.shape[0] * CLASSES, np.int64), family.cells(given).reshape(-1), None)
        spreads.append(cell_spread(family, *counts.of(0), Resampling(number, 200), "k"))
    random, hot = np.random.default_rng(0), ONE_HOT if label.ndim == 1 else label
    drawn = [random.integers(0, len(label), len(label)) for _ in range(80)]
    for average in ("macro", "micro"):
        areas = [roc_auc_score(hot[places], SCORES32[places], average=average) for places in drawn]
        found = np.mean([np.std(spread[f"{average}_roc_auc"]) for spread in spreads])
        assert found == pytest.approx(np.std(areas), rel=0.3)


def test_many_scores_are_rounded_with_little_effect():
    random = np.random.default_rng(0)
    label = random.integers(0, 3, 60_000)
    logit = random.normal(0, 1, (len(label), 3)) + np.eye(3)[label]
    scores = (np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)).astype(np.float32)
    family = OneVsRestScores(3)
    counts = counted(family, label, scores, at_once=8192)
    cells, sums = counts.of(0)
    assert len(cells) <= family.max_exact_cells < label.size * 3
    expected = roc_auc_score(label, scores, multi_class="ovr")
    assert family.values(cells, sums[1])["macro_roc_auc"] == pytest.approx(expected, abs=2e-5)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30),
    st.lists(st.integers(0, 30), max_size=3),
    st.randoms(),
)
def test_parts_in_any_order_equal_the_whole(drawn, cuts, random):
    label, first, second = np.array(drawn).T
    scores = np.column_stack([first, second, 8 - first - second]).astype(np.float32) / 8
    family = OneVsRestScores(3)
    parts = []
    for places in np.split(np.arange(len(label)), sorted(cuts)):
        part = rows(label[places], scores[places], first=places[0] if len(places) else 0)
        counts = CellCounts(1, family.max_exact_cells, family.coarsen, family.coarsening_levels)
        counts.add(np.zeros(3 * len(places), np.int64), family.cells(part).reshape(-1), None)
        parts.append(counts)
    random.shuffle(parts)
    for part in parts[1:]:
        parts[0].merge(part)
    cells, sums = parts[0].of(0)
    expected = cell_values(family, label, scores)
    assert {n: float(v) for n, v in family.values(cells, sums[1]).items()} == pytest.approx(expected, nan_ok=True)


def test_change_from_a_baseline_is_paired(tmp_path):
    """A baseline that differs by a little noise has almost the same replicates."""
    noisy = (SCORES32 * np.random.default_rng(0).uniform(0.8, 1.0, SCORES32.shape)).astype(np.float32)
    sides = map(np.ascontiguousarray, (SCORES32, noisy))
    ours, theirs = map(pa.FixedShapeTensorArray.from_numpy_ndarray, sides)
    columns = {"row": np.arange(len(LABEL)), "label.y": LABEL, "prediction.y": ours, "baseline.y": theirs}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    request = Measure(
        {"y": (OneVsRestScores(CLASSES),)}, SliceTable({}, {}), Resampling(0, 200), weighted=False, baseline="baseline"
    )
    measured = measure(tmp_path, ["p.parquet"], request, Context(tmp_path))
    assert not measured.pairs
    figures = estimate(measured, request, "y", 0)["macro_roc_auc"]
    areas = [roc_auc_score(ONE_HOT, side) for side in (SCORES32, noisy)]
    assert figures.change.value == pytest.approx(areas[0] - areas[1], rel=1e-9)
    assert figures.change.standard_error < 0.5 * figures.estimate.standard_error
