"""Which outputs of a model are judged, and what each answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from kerasline.components.core.artifacts import Preprocessing
from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.evaluator.compiled import compiled_losses, output_names
from kerasline.components.models.predictors import KerasPredictor
from kerasline.components.models.task import Output, Task, task_of


def outputs_of(predictor: KerasPredictor, preprocessing: Preprocessing, settings: Any) -> tuple[Output, ...]:
    """The model's outputs and what each answers; of several those that have a loss, or are given a task.

    Raises:
        ParameterError: there is no such task, or output that one is given to, or an output has no label.
    """
    model = predictor.load()[1]
    losses, names = compiled_losses(model), output_names(model)
    tensors = dict(zip(names, _flat(model.output)))
    tasks = settings.task if isinstance(settings.task, dict) else dict.fromkeys(names, settings.task)
    for name in tasks:
        if name not in names:
            raise ParameterError(f"Evaluator.task: the model has no output {name!r}; {nearest(name, names)}")
        if tasks[name] is not None and tasks[name] not in get_args(Task):
            raise ParameterError(f"Evaluator.task: no task {tasks[name]!r}; {nearest(tasks[name], get_args(Task))}")
    class_names = preprocessing.facts["class_names"]
    found = []
    for name in names:
        known_classes = class_names.get(name) if isinstance(class_names, dict) else class_names
        by_loss = "ranking" if settings.query else task_of(losses.get(name), tensors[name], known_classes)
        task = tasks.get(name) or by_loss
        width = tensors[name].shape[-1]
        classes = None
        if task in ("multi_class", "multi_label"):
            named = isinstance(known_classes, (list, tuple)) and len(known_classes) == width
            classes = tuple(map(str, known_classes if named else range(width or 2)))
        logits = name in losses and losses[name].from_logits
        if tasks.get(name) or name in losses or len(names) == 1:
            found.append(Output(name, task, classes, logits))
    _check_labels(found, preprocessing.labels, settings)
    return tuple(found)


def _check_labels(outputs: Sequence[Output], labels: Sequence[str], settings: Any) -> None:
    """Raises a ParameterError where it is not known what is true of an output."""
    if not outputs:
        raise ParameterError("Evaluator.task: the model has several outputs and no loss; say what each answers")
    for output in outputs:
        told = len(labels) == 1 or output.name in labels
        if not (told or settings.reference or output.task == "detection"):
            raise ParameterError(
                f"Evaluator: output {output.name!r} has no label of that name, by which it could be judged; "
                f"{nearest(output.name, labels)}"
            )


def _flat(output: Any) -> list[Any]:
    if isinstance(output, dict):
        return [output[name] for name in sorted(output)]
    return list(output) if isinstance(output, (list, tuple)) else [output]
