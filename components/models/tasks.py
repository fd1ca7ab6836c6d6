"""The registry of tasks: what an output predicts, how its labels and predictions are read, and its metrics.

To add a task, add an entry to `TASKS` and, if a loss implies it, a rule to `infer_task`. To add a metric family to a
task, add it to the `metrics` function of the entry. The metric modules are imported when they are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kerasline.components.core.errors import DataError

if TYPE_CHECKING:
    from kerasline.components.evaluator.settings import EvaluatorSettings
    from kerasline.components.metrics.base import Metrics, SumMetrics

MetricsFactory = Callable[["Output", "EvaluatorSettings", Any], "tuple[Metrics, ...]"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task.

    Attributes:
        read_labels: converts labels of an output to what the metrics expect.
        shape: "scalar": one value per row; "row": any number of values per row; a single one is flattened. "none": the
            metrics need neither labels nor predictions, only the loss.
        activation: converts logits to probabilities; None if predictions are not probabilities.
        metrics: `metrics(output, settings, label_mean)` returns the metric families.
        comparison: `comparison(settings)` returns the families that compare predictions with those of a baseline.
        headline: names of the metrics that are displayed first.
        has_classes: whether the last axis of the output has one score per class.
        label_in_columns: whether the metrics read the label from raw columns.
        columns: `columns(settings)` returns names of raw columns that the metrics need.
        sums: `sums(settings)` returns the metrics whose sums are stored instead of the predictions, which would be too
            large; or None.
        has_files: whether labels and predictions are the content of files. Neither is stored.
        samples: whether Evaluator shows samples: "always", "never", or only of the "answers" of a served model.
    """

    read_labels: Callable[[Output, np.ndarray], np.ndarray] = lambda output, values: values
    shape: Literal["scalar", "row", "any", "none"] = "any"
    activation: Literal["sigmoid", "softmax"] | None = None
    metrics: MetricsFactory
    comparison: Callable[[EvaluatorSettings], tuple[Metrics, ...]] = lambda settings: ()
    headline: tuple[str, ...] = ()
    has_classes: bool = False
    label_in_columns: bool = False
    columns: Callable[[EvaluatorSettings], list[str]] = lambda settings: []
    sums: Callable[[EvaluatorSettings], SumMetrics] | None = None
    has_files: bool = False
    samples: Literal["always", "answers", "never"] = "answers"

    @property
    def probabilities(self) -> bool:
        return self.activation is not None

    @property
    def one_class(self) -> bool:
        """Whether exactly one of several classes is predicted."""
        return self.activation == "softmax"


@dataclass(frozen=True)
class Output:
    """An output of a model and how to read it.

    Attributes:
        name: name of the output.
        task: key of `TASKS`.
        classes: names of the classes of integer labels; None if they are not classes, or two classes without names.
        from_logits: whether the scores of a classifier are logits.
        margins: whether the scores are margins, as a hinge loss trains them. Their labels may be -1 and 1, and the
            decision is at 0.
        answer: names of the answers of the served model that it consists of; none for an output of the network.
        reference: raw column with the true value, instead of the training's label.
        prepared: whether `reference` is an output of the preprocessing and no raw column.
        judged: the answer of the served model that a judge of this output's name is given, or None.
        judge_output: output of the judge, or a layer of a Keras model. None for the layer before its last weights.
    """

    name: str
    task: str
    classes: tuple[str, ...] | None = None
    from_logits: bool = False
    margins: bool = False
    answer: tuple[str, ...] = ()
    reference: str | None = None
    prepared: bool = False
    judged: str | None = None
    judge_output: str | None = None

    @property
    def threshold(self) -> float:
        """The score above which a single unit predicts the second of two classes."""
        return 0.0 if self.from_logits or self.margins else 0.5

    def label(self, values: np.ndarray) -> np.ndarray:
        """Return labels as the metrics expect them.

        Args:
            values: array (rows, ...).

        Returns:
            int64 (rows,) for classes, 0 or 1 for the binary task, float64 (rows,) for numbers, else `values`.

        Raises:
            DataError: a binary label is neither 0 nor 1 (-1 nor 1 for margins), or a class is out of range.
        """
        return TASKS[self.task].read_labels(self, values)

    def prediction(self, values: np.ndarray) -> np.ndarray:
        """Return predictions as the metrics expect them: probabilities for classes, (rows,) for single numbers.

        Margins are passed through the logistic function: it keeps their order and maps the decision at 0 to 0.5.
        """
        task = TASKS[self.task]
        if task.activation and (self.from_logits or self.margins):
            values = _sigmoid(values) if task.activation == "sigmoid" else _softmax(values)
        if task.shape == "scalar":
            return self.one_per_row(values, "prediction")
        if task.shape == "none":
            return np.zeros(len(values))
        return _flatten_single(values) if task.shape == "row" else values

    def one_per_row(self, values: np.ndarray, what: str) -> np.ndarray:
        if values.size != len(values):
            raise DataError(
                f"the {what} of output {self.name!r}: expected one number per row for the task {self.task!r}, "
                f"received shape {values.shape[1:]} per row; set Evaluator.task to another task"
            )
        return values.reshape(len(values))


def infer_task(loss: str, label: Any, output: Any, class_names: Any) -> str:
    """Return the task of an output, inferred from its loss, its label and their shapes.

    Args:
        loss: name of the loss function, such as `"binary_crossentropy"`; "" if there is none.
        label: symbolic tensor (rows, ...) of the label, or None if it is unknown.
        output: symbolic tensor (rows, ...) of the output.
        class_names: list of the names of the classes of the label, or None.
    """
    if loss == "ctc":  # of frames, which are not the tokens of the label
        return "loss"
    width = output.shape[-1] if len(output.shape) > 1 else 1
    names = len(class_names) if isinstance(class_names, (list, tuple)) else 0
    if "binary" in loss or has_margins(loss):
        return "binary" if width == 1 else "multi_label"
    if width == 1:
        return "binary" if names == 2 and len(output.shape) <= 2 else "regression"
    if "categorical" in loss or names == width or _holds_class_numbers(label, output):
        return "tokens" if len(output.shape) > 2 else "multi_class"
    return "regression" if not loss or label is None or _same_size(label, output) else "loss"


def classes_of_units(names: Sequence[str] | None, units: int | None) -> tuple[str, ...] | None:
    """Return the names of the classes that an output scores, or None if they do not fit: two for a single unit."""
    if names is None or len(names) != (2 if units == 1 else units):
        return None
    return tuple(map(str, names))


def has_margins(loss: str) -> bool:
    """Return whether a loss trains margins: Keras's `hinge` and `squared_hinge`, which convert labels 0 to -1."""
    return loss in ("hinge", "squared_hinge")


def _holds_class_numbers(label: Any, output: Any) -> bool:
    """Return whether a label is an integer per row where the output has one score per class."""
    if label is None or "int" not in str(label.dtype):
        return False
    return len(label.shape) < len(output.shape) or label.shape[-1] == 1


def _same_size(label: Any, output: Any) -> bool:
    """Return whether the rows of a label may have as many numbers as those of an output, or one for all of them."""
    shapes = [tuple(one.shape[1:]) for one in (label, output)]
    if any(None in shape for shape in shapes):
        return len(shapes[0]) == len(shapes[1]) and all(a == b or None in (a, b) for a, b in zip(*shapes))
    return math.prod(shapes[0]) in (1, math.prod(shapes[1]))


def _binary_labels(output: Output, values: np.ndarray) -> np.ndarray:
    flat = output.one_per_row(values, "label")
    if output.margins and (flat == -1).any() and not (flat == 0).any():
        flat = np.where(flat == -1, 0, flat)
    wrong = ~np.isin(flat, (0, 1))
    if wrong.any():
        raise DataError(
            f"the label of output {output.name!r}: expected 0 or 1 for a binary task, received {flat[wrong][0]:g}; "
            f'set Evaluator.task={{"{output.name}": "regression"}} if it is a number'
        )
    return flat.astype(np.int64)


def _class_labels(output: Output, values: np.ndarray) -> np.ndarray:
    if values.ndim > 1 and values.shape[-1] > 1:
        return values.argmax(axis=-1).astype(np.int64)
    numbers = output.one_per_row(values, "label")
    classes = len(output.classes or ())
    wrong = ~((numbers >= 0) & (numbers < classes))
    if classes and wrong.any():
        raise DataError(
            f"the label of output {output.name!r}: expected a class from 0 to {classes - 1}, received "
            f"{numbers[wrong][0]:g}; a label that training did not see may be -1: leave such rows out, or give the "
            "label's lookup all classes"
        )
    return numbers.astype(np.int64)


def _multi_labels(output: Output, values: np.ndarray) -> np.ndarray:
    return np.where(values == -1, 0, values) if output.margins and not (values == 0).any() else values


def _no_labels(output: Output, values: np.ndarray) -> np.ndarray:
    return np.zeros(len(values))


def _number_labels(output: Output, values: np.ndarray) -> np.ndarray:
    return _flatten_single(values.astype(np.float64))


def _binary_metrics(output: Output, settings: EvaluatorSettings, label_mean: Any) -> tuple[Metrics, ...]:
    from kerasline.components.metrics.binary import BinaryLosses, BinaryScores, BinaryThresholds

    families = (
        BinaryThresholds(settings.decision_thresholds, settings.beta),
        BinaryScores({str(kind): values for kind, values in settings.operating_points.items()}),
    )
    return families if output.margins else (*families, BinaryLosses())  # log loss is defined for probabilities only


def _multi_class_metrics(output: Output, settings: EvaluatorSettings, label_mean: Any) -> tuple[Metrics, ...]:
    from kerasline.components.metrics.multi_class import Confidence, Confusion, MultiClassLosses

    classes, of_classes = len(output.classes or ()), _class_options(output, settings)
    return (
        Confusion(classes, **of_classes),
        MultiClassLosses(min(settings.top_k, classes)),
        Confidence(),
        *_one_vs_rest(classes, of_classes),
    )


def _multi_label_metrics(output: Output, settings: EvaluatorSettings, label_mean: Any) -> tuple[Metrics, ...]:
    from kerasline.components.metrics.multi_label import MultiLabelMetrics

    classes, of_classes = len(output.classes or ()), _class_options(output, settings)
    threshold, top = settings.decision_thresholds[0], min(settings.top_k, classes)
    return MultiLabelMetrics(classes, threshold=threshold, top=top, **of_classes), *_one_vs_rest(classes, of_classes)


def _class_options(output: Output, settings: EvaluatorSettings) -> dict[str, Any]:
    """Return the weights of the classes, and the names by index of the classes to measure one by one."""
    classes, weights = output.classes or (), settings.class_weights
    named = {place: name for place, name in enumerate(classes) if name in settings.class_metrics}
    has_weights = not set(classes).isdisjoint(weights)
    return {"weights": np.array([weights.get(name, 0.0) for name in classes]) if has_weights else None, "named": named}


def _one_vs_rest(classes: int, of_classes: dict[str, Any]) -> tuple[Metrics, ...]:
    from kerasline.components.metrics.one_vs_rest import MOST_CLASSES, OneVsRestScores

    return (OneVsRestScores(classes, **of_classes),) if 1 < classes <= MOST_CLASSES else ()


def _regression_metrics(output: Output, settings: EvaluatorSettings, label_mean: Any) -> tuple[Metrics, ...]:
    from kerasline.components.metrics.regression import RegressionErrors, ResidualQuantiles

    return RegressionErrors(label_mean, settings.loss_quantiles), ResidualQuantiles()


def _ranking_metrics(output: Output, settings: EvaluatorSettings, label_mean: Any) -> tuple[Metrics, ...]:
    from kerasline.components.metrics.ranking import QuerySizes, RankingMetrics

    query = settings.query or ""
    return RankingMetrics(query, at=settings.ndcg_at), QuerySizes(query)


def _token_metrics(output: Output, settings: EvaluatorSettings, label_mean: Any) -> tuple[Metrics, ...]:
    from kerasline.components.metrics.row_means import StoredSums

    return (StoredSums(_token_sums(settings)),)


def _token_sums(settings: EvaluatorSettings) -> SumMetrics:
    from kerasline.components.metrics.tokens import TokenMetrics

    return TokenMetrics(settings.padding)


def _text_metrics(output: Output, settings: EvaluatorSettings, label_mean: Any) -> tuple[Metrics, ...]:
    from kerasline.components.metrics.text import TextMetrics

    return (TextMetrics(settings.text_metrics, **dict(settings.text_options)),)


def _detection_metrics(output: Output, settings: EvaluatorSettings, label_mean: Any) -> tuple[Metrics, ...]:
    from kerasline.components.metrics.detection import PREDICTED, DetectionMetrics

    columns = settings.detection_columns
    if output.answer:  # the answers have the names of the metrics already
        columns = {name: column for name, column in columns.items() if name not in PREDICTED}
    return (DetectionMetrics(columns, boxes=settings.box_format, replicates=settings.replicates),)


def _distribution_metrics(output: Output, settings: EvaluatorSettings, label_mean: Any) -> tuple[Metrics, ...]:
    from kerasline.components.metrics.distances import FeatureDistances

    return (FeatureDistances(),)


def _sound_metrics(output: Output, settings: EvaluatorSettings, label_mean: Any) -> tuple[Metrics, ...]:
    from kerasline.components.metrics.row_means import StoredSums

    return (StoredSums(_sound_sums(settings)),)


def _sound_sums(settings: EvaluatorSettings) -> SumMetrics:
    from kerasline.components.metrics.sound import MelCepstralDistortion

    return MelCepstralDistortion()


def _binary_comparison(settings: EvaluatorSettings) -> tuple[Metrics, ...]:
    from kerasline.components.metrics.baseline_comparison import BaselineComparison

    return (BaselineComparison(threshold=settings.decision_thresholds[0]),)


def _class_comparison(settings: EvaluatorSettings) -> tuple[Metrics, ...]:
    from kerasline.components.metrics.baseline_comparison import BaselineComparison

    return (BaselineComparison(classes=True),)


def _number_comparison(settings: EvaluatorSettings) -> tuple[Metrics, ...]:
    from kerasline.components.metrics.baseline_comparison import BaselineComparison

    return (BaselineComparison(),)


def _detection_columns(settings: EvaluatorSettings) -> list[str]:
    from kerasline.components.metrics.detection import COLUMNS

    return [settings.detection_columns.get(name, name) for name in COLUMNS]


TASKS: dict[str, Task] = {
    "binary": Task(
        read_labels=_binary_labels,
        shape="scalar",
        activation="sigmoid",
        metrics=_binary_metrics,
        comparison=_binary_comparison,
        headline=("accuracy", "loss", "roc_auc", "auc"),
    ),
    "multi_class": Task(
        read_labels=_class_labels,
        activation="softmax",
        metrics=_multi_class_metrics,
        comparison=_class_comparison,
        headline=("accuracy", "loss"),
        has_classes=True,
    ),
    "multi_label": Task(
        read_labels=_multi_labels,
        activation="sigmoid",
        metrics=_multi_label_metrics,
        comparison=_binary_comparison,
        headline=("micro_f1", "subset_accuracy", "loss"),
        has_classes=True,
    ),
    "regression": Task(
        read_labels=_number_labels,
        shape="row",
        metrics=_regression_metrics,
        comparison=_number_comparison,
        headline=("root_mean_squared_error", "r2", "loss"),
    ),
    "ranking": Task(read_labels=_number_labels, shape="row", metrics=_ranking_metrics),
    "tokens": Task(activation="softmax", metrics=_token_metrics, sums=_token_sums, samples="never"),
    "text": Task(metrics=_text_metrics, samples="always"),
    "loss": Task(read_labels=_no_labels, shape="none", metrics=lambda *_: ()),
    "detection": Task(metrics=_detection_metrics, label_in_columns=True, columns=_detection_columns, samples="always"),
    "distribution": Task(metrics=_distribution_metrics, samples="never"),
    "sound": Task(metrics=_sound_metrics, sums=_sound_sums, has_files=True),
}


def required_columns(outputs: Sequence[Output], settings: EvaluatorSettings, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the raw columns, among those that exist, that the metrics of some outputs need."""
    found = [settings.query] if settings.query else []
    for output in outputs:
        found += TASKS[output.task].columns(settings)
    return tuple(dict.fromkeys(name for name in found if name in columns))


def stored_sums(outputs: Sequence[Output], settings: EvaluatorSettings) -> dict[str, SumMetrics]:
    """Return by output the metrics whose sums are stored instead of the predictions."""
    return {o.name: sums(settings) for o in outputs if (sums := TASKS[o.task].sums) is not None}


def _flatten_single(values: np.ndarray) -> np.ndarray:
    """Reshape (rows, 1) to (rows,), and return any other shape unchanged."""
    return values.reshape(len(values)) if values.ndim > 1 and values[:1].size <= 1 else values


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(logits.astype(np.float64)))  # never overflows
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def _softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
