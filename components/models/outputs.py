"""Find the outputs of a model that can be evaluated, and the task of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from kerasline.components.core.artifacts import Preprocessing
from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.models.tasks import TASKS, Output, classes_of_units, has_margins, infer_task

if TYPE_CHECKING:
    from kerasline.components.evaluator.settings import EvaluatorSettings
    from kerasline.components.models.predictors import KerasPredictor


def model_outputs(
    predictor: KerasPredictor,
    preprocessing: Preprocessing,
    settings: EvaluatorSettings,
    label_columns: Mapping[str, Any],
    *,
    answers_judged: bool = False,
) -> tuple[Output, ...]:
    """Return the outputs to evaluate: those with a loss or a task in `settings`, or the only one.

    Args:
        label_columns: symbolic tensors, by name, of labels that are raw columns.
        answers_judged: whether answers are judged instead of outputs without a loss.

    Raises:
        ParameterError: a task is unknown, it is set for an output that does not exist, or an output has no label.
    """
    from kerasline.components.models.compile_config import compiled_losses, outputs_by_name

    loaded = predictor.load()
    tensors = outputs_by_name(loaded.model, loaded.model.output)
    labels = {**loaded.preprocessing.output, **label_columns}
    losses = compiled_losses(loaded.model)
    return find_outputs(tensors, losses, labels, preprocessing, settings, answers_judged=answers_judged)


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
    *,
    answers_judged: bool = False,
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
        if task == "detection" and settings.decode is None:
            raise ParameterError("Evaluator.decode: the task 'detection' needs a function that returns boxes")
        width, classes = units(tensor), None
        if TASKS[task].has_classes or task == "binary":
            classes = classes_of_units(class_names, width)
        if TASKS[task].has_classes:
            classes = classes or tuple(map(str, range(width or 2)))
        if tasks.get(name) or name in losses or (len(names) == 1 and not answers_judged):
            logits = name in losses and losses[name].from_logits
            reference = settings.reference if isinstance(settings.reference, str) else None
            found.append(Output(name, task, classes, logits, has_margins(loss), reference=reference))
    if not found and not answers_judged:
        raise ParameterError("Evaluator.task: the model has several outputs and no loss; set the task of each output")
    _check_labels(found, label_of, preprocessing.labels, settings)
    return tuple(found)


def labelled_output(class_names: Any, outputs: Mapping[str, Any], losses: Mapping[str, LossFacts]) -> Output | None:
    """Return the output whose class the served model adds as `label`, the name of a class, or None.

    It is the only output if it is not itself named `label` and predicts one of several named classes: that with the
    highest score, or for a single unit the second of two if the score is above `Output.threshold`.

    Args:
        class_names: names of the classes of the label, by label if there are several, or None.
        outputs: what the model returns, by name, with a `shape` each.
        losses: the compiled loss by output.
    """
    if not isinstance(class_names, list) or len(outputs) != 1 or "label" in outputs:
        return None
    ((name, output),) = outputs.items()
    loss, classes = losses.get(name), classes_of_units(class_names, units(output))
    kind = loss.kind if loss else ""
    task = infer_task(kind, None, output, class_names)
    is_single = task == "binary" and len(output.shape) <= 2
    if classes is None or not (is_single or TASKS[task].one_class):
        return None
    return Output(name, task, classes, bool(loss and loss.from_logits), has_margins(kind))


def units(output: Any) -> int | None:
    """Return the size of the last axis of an output, or 1 if it has none but the rows."""
    return output.shape[-1] if len(output.shape) > 1 else 1


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
    for output in outputs:
        if not (output.name in label_of or settings.reference or TASKS[output.task].label_in_columns):
            raise ParameterError(
                f"Evaluator: output {output.name!r} has no label of that name, by which it could be judged; "
                f"{nearest(output.name, labels)}"
            )
