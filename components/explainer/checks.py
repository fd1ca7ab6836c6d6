"""Check Explainer's parameters against the descriptions of preprocessing and model, before training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kerasline.components.core.artifacts import Model, Preprocessing
from kerasline.components.core.errors import DataError, check_known
from kerasline.components.explainer.settings import ExplainerSettings, check_metric
from kerasline.components.models.outputs import label_by_output, label_class_names
from kerasline.components.models.tasks import TASKS, infer_task


def check_settings(settings: ExplainerSettings, preprocessing: Preprocessing, model: Model | None) -> None:
    """Raise a KeraslineError if a parameter does not fit.

    Args:
        preprocessing: the output of Transform.
        model: the model, which need not be trained, or None if it does not exist yet.
    """
    if not preprocessing.labels:
        raise _no_label()
    check_known("Explainer.features", "the model uses no column", settings.features or (), preprocessing.served_inputs)
    if model is None or not model.outputs:
        return
    label, output = label_and_output(list(model.outputs), preprocessing, settings.output)
    if isinstance(settings.baseline, dict):
        layers = [layer["name"] for layer in model.summary["layers"] if layer["class"] == "Embedding"]
        known = {*preprocessing.features, *preprocessing.served_inputs, *layers}
        check_known("Explainer.baseline", "no differentiable input", settings.baseline, known)
    _check_output(settings, preprocessing, model, output, label)


def _check_output(
    settings: ExplainerSettings, preprocessing: Preprocessing, model: Model, output: str, label: str
) -> None:
    loss: Mapping[str, Any] = model.summary["losses"].get(output, {"kind": ""})
    form, names = model.outputs[output], label_class_names(preprocessing, label)
    task = infer_task(loss["kind"], preprocessing.outputs.get(label), form, names)
    check_metric(settings.metric, has_loss=bool(loss["kind"]), task=task, keras_names=_keras_names)
    units = form.shape[-1] if form.shape is not None and len(form.shape) > 1 else 1
    named = names if names and TASKS[task].probabilities and len(names) == units else None
    if settings.classes and units is not None:
        classes = {str(number) for number in range(units)} | set(map(str, named or ()))
        check_known("Explainer.classes", "no class", map(str, settings.classes), classes)


def label_and_output(outputs: Sequence[str], preprocessing: Preprocessing, requested: str | None) -> tuple[str, str]:
    """Return the names of the label and of the output to explain: the requested one, or the first with a label.

    Raises:
        ParameterError: the model has no such output.
        DataError: there is no label, or none of the requested output.
    """
    check_known("Explainer.output", "the model has no output", [requested] if requested is not None else (), outputs)
    label_of = label_by_output(outputs, preprocessing)
    if not label_of:
        raise _no_label()
    output = requested or next(name for name in outputs if name in label_of)
    if output not in label_of:
        raise DataError(f"output {output!r} has no label of its name; Transform.label names {', '.join(label_of)}")
    return label_of[output], output


def _no_label() -> DataError:
    return DataError("there is no label to explain errors by: name an output or a column as Transform.label")


def _keras_names() -> Collection[str]:
    from kerasline.components.explainer.row_metrics import keras_functions  # imports Keras

    return keras_functions()
