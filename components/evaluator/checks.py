"""Check the parameters of Evaluator against the data and a description of the model, before training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pyarrow as pa

from kerasline.components.core.artifacts import Artifact, Examples, Model, Preprocessing, SavedModel
from kerasline.components.core.errors import DataError, ParameterError, check_known, nearest
from kerasline.components.data.arrow_types import is_bytes, is_list
from kerasline.components.data.multivalent import is_nested_list
from kerasline.components.evaluator.families import keras_direction, keras_metrics, metric_families
from kerasline.components.evaluator.settings import (
    DROPS,
    NEAREST_SPLIT,
    Bounds,
    Buckets,
    EvaluatorSettings,
    Slicing,
    slicing_name,
    slicing_parts,
)
from kerasline.components.metrics.baseline_comparison import NAMES as COMPARISONS
from kerasline.components.metrics.text import DIRECTIONS as TEXT_METRICS
from kerasline.components.models import size_and_latency
from kerasline.components.models.judged_answers import check_detection_columns, form_of, joined
from kerasline.components.models.judges import NO_ANSWER, judged_outputs
from kerasline.components.models.outputs import find_outputs
from kerasline.components.models.tasks import TASKS, Output

CONNECT_BASELINE = 'connect Evaluator.baseline, for example to LastBlessed("saved_model")'


def check_settings(
    settings: EvaluatorSettings, inputs: Any, *, has_baseline: bool, has_saved_model: bool = False, judges: int = 0
) -> None:
    """Check the parameters against what is known of the inputs.

    Args:
        inputs: as for `Evaluator.check`.
        has_baseline, has_saved_model: whether these inputs are connected.
        judges: number of edges of the input `judges`.

    Raises:
        KeraslineError: a parameter is wrong, or a label has no column.
    """
    if judges and not has_saved_model:
        raise ParameterError(NO_ANSWER)
    # Once the model is trained, bounds that compare with no baseline refuse it instead.
    check_parameters(settings, has_baseline=has_baseline or inputs.model is not None, has_saved_model=has_saved_model)
    for name in settings.thresholds if not has_baseline else ():
        if name.rpartition("/")[2] in COMPARISONS:
            raise ParameterError(f"Evaluator.thresholds: {name!r} needs a baseline; {CONNECT_BASELINE}")
    if inputs.examples is not None:
        check_columns(settings, inputs.examples.schema())
        _check_nearest(settings, inputs.examples)
    is_known = None not in (inputs.examples, inputs.preprocessing, inputs.model) and inputs.model.outputs
    if is_known and (inputs.saved_model is not None or not has_saved_model) and len(inputs.judges) == judges:
        _check_model(settings, inputs, has_baseline)


def _check_nearest(settings: EvaluatorSettings, examples: Examples) -> None:
    name = settings.nearest
    if name is None:
        return
    kind = examples.schema().field(name).type
    if not is_bytes(kind):
        raise ParameterError(f"Evaluator.nearest: expected a column of encoded images, and {name!r} is {kind}")
    if NEAREST_SPLIT not in examples.splits:
        raise ParameterError(
            f"Evaluator.nearest: expected data with the split {NEAREST_SPLIT!r}, whose pictures are compared; "
            f"received {', '.join(examples.splits)}"
        )


def planned_outputs(
    settings: EvaluatorSettings,
    examples: Examples,
    preprocessing: Preprocessing,
    model: Model,
    saved_model: SavedModel | None = None,
    judges: Mapping[str, Artifact] = MappingProxyType({}),
) -> tuple[tuple[Output, ...], dict[str, Any]]:
    """Return the outputs and answers to evaluate and the compiled losses by output, without loading the model.

    Raises:
        KeraslineError: a task does not fit, or a label has no column.
    """
    schema, weight = examples.schema(), preprocessing.facts["sample_weight"]
    labels = dict(preprocessing.outputs)
    for name in [*preprocessing.labels, *([weight] if weight else [])]:
        if name not in labels:
            form = form_of(schema, name)
            if form is None:
                raise DataError(f"the data has no column {name!r}, the label or weight; {nearest(name, schema.names)}")
            labels[name] = form
    losses = {name: SimpleNamespace(**loss) for name, loss in model.summary["losses"].items()}
    judged, of_network = judged_outputs(saved_model, judges, schema, preprocessing, settings)
    outputs = find_outputs(model.outputs, losses, labels, preprocessing, of_network, answers_judged=bool(judged))
    return joined(outputs, judged), losses


def _check_model(settings: EvaluatorSettings, inputs: Any, has_baseline: bool) -> None:
    outputs, losses = planned_outputs(
        settings, inputs.examples, inputs.preprocessing, inputs.model, inputs.saved_model, inputs.judges
    )

    def keras_names() -> dict[str, list[str]]:
        found = keras_metrics(inputs.model.load(), settings)
        return {output: [metric.name for metric in metrics] for output, metrics in found.items()}

    if any(isinstance(metric, (str, dict)) for metric in settings.metrics):
        keras_names()
    check_thresholds(settings, outputs, losses, keras_names, has_baseline=has_baseline)


def check_parameters(settings: EvaluatorSettings, *, has_baseline: bool, has_saved_model: bool = False) -> None:
    """Check the parameters alone.

    Args:
        has_baseline, has_saved_model: whether these inputs are connected.

    Raises:
        ParameterError: a task, a metric of texts or a slicing does not exist, or a bound cannot apply.
    """
    tasks = settings.task.values() if isinstance(settings.task, dict) else [settings.task] if settings.task else []
    for task in tasks:
        if task not in TASKS:
            raise ParameterError(f"Evaluator.task: no task {task!r}; {nearest(task, TASKS)}")
        if task == "ranking" and not settings.query:
            raise ParameterError("Evaluator.query: the task 'ranking' needs the column that identifies the query")
        if task == "detection" and settings.decode is None and not has_saved_model:
            raise ParameterError("Evaluator.decode: the task 'detection' needs a function that returns boxes")
    check_known("Evaluator.text_metrics", "no metric of texts", settings.text_metrics, TEXT_METRICS)
    check_detection_columns(settings, None)
    slicings = [slicing_name(slicing) for slicing in settings.slices]
    check_known("Evaluator.reference_slices", "no slicing", settings.reference_slices, slicings)
    for name, given in settings.thresholds.items():
        for bounds in given if isinstance(given, list) else [given]:
            check_bounds(name, bounds, slicings)
            if has_drop(bounds) and not has_baseline and bounds.if_unmeasured == "fail":
                raise ParameterError(
                    f"Evaluator.thresholds: {name!r} has {' and '.join(k for k in bounds.kinds if k in DROPS)}, but no "
                    f"baseline is connected; {CONNECT_BASELINE}"
                )


def check_columns(settings: EvaluatorSettings, schema: pa.Schema) -> None:
    """Check the columns of slices and of detected objects. `Component.check` checks the others.

    Raises:
        ParameterError: a column does not exist, or its type does not fit.
    """
    check_slicings(settings.slices, schema, where="Evaluator.slices")
    check_detection_columns(settings, schema)


def check_thresholds(
    settings: EvaluatorSettings,
    outputs: Sequence[Output],
    losses: Collection[str],
    keras_metrics: Callable[[], Mapping[str, Collection[str]]],
    *,
    has_baseline: bool = False,
) -> None:
    """Check that the model has the metrics that the thresholds name, and the classes that the settings name.

    Args:
        outputs: the outputs to evaluate.
        losses: names of the outputs with a compiled loss.
        keras_metrics: returns the names of the Keras metrics by output. It is called only if a threshold names no other
            metric.
        has_baseline: whether the input `baseline` is connected.

    Raises:
        ParameterError: a threshold names an unknown metric, or a drop of a metric without a direction; or no output has
            a class.
    """
    known: dict[str, str | None] = dict.fromkeys(size_and_latency.NAMES, "down")
    known |= metric_directions(settings, outputs, losses, has_baseline=has_baseline)
    check_output_settings(settings, outputs)
    if not set(settings.thresholds) <= set(known):
        for output in outputs:
            names: dict[str, str | None] = {
                name: keras_direction(name) for name in keras_metrics().get(output.name, ())
            }
            known |= _full_names(outputs, output, names)
    check_known("Evaluator.thresholds", "the model has no metric", settings.thresholds, known)
    for name, given in settings.thresholds.items():
        for bounds in given if isinstance(given, list) else [given]:
            check_direction(name, bounds, known[name])


def check_output_settings(settings: EvaluatorSettings, outputs: Sequence[Output]) -> None:
    """Raise a ParameterError if no output has a class that the settings name, or operating points."""
    tasks = sorted({output.task for output in outputs})
    if settings.operating_points and "binary" not in tasks:
        raise ParameterError(
            f"Evaluator.operating_points: only binary outputs have them; the task of this model is {', '.join(tasks)}"
        )
    classes = {name for output in outputs if TASKS[output.task].has_classes for name in output.classes or ()}
    for parameter in ("class_metrics", "class_weights"):
        check_known(f"Evaluator.{parameter}", "no output has a class", getattr(settings, parameter), classes)


def metric_directions(
    settings: EvaluatorSettings, outputs: Sequence[Output], losses: Collection[str], *, has_baseline: bool = False
) -> dict[str, str | None]:
    """Return whether higher ("up") or lower ("down") is better, or neither, by metric, without Keras's metrics.

    Args:
        outputs: the outputs to evaluate.
        losses: names of the outputs with a compiled loss.
        has_baseline: whether the input `baseline` is connected.
    """
    known: dict[str, str | None] = {}
    for output in outputs:
        has_loss = output.name in losses
        for family in metric_families(output, settings, has_loss=has_loss, has_baseline=has_baseline):
            known |= _full_names(outputs, output, family.directions)
    return known


def check_slicings(slicings: Sequence[Slicing], schema: pa.Schema, *, where: str) -> None:
    """Check the slicings against the types of the raw columns.

    Args:
        where: name of the parameter, for messages.

    Raises:
        ParameterError: a column does not exist, has lists of lists, or is not a number though buckets are requested; or
            a slicing is given twice.
    """
    names = [slicing_name(slicing) for slicing in slicings]
    for name in names:
        if names.count(name) > 1:
            raise ParameterError(f"{where}: {name!r} is given twice")
    for part in (part for slicing in slicings for part in slicing_parts(slicing)):
        column = part if isinstance(part, str) else part.column
        if column not in schema.names:
            raise ParameterError(f"{where}: no column {column!r}; {nearest(column, schema.names)}")
        kind = schema.field(column).type
        if is_nested_list(kind):
            raise ParameterError(
                f"{where}: {column!r} holds lists of lists or tensors; slice by single values or lists"
            )
        kind = kind.value_type if is_list(kind) else kind
        if isinstance(part, Buckets) and (part.buckets is None) == (part.edges is None):
            raise ParameterError(f"{where}: {column!r}: give one of `buckets` and `edges`")
        if isinstance(part, Buckets) and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise ParameterError(f"{where}: {column!r} holds {kind}; buckets are for numbers")


def check_bounds(name: str, bounds: Bounds, slicings: Collection[str]) -> None:
    """Raise a ParameterError if the bounds of a metric cannot apply.

    Args:
        name: name of the metric.
        slicings: names of the slicings.
    """
    where = f"Evaluator.thresholds: {name!r}"
    if name in size_and_latency.NAMES and (bounds.slices or has_drop(bounds)):
        raise ParameterError(f"{where} is measured once, for the new model; expected `min` or `max` without `slices`")
    if bounds.slices and not slicings:
        raise ParameterError(f"{where} has bounds for slices, but Evaluator.slices is empty")
    for slicing in bounds.slicings:
        if slicing not in slicings:
            raise ParameterError(f"{where} has bounds for slices by {slicing!r}; {nearest(slicing, slicings)}")


def check_direction(name: str, bounds: Bounds, direction: str | None) -> None:
    """Raise a ParameterError if bounds limit the drop of a metric without a direction."""
    for kind in set(DROPS).intersection(bounds.kinds) if direction is None else ():
        raise ParameterError(
            f"Evaluator.thresholds: {kind} is set for {name!r}, a metric for which neither higher nor lower is better"
        )


def has_drop(bounds: Bounds) -> bool:
    """Return whether bounds compare with a baseline."""
    return not set(DROPS).isdisjoint(bounds.kinds)


def _full_names(
    outputs: Sequence[Output], output: Output, directions: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Return the names of metrics, and with several outputs also those prefixed with the output."""
    full = {f"{output.name}/{name}": direction for name, direction in directions.items()} if len(outputs) > 1 else {}
    return {**directions, **full}
