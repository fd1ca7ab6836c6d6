"""Judges: models that are given an answer of the served model, such as a picture or a sound, and whose own answers to
it are compared with a reference.

A recogniser writes down generated speech. Its text is compared with the sentence. A classifier names what a generated
picture shows. Its class is compared with the requested one. Or the judge is given the real pictures too, and the
distributions of its features of both are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kerasline.components.core.artifacts import Artifact, Model, Preprocessing, SavedModel, TensorForm
from kerasline.components.core.component import Channel, Component
from kerasline.components.core.errors import ParameterError, WiringError, check_known, nearest
from kerasline.components.data.arrow_types import is_bytes, is_list, is_text
from kerasline.components.models.judged_answers import (
    check_references,
    find_answers,
    network_settings,
    served_answers,
)
from kerasline.components.models.outputs import label_class_names, units
from kerasline.components.models.tasks import TASKS, Output, classes_of_units, has_margins, infer_task

if TYPE_CHECKING:
    from kerasline.components.evaluator.settings import EvaluatorSettings

NO_ANSWER = "Evaluator.judges: there is no answer to judge; connect Evaluator.saved_model to an Exporter with `answer`"
DISTRIBUTION = "distribution"
# Added to the name of a judge that is a Keras model: the edge of the preprocessing that it was trained with.
PREPROCESSING = ".preprocessing"


def judge_inputs(judges: Any) -> Any:
    """Return what `Evaluator.judges` connects, by edge: exported models, or Keras models and their preprocessing.

    Args:
        judges: by name an Exporter, a Trainer, whose preprocessing is known, a SavedModel or the path of one, or a pair
            of a Model and its Preprocessing.

    Raises:
        WiringError: a judge is something else.
    """
    if not isinstance(judges, Mapping):
        return judges
    found: dict[str, Any] = {}
    for name, given in judges.items():
        where = f"Evaluator.judges.{name}"
        if not str(name).isidentifier():
            raise WiringError(f"{where}: expected a name of letters, digits and underscores")
        producer = given.producer if isinstance(given, Channel) else given
        if isinstance(producer, Component) and _trains(given):
            given = given, producer.inputs["preprocessing"]
        if isinstance(given, (list, tuple)) and len(given) == 2:
            found |= {name: given[0], name + PREPROCESSING: given[1]}
        elif isinstance(given, Model):
            raise WiringError(
                f"{where}: a Model alone takes preprocessed features; expected a Trainer, a pair of a Model and its "
                "Preprocessing, or an exported model"
            )
        else:
            found[name] = SavedModel(given) if isinstance(given, (str, Path)) else given
    return found


def _trains(given: Component | Channel) -> bool:
    """Return whether a stage has a Keras model as its output, or an output is one, and its preprocessing is known."""
    channels = [given] if isinstance(given, Channel) else given.outputs.values()
    producer = given.producer if isinstance(given, Channel) else given
    return "preprocessing" in producer.inputs and any(issubclass(channel.type, Model) for channel in channels)


def judge_names(judges: Mapping[str, Any]) -> list[str]:
    """Return the names of the judges among the edges of `Evaluator.judges`."""
    return [name for name in judges if not name.endswith(PREPROCESSING)]


@dataclass(frozen=True)
class _Facts:
    """What is known of a judge without loading it.

    Attributes:
        inputs, outputs: data type and shape of raw columns and outputs, by name.
        class_names: of the classes that it predicts, or None.
        losses: name of the compiled loss by output, and whether its scores are logits.
        layers: of a Keras model, whose outputs can be features.
    """

    inputs: Mapping[str, TensorForm]
    outputs: Mapping[str, TensorForm]
    class_names: list[str] | None
    losses: Mapping[str, tuple[str, bool]]
    layers: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, judges: Mapping[str, Artifact]) -> _Facts:
        judge, preprocessing = judges[name], judges.get(name + PREPROCESSING)
        if isinstance(judge, Model) and isinstance(preprocessing, Preprocessing):
            summary = judge.summary
            losses = {output: (one["kind"], one["from_logits"]) for output, one in summary.get("losses", {}).items()}
            label = preprocessing.labels[0] if preprocessing.labels else ""
            names = label_class_names(preprocessing, label)
            layers = tuple(layer["name"] for layer in summary.get("layers", ()))
            return cls(preprocessing.served_inputs, judge.outputs, names, losses, layers)
        if not isinstance(judge, SavedModel):
            raise ParameterError(
                f"Evaluator.judges.{name}: expected a Trainer or an exported model, received {type(judge).__name__}"
            )
        manifest = judge.manifest
        if not manifest:  # another program wrote it
            from kerasline.components.models.signatures import DEFAULT_SIGNATURE, read_definitions, signatures

            found = signatures(read_definitions(judge.path))
            if DEFAULT_SIGNATURE not in found:
                raise ParameterError(f"Evaluator.judges.{name}: {judge.path} has no signature {DEFAULT_SIGNATURE}")
            signature = found[DEFAULT_SIGNATURE]
            outputs = {key: TensorForm(spec.dtype_name, spec.shape) for key, spec in signature.outputs.items()}
            return cls(signature.input_specs, outputs, None, {})
        names = manifest.get("class_names")
        losses = {output: ("", logits) for output, logits in manifest.get("from_logits", {}).items()}
        outputs = TensorForm.by_name(manifest.get("output_specs"))
        return cls(judge.inputs, outputs, names if isinstance(names, list) else None, losses)


def judged_outputs(
    model: SavedModel | None,
    judges: Mapping[str, Artifact],
    columns: pa.Schema,
    preprocessing: Preprocessing,
    settings: EvaluatorSettings,
) -> tuple[tuple[Output, ...], EvaluatorSettings]:
    """Return the answers of the served model and of the judges to evaluate, and the settings for the network's outputs.

    Args:
        model: the exported model, if it is connected.
        judges: the artifacts by edge.
        columns: the raw columns.

    Raises:
        ParameterError: a reference, a task or a judge does not exist or does not fit.
    """
    answers = served_answers(model)
    names = [*answers, *judge_names(judges)]
    check_references(settings, columns, preprocessing, names)
    judged = find_answers(answers, columns, preprocessing, settings)
    judged += _find_judged(judges, answers, columns, preprocessing, settings)
    return judged, network_settings(settings, names)


def _find_judged(
    judges: Mapping[str, Artifact],
    answers: Mapping[str, TensorForm],
    columns: pa.Schema,
    preprocessing: Preprocessing,
    settings: EvaluatorSettings,
) -> tuple[Output, ...]:
    """Return an output to evaluate for each judge: its answers to those of the served model."""
    if judges and not answers:
        raise ParameterError(NO_ANSWER)
    names = judge_names(judges)
    for parameter in ("judge_inputs", "judge_outputs"):
        check_known(f"Evaluator.{parameter}", "no judge", getattr(settings, parameter), names)
    return tuple(_judged(name, _Facts.of(name, judges), answers, columns, preprocessing, settings) for name in names)


def _judged(
    name: str,
    facts: _Facts,
    answers: Mapping[str, TensorForm],
    columns: pa.Schema,
    preprocessing: Preprocessing,
    settings: EvaluatorSettings,
) -> Output:
    where = f"Evaluator.judges.{name}"
    if name in answers:
        raise ParameterError(f"{where}: the served model has an answer of this name; rename the judge")
    if len(facts.inputs) != 1:
        raise ParameterError(
            f"{where}: expected a model with one input, which takes the answer, received {', '.join(facts.inputs)}"
        )
    references = settings.reference if isinstance(settings.reference, Mapping) else {}
    if name not in references:
        raise ParameterError(
            f"Evaluator.reference: the judge {name!r} has none; name the column of real pictures or sounds, of texts "
            f'or of classes to compare with, such as reference={{"{name}": "{columns.names[0]}"}}'
        )
    reference = references[name]
    is_raw = reference in columns.names
    kind = columns.field(reference).type if is_raw else pa.null()
    has_text = is_text(kind) or pa.types.is_dictionary(kind)
    task = settings.task.get(name) if isinstance(settings.task, Mapping) else None
    if task is None and _holds_media(kind):
        task = DISTRIBUTION
    if task is None and has_text and _answers_texts(name, facts, settings):
        task = "text"
    output = _output(name, task, facts, settings)
    form, loss = facts.outputs.get(output), facts.losses.get(output, ("", False))
    if task is None:
        label = preprocessing.outputs.get(reference) if not is_raw else TensorForm("int64", (None,))
        if form is None or form.shape is None:
            raise ParameterError(f"Evaluator.task: the shape of output {output!r} of {where} is unknown; name its task")
        task = infer_task(loss[0], label, form, facts.class_names)
    if task == DISTRIBUTION and not is_raw:
        raise ParameterError(
            f"Evaluator.reference: expected a raw column for the judge {name!r}, received {reference!r}"
        )
    classes, width = None, units(form) if form is not None and form.shape else None
    if TASKS[task].has_classes or task == "binary":
        classes = classes_of_units(facts.class_names, width)
        if has_text and classes is None:
            raise ParameterError(
                f"Evaluator.reference: column {reference!r} holds texts, and {where} has no class names; expected a "
                "column of class numbers"
            )
    if TASKS[task].has_classes:
        classes = classes or tuple(map(str, range(width or 2)))
    return Output(
        name,
        task,
        classes,
        from_logits=loss[1],
        margins=has_margins(loss[0]),
        answer=(name,),
        reference=reference,
        prepared=not is_raw,
        judged=_answer(name, facts, answers, settings),
        judge_output=settings.judge_outputs.get(name) if task == DISTRIBUTION and facts.layers else output,
    )


def _output(name: str, task: str | None, facts: _Facts, settings: EvaluatorSettings) -> str:
    """Return the output of a judge that is evaluated, or the name of a layer."""
    where = f"Evaluator.judge_outputs: the judge {name!r}"
    if name in settings.judge_outputs:
        output = settings.judge_outputs[name]
        known = [*facts.outputs, *(facts.layers if task == DISTRIBUTION else ())]
        if output not in known:
            raise ParameterError(f"{where} has no output {output!r}; {nearest(output, known)}")
        return output
    fitting = [one for one, form in facts.outputs.items() if (form.dtype == "string") == (task == "text")]
    if len(fitting) != 1:
        raise ParameterError(
            f"{where} has the outputs {', '.join(facts.outputs)}; name one, such as "
            f'judge_outputs={{"{name}": "{(fitting or list(facts.outputs))[0]}"}}'
        )
    return fitting[0]


def _answers_texts(name: str, facts: _Facts, settings: EvaluatorSettings) -> bool:
    """Return whether a judge is to answer with texts, and not with scores of named classes."""
    if name in settings.judge_outputs:
        return facts.outputs.get(settings.judge_outputs[name], TensorForm("", None)).dtype == "string"
    return not facts.class_names or all(form.dtype == "string" for form in facts.outputs.values())


def _answer(name: str, facts: _Facts, answers: Mapping[str, TensorForm], settings: EvaluatorSettings) -> str:
    """Return the answer of the served model that a judge is given."""
    if name in settings.judge_inputs:
        check_known("Evaluator.judge_inputs", "the served model has no answer", [settings.judge_inputs[name]], answers)
        return settings.judge_inputs[name]
    if len(answers) != 1:
        raise ParameterError(
            f"Evaluator.judge_inputs: the served model has the answers {', '.join(answers)}; name the one that the "
            f'judge {name!r} is given, such as judge_inputs={{"{name}": "{next(iter(answers))}"}}'
        )
    return next(iter(answers))


def _holds_media(kind: pa.DataType) -> bool:
    """Return whether a column may hold pictures or sounds: files, tensors or lists."""
    return is_bytes(kind) or is_list(kind) or isinstance(kind, pa.FixedShapeTensorType)
