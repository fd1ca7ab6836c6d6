"""Every family of metrics with no rows, one row, and no replicates."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kerasline.components.core.component import Context
from kerasline.components.metrics.base import Rows
from kerasline.components.metrics.baseline_comparison import BaselineComparison
from kerasline.components.metrics.binary import BinaryLosses, BinaryScores, BinaryThresholds
from kerasline.components.metrics.detection import DetectionMetrics
from kerasline.components.metrics.measuring import Measure, measure
from kerasline.components.metrics.metric_values import ALL_OTHERS, estimate
from kerasline.components.metrics.multi_class import Confidence, Confusion, MultiClassLosses
from kerasline.components.metrics.multi_label import MultiLabelMetrics
from kerasline.components.metrics.one_vs_rest import OneVsRestScores
from kerasline.components.metrics.ranking import QuerySizes, RankingMetrics
from kerasline.components.metrics.regression import RegressionErrors, ResidualQuantiles
from kerasline.components.metrics.resampling import Resampling
from kerasline.components.metrics.row_means import FunctionMean, MeanLoss, StoredSums
from kerasline.components.metrics.slices import SliceTable
from kerasline.components.metrics.text import TextMetrics
from kerasline.components.metrics.tokens import TokenMetrics

ROWS = 12
RANDOM = np.random.default_rng(0)
NUMBER, LOSS = np.arange(ROWS), RANDOM.random(ROWS)
WEIGHT = np.repeat(RANDOM.random(ROWS // 2), 2)  # one for the two rows of each query
SLICES = SliceTable({"site": ("a", "b", "nowhere")}, {"site": 0})


def distance(label, prediction):
    return np.abs(label - prediction)


def tensors(values):
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values, np.float64))


def shares(*shape):
    values = RANDOM.random((ROWS, *shape))
    return values / values.sum(axis=-1, keepdims=True)


def token_sums():
    rows = Rows(RANDOM.integers(-1, 3, (ROWS, 4)), shares(4, 3), None, NUMBER)
    return tensors(TokenMetrics().sums(rows))


BOXES = pa.array([[[0.0, 0.0, 2.0, 2.0]]] * ROWS)
CLASSES = pa.array([[int(k % 2)] for k in NUMBER])
DETECTED = {"predicted_boxes": BOXES, "predicted_classes": CLASSES, "scores": pa.array([[0.5]] * ROWS)}
TEXTS = pa.array([f"the cat sat {k}" for k in NUMBER]), pa.array([f"the cat sat {k % 3}" for k in NUMBER])
POINTS = {"precision_at_recall": [0.5], "recall_at_precision": [0.9], "specificity_at_recall": [1.0]}
# Families by task: (families, label, prediction, further columns).
TASKS = {
    "binary": (
        (BinaryThresholds(), BinaryScores(POINTS), BinaryLosses(), BaselineComparison(threshold=0.5)),
        NUMBER % 2,
        RANDOM.random(ROWS),
        {},
    ),
    "multi_class": (
        (Confusion(3, named={1: "b"}), MultiClassLosses(2), Confidence(), OneVsRestScores(3)),
        NUMBER % 3,
        tensors(shares(3)),
        {},
    ),
    "multi_label": (
        (MultiLabelMetrics(3), OneVsRestScores(3)),
        tensors(RANDOM.integers(0, 2, (ROWS, 3))),
        tensors(shares(3)),
        {},
    ),
    "regression": ((RegressionErrors(), ResidualQuantiles()), RANDOM.random(ROWS), RANDOM.random(ROWS), {}),
    "two numbers": ((RegressionErrors(np.zeros(2)), ResidualQuantiles()), tensors(shares(2)), tensors(shares(2)), {}),
    "ranking": (
        (RankingMetrics("query"), QuerySizes("query")),
        NUMBER % 3 * 1.0,
        RANDOM.random(ROWS),
        {"query": NUMBER // 2},
    ),
    "tokens": ((StoredSums(TokenMetrics()),), NUMBER, token_sums(), {}),
    "text": ((TextMetrics(["bleu", "chrf", "chrf++", "rouge1", "wer", "cer"]),), *TEXTS, {}),
    "detection": (
        (DetectionMetrics(replicates=0),),
        NUMBER,
        pa.StructArray.from_arrays(list(DETECTED.values()), list(DETECTED)),
        {"boxes": BOXES, "classes": CLASSES},
    ),
    "row means": ((MeanLoss(), FunctionMean(distance)), RANDOM.random(ROWS), RANDOM.random(ROWS), {}),
}


def measured(folder, task, rows, replicates):
    """Return the figures of each group: all rows, two slices with rows, and one without."""
    families, label, prediction, further = TASKS[task]
    columns = {"row": NUMBER, "label.y": label, "prediction.y": prediction, "baseline.y": prediction}
    columns |= {"loss.y": LOSS, "loss.baseline.y": LOSS / 2, "loss_count.y": NUMBER % 3 + 1, "weight": WEIGHT}
    columns |= {"slice.site": pa.array(["a", "b", "a", "a"] * (ROWS // 4)).dictionary_encode()}
    columns |= {f"column.{name}": values for name, values in further.items()}
    folder.mkdir()
    pq.write_table(pa.table(columns).slice(0, rows), folder / "0-0.parquet")
    measurement = Measure(
        {"y": families},
        SLICES,
        Resampling(0, replicates),
        weighted=True,
        baseline="baseline",
        columns=tuple(further),
        partitions=int(task == "ranking"),
    )
    found = measure(folder, ["0-0.parquet"], measurement, Context(folder))
    return [estimate(found, measurement, "y", group, compared=ALL_OTHERS if group else None) for group in range(4)]


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("rows", [0, 1, ROWS])
def test_replicates_change_no_value(tmp_path, task, rows):
    without, one, several = (measured(tmp_path / str(n), task, rows, n) for n in (0, 1, 20))
    names = {name for family in TASKS[task][0] for name in family.directions}
    for group, figures in enumerate(without):
        assert set(figures) == names
        for name, figure in figures.items():
            values = [found[group][name].estimate.value for found in (one, several)]
            np.testing.assert_equal(values, [figure.estimate.value] * 2, err_msg=name)
            assert figure.estimate.method in (None, "order statistics")
            figure.estimate.interval(0.95)
            if not rows or group == 3:
                assert np.isnan(figure.estimate.value)
