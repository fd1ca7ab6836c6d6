"""Evaluator: how good the model is on held-out rows, where, how surely, and whether it may go out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt, Len, Lt

from kerasline.components.core.artifacts import Blessing, Evaluation, Examples, Model, Preprocessing, SavedModel
from kerasline.components.core.component import Component, Context, Input, Output, Parameter
from kerasline.components.evaluator.settings import Slicing, Thresholds

Positive = Annotated[int, Gt(0)]


class Evaluator(Component):
    """Measures a model over a whole split and every slice of it, and holds it to thresholds.

    The input `baseline` is another model, which takes raw features: what it does worse or better is told
    row by row. `LastBlessed("saved_model")` is the one that this stage blessed last. The input `saved_model`
    is what was exported of the model: how far its answers and metrics differ is told.

    Parameters:
        thresholds: bounds by metric, such as `{"accuracy": {"min": 0.9, "max_drop": 0.01}}`: see
            `kerasline.components.evaluator.settings.Bounds`. A model that keeps them all is blessed. Besides the metrics
            there are `megabytes`, `latency_ms` and `latency_p99_ms`, of one row.
        slices: by what the rows are cut: columns, `"a*b"`, `{"column": "fare", "buckets": 4}`, functions; see
            `kerasline.components.evaluator.settings.Slicing`.
        most_slices: of each slicing the most frequent ones are measured.
        small_slice_rows: slices of fewer rows are marked, and neither tested nor compared.
        task: what the model answers, or by output: binary, multi_class, multi_label, regression, ranking, tokens,
            text, detection; by its loss when left out.
        metrics: further ones: Keras's by name or as `{"name": "AUC", "curve": "PR"}`; functions of
            `(label, prediction)`, arrays (rows, ...), that give a number a row, of which the mean is taken;
            `kerasline.components.metrics.base.Metrics`.
        decision_thresholds: of binary answers; the first is that of accuracy, precision and recall.
        beta: of F-beta.
        top_k: of top-k accuracy.
        loss_quantiles: of quantile losses.
        query: the column that says which rows are ranked together; makes the task ranking.
        ndcg_at: the ranks of NDCG.
        padding: the label of tokens that are none.
        decode: `decode(output, batch)` makes of the model's raw output (rows, ...) and a batch of raw columns what
            the metrics take: texts; of objects found a dict of `predicted_boxes`, `predicted_classes`, `scores`.
        detection_columns: what the columns of objects are called, by the names that
            `kerasline.components.metrics.detection` has for them.
        reference: the raw column that is true, instead of the label that the model was trained on.
        text_metrics: of texts: bleu, chrf, rouge1, rouge2, rougeL, wer, cer.
        confidence: of the intervals.
        replicates: of the bootstrap.
        seed: of the bootstrap.
        split: the held-out rows.
        batch_size: rows that the model takes at once; by default up to 4,096, as long as all that its layers give
            for them is within 64 MB, and 1,024 where that is not known.

    Raises:
        ParameterError: a threshold, slice or task names what there is not.
        DataError: a column is missing or of the wrong kind, or the split has no rows.
        UserCodeError: a function of the user's raised, or gave something else.
    """

    VERSION = "3"
    LIBRARIES = ("tensorflow", "keras")

    examples: Input[Examples]
    preprocessing: Input[Preprocessing]
    model: Input[Model]
    baseline: Input[SavedModel] = None
    saved_model: Input[SavedModel] = None
    evaluation: Output[Evaluation]
    blessing: Output[Blessing]
    thresholds: Parameter[Thresholds] = {}
    slices: Parameter[list[Slicing]] = []
    most_slices: Parameter[Positive] = 100
    small_slice_rows: Parameter[int] = 100
    task: Parameter[str | dict[str, str] | None] = None
    metrics: Parameter[list[Any]] = []
    decision_thresholds: Parameter[Annotated[list[float], Len(1)]] = [0.5]
    beta: Parameter[Annotated[float, Gt(0)]] = 1.0
    top_k: Parameter[Positive] = 5
    loss_quantiles: Parameter[list[float]] = [0.1, 0.5, 0.9]
    query: Parameter[str | None] = None
    decode: Parameter[Callable | None] = None
    reference: Parameter[str | None] = None
    text_metrics: Parameter[list[str]] = ["bleu", "chrf", "rouge1", "rouge2", "rougeL", "wer", "cer"]
    ndcg_at: Parameter[list[Positive]] = [5, 10]
    padding: Parameter[int] = -1
    detection_columns: Parameter[dict[str, str]] = {}
    confidence: Parameter[Annotated[float, Gt(0), Lt(1)]] = 0.95
    replicates: Parameter[Annotated[int, Ge(0)]] = 200
    seed: Parameter[int] = 0
    split: Parameter[str] = "test"
    batch_size: Parameter[Positive | None] = None

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from types import SimpleNamespace

        from kerasline.components.evaluator.evaluate import Evaluating

        settings = SimpleNamespace(**self.parameters)
        return Evaluating(inputs, outputs, settings, context).run()
