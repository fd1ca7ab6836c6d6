"""Evaluator: measure a model on held-out rows and on slices of them, and decide whether it may be deployed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasline.components.core.artifacts import Blessing, Evaluation, Examples, Model, Preprocessing, SavedModel
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.evaluator.settings import EvaluatorSettings


class Evaluator(Component):
    """Measures a model on a split and on slices of it, and compares its metrics with thresholds.

    The optional input `baseline` is another model, which takes raw features. Its metrics are compared with those of
    the model row by row. `LastBlessed("saved_model")` is the model that this stage blessed last. The optional input
    `saved_model` is the exported model. The differences of its predictions and metrics are reported. If Exporter has an
    answering function, its answers are judged instead, beside the losses of the trained model (docs/ANSWERS.md).

    The optional input `judges` is a dict of models that are given an answer, such as a picture or a sound. Their own
    answers to it are compared with a `reference`, by the name of the judge. A judge is an Exporter, a SavedModel or the
    path of one, which takes the answer as its only input; or a Trainer, or a pair of a Model and its Preprocessing, of
    which any layer can be compared (docs/EVALUATION.md).

    Args:
        thresholds: dict, bounds by metric, such as `{"accuracy": {"min": 0.9, "max_drop": 0.01}}`, see
            `kerasline.components.evaluator.settings.Bounds`. A model within all bounds is blessed. Besides the metrics,
            `megabytes`, `latency_ms` and `latency_p99_ms` (of one row) can be bounded. Defaults to `{}`.
        slices: list of slicings: columns, `"a*b"`, `{"column": "fare", "buckets": 4}`, functions (docs/EVALUATION.md).
            Defaults to `[]`.
        reference_slices: dict of str, by slicing the slice that the others are compared with, such as
            `{"payment_type": "Cash"}`. Other slicings are compared with all other rows. Defaults to `{}`.
        most_slices: int, number of slices measured per slicing, the most frequent ones. Defaults to 100.
        small_slice_rows: int, slices with fewer rows are marked as small and are neither tested nor compared. Defaults
            to 100.
        task: str, or dict of str by output: `"binary"`, `"multi_class"`, `"multi_label"`, `"regression"`,
            `"ranking"`, `"tokens"`, `"text"`, `"detection"`, `"sound"` or, for judges, `"distribution"`. Answers of the
            exported model are named like outputs; a single str is the task of the only answer that it fits. Defaults to
            None: inferred from loss and label.
        metrics: list of further metrics: Keras's, by name or as `{"name": "AUC", "curve": "PR"}`; functions of
            `(label, prediction)`, arrays (rows, ...), that return one number per row, which is averaged; or
            instances of `kerasline.components.metrics.base.Metrics`. Defaults to `[]`.
        decision_thresholds: list of float, decision thresholds of binary predictions. Accuracy, precision and recall
            use the first. Defaults to `[0.5]`.
        beta: float, weight of recall in F-beta. Defaults to 1.0.
        operating_points: dict of lists of float, what to fix by metric, such as `{"precision_at_recall": [0.9]}`: the
            highest precision with a recall of at least 0.9, and its threshold. Also `"specificity_at_recall"`,
            `"recall_at_precision"`, `"recall_at_specificity"`, `"recall_at_false_positive_rate"`. Defaults to `{}`.
        class_metrics: list of str, classes whose metrics against the rest are measured, sliced and bounded like others:
            `precision_of_CLASS`, `recall_of_CLASS`, `f1_of_CLASS`, `roc_auc_of_CLASS`, ... Defaults to `[]`.
        class_weights: dict of float by class, for averages over classes: `class_weighted_recall`, ... Classes that are
            left out count 0. Defaults to `{}`.
        top_k: int, k of top-k accuracy, precision and recall. Defaults to 5.
        loss_quantiles: list of float, quantiles of the quantile losses. Defaults to `[0.1, 0.5, 0.9]`.
        query: str, column that identifies the rows that are ranked together. Implies the task `"ranking"`. Defaults to
            None.
        decode: `decode(output, batch)`, converts raw outputs (rows, ...) and a batch of raw columns to what the metrics
            expect: texts, or for detection a dict of `predicted_boxes`, `predicted_classes`, `scores`. Of a model that
            answers otherwise it receives the answers, a dict by name. Defaults to None.
        reference: str, raw column to use as the label instead of the label of the training. For an answer of the
            exported model, a raw column or an output of the preprocessing; or a dict of these by answer and judge. The
            features that a judge has for answers are compared with those for a column of pictures or sounds, its
            answers with a column of texts, classes or numbers. Defaults to None.
        judge_inputs: dict of str, by judge the answer that it is given, if there are several. Defaults to `{}`.
        judge_outputs: dict of str, by judge the output that is compared, or the name of a layer of a Keras model.
            Defaults to `{}`: the only output that fits; for features of a Keras model what its last layer with weights
            receives.
        text_metrics: list of str, metrics of the text task. Defaults to
            `["bleu", "chrf", "rouge1", "rouge2", "rougeL", "wer", "cer", "exact_match"]`.
        text_options: dict, arguments of `kerasline.components.metrics.text.TextMetrics`: `tokenize`, `lowercase`,
            `stem`, and BLEU's `smoothing` and `smoothing_value`. Defaults to `{}`.
        ndcg_at: list of int, ranks of NDCG. Defaults to `[5, 10]`.
        padding: int, label of padding tokens, which are ignored. Defaults to -1.
        detection_columns: dict of str, names of the raw columns with objects, by the names in
            `kerasline.components.metrics.detection`; and the names of the answers with detected ones, by default
            `boxes`, `classes` and `scores`. Classes are numbers or names; one below 0, or an empty name, is padding.
            Defaults to `{}`.
        box_format: str, the order of the four numbers of a box, true or predicted: `"xyxy"` (left, top, right, bottom),
            `"yxyx"`, `"xywh"` (left, top, width, height) or `"center_xywh"`. Defaults to `"xyxy"`.
        confidence: float in (0, 1), confidence level of the intervals. Defaults to 0.95.
        replicates: int, number of bootstrap replicates. Defaults to 200.
        seed: int, seed of the bootstrap. Defaults to 0.
        split: str, split to evaluate. Defaults to `"test"`.
        batch_size: int, rows per call of the model. Defaults to None: up to 4,096 rows if the outputs of all layers for
            them fit into 64 MB, 1,024 rows if this is unknown.
        samples: int, number of the worst rows, and of random ones, to write for people, for each answer of the
            exported model and each output of texts or boxes. Defaults to 8; 0 writes none.
        nearest: str, column of encoded images. Each generated picture among the samples is displayed with the picture
            of the split `train` whose pixels are nearest, to find out whether the model copies. Defaults to None.

    Raises:
        ParameterError: a threshold, slice or task names something that does not exist.
        DataError: a column is missing or has the wrong type, or the split has no rows.
        UserCodeError: a user's function raised or returned something else than declared.

    Example:

    >>> import keras
    >>> def preprocessing():
    ...     x = keras.Input((1,), name="x")
    ...     return keras.Model({"x": x}, {"x": keras.layers.Rescaling(1.0)(x)})
    >>> def build_model(inputs, hp):
    ...     model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones", name="score")(inputs["x"]))
    ...     model.compile("sgd", "mse")
    ...     return model
    >>> rows = {"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0]}
    >>> data = kl.InMemoryExampleGen(rows, splits={"test": 1}).execute(folder / "data")
    >>> transform = kl.Transform(data.examples, function=preprocessing, label="y", split="test")
    >>> prepared = transform.execute(folder / "t").preprocessing
    >>> model = kl.ModelBuilder(prepared, function=build_model).execute(folder / "m").model
    >>> done = kl.Evaluator(data.examples, prepared, model, thresholds={"loss": {"max": 0.1}}).execute(folder / "e")
    >>> done.blessing.blessed
    True
    """

    VERSION = "11"
    LIBRARIES = ("tensorflow", "keras")

    examples: Input[Examples]
    preprocessing: Input[Preprocessing]
    model: Input[Model]
    baseline: Input[SavedModel] = None
    saved_model: Input[SavedModel] = None
    judges: Input[dict[str, SavedModel | Model | Preprocessing]] = None
    evaluation: Output[Evaluation]
    blessing: Output[Blessing]
    settings: Parameters[EvaluatorSettings]

    def __init__(self, *arguments: Any, judges: Any = None, **named: Any) -> None:
        if judges:
            from kerasline.components.models.judges import judge_inputs

            judges = judge_inputs(judges)
        super().__init__(*arguments, judges=judges, **named)

    def check(self, inputs: Any) -> None:
        from kerasline.components.evaluator.checks import check_settings

        super().check(inputs)
        has_baseline, has_saved_model = ("baseline" in self.inputs), ("saved_model" in self.inputs)
        judges = sum(edge.startswith("judges.") for edge in self.inputs)
        check_settings(self.settings, inputs, has_baseline=has_baseline, has_saved_model=has_saved_model, judges=judges)

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.evaluator.evaluate import Evaluating

        awaits_baseline = "baseline" in self.inputs and inputs.baseline is None
        return Evaluating(inputs, outputs, self.settings, context, awaits_baseline=awaits_baseline).run()
