"""Check Explainer's parameters against the descriptions of preprocessing and model, before training."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kerasline.components.core.artifacts import Model, Preprocessing
from kerasline.components.core.errors import DataError, ParameterError, nearest
from kerasline.components.explainer.settings import ExplainerSettings
from kerasline.components.models.tasks import TASKS, infer_task


def check_settings(settings: ExplainerSettings, preprocessing: Preprocessing, model: Model | None) -> None:
    """Raise a KeraslineError if a parameter does not fit.

    Args:
        preprocessing: the output of Transform.
        model: the model, which need not be trained, or None if it does not exist yet.
    """
    if not preprocessing.labels:
        raise DataError("there is no label to explain errors by: name an output or a column as Transform.label")
    _check("features", "the model uses no column", settings.features or (), preprocessing.served_inputs)
    if model is None or not model.outputs:
        return
    outputs = model.outputs
    _check("output", "the model has no output", [settings.output] if settings.output else (), outputs)
    if isinstance(settings.baseline, dict):
        layers = [layer["name"] for layer in model.summary["layers"] if layer["class"] == "Embedding"]
        known = {*preprocessing.features, *preprocessing.served_inputs, *layers}
        _check("baseline", "no differentiable input", settings.baseline, known)
    labels = preprocessing.labels
    output = settings.output or next((name for name in outputs if name in labels), next(iter(outputs)))
    label = labels[0] if len(labels) == 1 else output
    _check_output(settings, preprocessing, model, output, label)


def _check_output(
    settings: ExplainerSettings, preprocessing: Preprocessing, model: Model, output: str, label: str
) -> None:
    loss: Mapping[str, Any] = model.summary["losses"].get(output, {"kind": ""})
    form, names = model.outputs[output], preprocessing.facts["class_names"]
    names = names.get(label) if isinstance(names, dict) else names
    task = infer_task(loss["kind"], preprocessing.outputs.get(label), form, names)
    if settings.metric in (None, "loss") and not loss["kind"]:
        raise ParameterError("Explainer.metric: the model was compiled without a loss for this output; name a metric")
    if settings.metric == "accuracy" and task == "regression":
        raise ParameterError(
            "Explainer.metric: accuracy is for classes, and this output gives numbers; try 'mean_absolute_error'"
        )
    if isinstance(settings.metric, str) and settings.metric not in ("loss", "accuracy"):
        from kerasline.components.explainer.measures import keras_functions

        _check("metric", "no metric", [settings.metric], [*keras_functions(), "loss", "accuracy"])
    units = form.shape[-1] if form.shape is not None and len(form.shape) > 1 else 1
    named = names if names and TASKS[task].probabilities and len(names) == units else None
    if settings.classes and units is not None:
        classes = {str(number) for number in range(units)} | set(map(str, named or ()))
        _check("classes", "no class", map(str, settings.classes), classes)


def _check(parameter: str, problem: str, names: Any, known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ParameterError(f"Explainer.{parameter}: {problem} {name!r}; {nearest(name, known)}")
