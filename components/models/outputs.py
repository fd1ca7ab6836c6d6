"""Find the outputs of a model that can be evaluated, and the task of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from kerasline.components.core.artifacts import Preprocessing
from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.models.tasks import TASKS, Output, has_margins, infer_task

if TYPE_CHECKING:
    from kerasline.components.evaluator.settings import EvaluatorSettings
    from kerasline.components.models.predictors import KerasPredictor


def model_outputs(
    predictor: KerasPredictor,
    preprocessing: Preprocessing,
    settings: EvaluatorSettings,
    label_columns: Mapping[str, Any],
) -> tuple[Output, ...]:
    """Return the outputs to evaluate: those with a loss or a task in `settings`, or the only one.

    Args:
        label_columns: symbolic tensors, by name, of labels that are raw columns.

    Raises:
        ParameterError: a task is unknown, it is set for an output that does not exist, or an output has no label.
    """
    from kerasline.components.models.compile_config import compiled_losses, outputs_by_name

    prepared, model = predictor.load()
    tensors = outputs_by_name(model, model.output)
    return find_outputs(tensors, compiled_losses(model), {**prepared.output, **label_columns}, preprocessing, settings)


class LossFacts(Protocol):
    """What is known of the loss of an output."""

    @property
    def kind(self) -> str: ...

    @property
    def from_logits(self) -> bool: ...


def find_outputs(
    tensors: Mapping[str, Any],
    losses: Mapping[str, LossFacts],
    labels: Mapping[str, Any],
    preprocessing: Preprocessing,
    settings: EvaluatorSettings,
) -> tuple[Output, ...]:
    """Return the outputs to evaluate, as `model_outputs` does, without the model.

    Args:
        tensors: outputs of the model by name, with `dtype` and `shape`.
        losses: the compiled loss by output.
        labels: labels by name, with `dtype` and `shape`.
    """
    names = list(tensors)
    tasks = settings.task if isinstance(settings.task, dict) else dict.fromkeys(names, settings.task)
    for name, task in tasks.items():
        if name not in names:
            raise ParameterError(f"Evaluator.task: the model has no output {name!r}; {nearest(name, names)}")
        if task is not None and task not in TASKS:
            raise ParameterError(f"Evaluator.task: no task {task!r}; {nearest(task, TASKS)}")
    label_of = label_by_output(names, preprocessing)
    found = []
    for name, tensor in tensors.items():
        loss = losses[name].kind if name in losses else ""
        class_names = label_class_names(preprocessing, label_of.get(name, name))
        label = labels.get(label_of.get(name, name))
        inferred = "ranking" if settings.query else infer_task(loss, label, tensor, class_names)
        task = tasks.get(name) or inferred
        width, classes = tensor.shape[-1], None
        if TASKS[task].has_classes:
            named = class_names is not None and len(class_names) == width
            classes = tuple(map(str, class_names if named and class_names else range(width or 2)))
        if tasks.get(name) or name in losses or len(names) == 1:
            logits = name in losses and losses[name].from_logits
            found.append(Output(name, task, classes, logits, has_margins(loss)))
    _check_labels(found, label_of, preprocessing.labels, settings)
    return tuple(found)


def label_by_output(outputs: Sequence[str], preprocessing: Preprocessing) -> dict[str, str]:
    """Return the name of the label of each output that has one.

    A single label is that of every output. Several belong to the outputs of their names. Without labels, the target of
    an output is the feature of its name, or the only feature.
    """
    labels = preprocessing.labels
    if len(labels) == 1:
        return dict.fromkeys(outputs, labels[0])
    if labels:
        return {name: name for name in outputs if name in labels}
    features = preprocessing.features
    if len(features) == len(outputs) == 1:
        return {outputs[0]: features[0]}
    return {name: name for name in outputs if name in features}


def label_class_names(preprocessing: Preprocessing, label: str) -> list[str] | None:
    """Return the names of the classes of a label, or None if it has none."""
    names = preprocessing.facts["class_names"]
    return names.get(label) if isinstance(names, dict) else names


def _check_labels(
    outputs: Sequence[Output], label_of: Mapping[str, str], labels: Sequence[str], settings: EvaluatorSettings
) -> None:
    if not outputs:
        raise ParameterError("Evaluator.task: the model has several outputs and no loss; set the task of each output")
    for output in outputs:
        if not (output.name in label_of or settings.reference or TASKS[output.task].label_in_columns):
            raise ParameterError(
                f"Evaluator: output {output.name!r} has no label of that name, by which it could be judged; "
                f"{nearest(output.name, labels)}"
            )
