"""Find the answers of a served model that are compared with a reference, and the task of each.

A model with an answering function (see `answering`) returns other outputs than those that it is trained on. Its answers
are judged by references, which are raw columns or outputs of the preprocessing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import pyarrow as pa

from kerasline.components.core.artifacts import Preprocessing, SavedModel, TensorForm
from kerasline.components.core.errors import ParameterError, check_known, nearest
from kerasline.components.data.arrow_types import is_list, is_text
from kerasline.components.metrics.detection import COLUMNS, OPTIONAL, PREDICTED, TRUE
from kerasline.components.models.outputs import label_class_names, units
from kerasline.components.models.tasks import TASKS, Output, classes_of_units, infer_task

if TYPE_CHECKING:
    from kerasline.components.evaluator.settings import EvaluatorSettings

# The usual names of the answers of a detector, by what the metrics call them.
DETECTIONS: Mapping[str, str] = MappingProxyType(
    {"predicted_boxes": "boxes", "predicted_classes": "classes", "scores": "scores"}
)


def served_answers(model: SavedModel | None) -> dict[str, TensorForm]:
    """Return the answers of a model with an answering function, or none if it returns the outputs of the network."""
    if model is None or not model.manifest.get("answered_by"):
        return {}
    return TensorForm.by_name(model.manifest["output_specs"])


def network_settings(settings: EvaluatorSettings, answers: Collection[str]) -> EvaluatorSettings:
    """Return the settings that apply to the outputs of the network, if the served model has these answers."""
    if not answers:
        return settings
    tasks = settings.task if isinstance(settings.task, dict) else {}
    of_network = {name: task for name, task in tasks.items() if name not in answers}
    return replace(settings, task=of_network or None, reference=None, decode=None)


def find_answers(
    answers: Mapping[str, TensorForm], columns: pa.Schema, preprocessing: Preprocessing, settings: EvaluatorSettings
) -> tuple[Output, ...]:
    """Return the answers to judge: those that `task` or `reference` name, or the one that they apply to.

    Args:
        answers: the answers of the served model.
        columns: the raw columns.

    Raises:
        ParameterError: a task or reference is missing, unknown or does not fit.
    """
    if not answers:
        return ()
    return tuple(
        _judged(name, task, answers, columns, preprocessing, settings)
        for name, task in _tasks(settings, answers).items()
    )


def judged_answers_of(
    stage: str,
    answers: Mapping[str, TensorForm],
    columns: pa.Schema,
    preprocessing: Preprocessing,
    settings: EvaluatorSettings,
) -> tuple[Output, ...]:
    """Return the answers that a stage other than Evaluator judges by parameters of the same names, at least one.

    Raises:
        ParameterError: as `find_answers`, or there is no reference.
    """
    try:
        check_references(settings, columns, preprocessing, answers)
        check_detection_columns(settings, columns)
        found = find_answers(answers, columns, preprocessing, settings)
    except ParameterError as error:
        raise ParameterError(str(error).replace("Evaluator.", f"{stage}.", 1)) from error
    if not found:
        raise ParameterError(
            f"{stage}.reference: name the column with the true value of the answers {', '.join(answers)}, which judges "
            "them"
        )
    return found


def joined(outputs: tuple[Output, ...], answers: tuple[Output, ...]) -> tuple[Output, ...]:
    """Return the outputs of the network and the answers to judge. An answer replaces the output of its name."""
    names = {answer.name for answer in answers}
    return (*(output for output in outputs if output.name not in names), *answers)


def check_references(
    settings: EvaluatorSettings, columns: pa.Schema, preprocessing: Preprocessing, answers: Collection[str] = ()
) -> None:
    """Check that the references exist.

    Args:
        answers: the answers of the served model; none if it returns the outputs of the network.
    """
    given = settings.reference
    if isinstance(given, dict):
        check_known("Evaluator.reference", "the served model has no answer", given, answers)
    references = given.values() if isinstance(given, dict) else [given] if given else []
    known = {*columns.names, *(preprocessing.outputs if answers else ())}
    check_known("Evaluator.reference", "the data has no column", references, known)


def check_detection_columns(settings: EvaluatorSettings, columns: pa.Schema | None) -> None:
    """Check the names of the columns with true objects, and that these exist if the columns are known.

    Raises:
        ParameterError: a name is unknown, or there is no such column.
    """
    where, names = "Evaluator.detection_columns", settings.detection_columns
    check_known(where, "no name of a column", names, COLUMNS)
    tasks = settings.task.values() if isinstance(settings.task, dict) else [settings.task]
    if "detection" in tasks and columns is not None:
        needed = [name for name in TRUE if name in names or name not in OPTIONAL]
        check_known(where, "no column", [names.get(name, name) for name in needed], columns.names)


def _tasks(settings: EvaluatorSettings, answers: Mapping[str, TensorForm]) -> dict[str, str | None]:
    """Return the names of the answers to judge, each with its task, or None where it is inferred."""
    task, reference = settings.task, settings.reference
    found: dict[str, str | None] = {}
    if isinstance(task, dict):
        found |= {name: one for name, one in task.items() if name in answers}
    if isinstance(reference, dict):
        found |= {name: None for name in reference if name in answers and name not in found}
    single = task if isinstance(task, str) else None
    if not found and (single or isinstance(reference, str)):
        found[_only(single, answers, settings)] = single
    return {name: one or single for name, one in found.items()}


def _only(task: str | None, answers: Mapping[str, TensorForm], settings: EvaluatorSettings) -> str:
    """Return the one answer that a task, or a reference without a task, applies to."""
    if task == "detection":
        return next(iter(answers)) if settings.decode is not None else _detections(answers, settings)[0]
    is_text = {name: form.dtype == "string" for name, form in answers.items()}
    fitting = [name for name in answers if task is None or is_text[name] == (task == "text")]
    if len(fitting) != 1:
        raise ParameterError(
            f"Evaluator.task: the served model has the answers {', '.join(answers)}; name those to judge, such as "
            f'task={{"{(fitting or list(answers))[0]}": "{task or "text"}"}}'
        )
    return fitting[0]


def _judged(
    name: str,
    task: str | None,
    answers: Mapping[str, TensorForm],
    columns: pa.Schema,
    preprocessing: Preprocessing,
    settings: EvaluatorSettings,
) -> Output:
    form, given = answers[name], settings.reference
    reference = given.get(name) if isinstance(given, dict) else given
    if task is not None and task not in TASKS:
        raise ParameterError(f"Evaluator.task: no task {task!r}; {nearest(task, TASKS)}")
    prepared = reference is not None and _is_prepared(reference, form, task, columns, preprocessing)
    label = preprocessing.outputs[reference] if prepared and reference else form_of(columns, reference)
    names = label_class_names(preprocessing, reference) if reference else None
    if form.shape is None and task is None:
        raise ParameterError(f"Evaluator.task: the shape of the answer {name!r} is unknown; name its task")
    if task is None:
        task = "text" if form.dtype == "string" else infer_task("", label, form, names)
    if reference is None and not TASKS[task].label_in_columns:
        raise ParameterError(
            f"Evaluator.reference: the answer {name!r} has none; name the column with the true value, such as "
            f'reference={{"{name}": "{columns.names[0]}"}}'
        )
    width, classes = units(form) if form.shape else None, None
    if TASKS[task].has_classes or task == "binary":
        classes = classes_of_units(names, width)
    if TASKS[task].has_classes:
        classes = classes or tuple(map(str, range(width or 2)))
    if task == "text" and names:
        classes = tuple(map(str, names))
    if task == "detection":
        classes = object_classes(columns, settings)
    answer: tuple[str, ...] = (name,)
    if settings.decode is not None:
        answer = tuple(answers)
    elif task == "detection":
        answer = _detections(answers, settings)
    reference = None if TASKS[task].label_in_columns else reference
    return Output(name, task, classes, answer=answer, reference=reference, prepared=prepared)


def object_classes(columns: pa.Schema, settings: EvaluatorSettings) -> tuple[str, ...] | None:
    """Return the names of the classes of true boxes, from the metadata of their column, or None."""
    column = settings.detection_columns.get("classes", "classes")
    metadata = columns.field(column).metadata if column in columns.names else None
    names = (metadata or {}).get(b"class_names")
    return tuple(map(str, json.loads(names))) if names else None


def _is_prepared(
    reference: str, form: TensorForm, task: str | None, columns: pa.Schema, preprocessing: Preprocessing
) -> bool:
    """Return whether a reference is an output of the preprocessing. A raw column of the name comes first if it fits."""
    if reference not in columns.names:
        return True
    kind = columns.field(reference).type
    has_text = is_text(kind) or pa.types.is_dictionary(kind)
    needs_text = task == "text" if task is not None else form.dtype == "string"
    return has_text and not needs_text and reference in preprocessing.outputs


def form_of(columns: pa.Schema, name: str | None) -> TensorForm | None:
    """Return the form of a raw column, as far as the task depends on it, or None without such a column."""
    if name is None or name not in columns.names:
        return None
    kind, rank = columns.field(name).type, 1
    while is_list(kind) or isinstance(kind, pa.FixedShapeTensorType):
        rank += len(kind.shape) if isinstance(kind, pa.FixedShapeTensorType) else 1
        kind = kind.value_type
    dtype = "int64" if pa.types.is_integer(kind) or pa.types.is_boolean(kind) else "float32"
    return TensorForm(dtype, (None,) * rank)


def _detections(answers: Mapping[str, TensorForm], settings: EvaluatorSettings) -> tuple[str, ...]:
    """Return the names of the answers with boxes, classes and scores, in the order of `PREDICTED`."""
    found = tuple(settings.detection_columns.get(part, DETECTIONS[part]) for part in PREDICTED)
    for name in found:
        if name not in answers:
            raise ParameterError(
                f"Evaluator.detection_columns: the served model has no answer {name!r}; {nearest(name, answers)}; "
                'name the answers with boxes, classes and scores, such as {"predicted_boxes": "boxes"}, '
                "or give `decode`"
            )
    return found
