"""Which label each output of a model is trained on, and whether its loss fits that label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kerasline.components.core.artifacts import Preprocessing
from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.core.keras_compat import has_graph
from kerasline.components.models.compile_config import CompiledLoss, compiled_losses, output_names, outputs_by_name
from kerasline.components.models.outputs import label_by_output

# Keras's losses by the label that they expect. Others, such as a user's own, are not checked.
BINARY = ("binary_crossentropy", "binary_focal_crossentropy")
CLASS_INDEX = "sparse_categorical_crossentropy"
DISTRIBUTION = ("categorical_crossentropy", "categorical_focal_crossentropy", "categorical_hinge", "kl_divergence")
MARGINS = ("hinge", "squared_hinge")
NUMBERS = (
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "huber",
    "log_cosh",
    "poisson",
    "cosine_similarity",
)

# What `train_step` receives as the label: one name, names by output, or None.
Target = str | Mapping[str, str] | None


def training_target(model: keras.Model, preprocessing: Preprocessing) -> Target:
    """Return what `train_step` receives as the label.

    A model with a `train_step` of its own receives the labels as Transform names them, and without labels the features
    alone. So does a model without a compiled loss, which adds its losses itself.
    """
    labels, losses = preprocessing.labels, checked_losses(model)
    if not losses or (len(labels) == 1 and len(output_names(model)) == 1):
        return None if not labels else labels[0] if len(labels) == 1 else {name: name for name in labels}
    found = label_by_output(output_names(model), preprocessing)
    target = {name: found[name] for name in losses if name in found}
    return target if len(output_names(model)) > 1 else next(iter(target.values()))


def taken_features(model: keras.Model) -> list[str] | None:
    """Return the names of the features that the model takes, or None for all.

    Keras pairs the values of a dict with the inputs of a functional model in the order of their names, so a dict with
    further features would train it on the wrong ones. A `train_step` or `compute_loss` of the model's own may use all.
    """
    has_own = type(model).train_step is not keras.Model.train_step or (
        type(model).compute_loss is not keras.Model.compute_loss
    )
    inputs = model.input if has_graph(model) and not has_own else None
    return list(inputs) if isinstance(inputs, dict) else None


def weight_ranks(model: keras.Model, preprocessing: Preprocessing) -> Any:
    """Return the rank that the sample weights need for each loss, so that a row's weight counts for all its tokens.

    Returns:
        One rank, or a structure of ranks like the model's output if they differ. None leaves the weights as they are:
        there are none, or the losses are unknown.
    """
    if not preprocessing.facts["sample_weight"]:
        return None
    ranks = {name: 1 + len(shape) for name, (_, shape) in _token_shapes(model, preprocessing).items()}
    if len(set(ranks.values())) < 2:
        return next(iter(ranks.values()), None)
    found = {name: ranks.get(name, 1) for name in output_names(model)}
    return found if isinstance(model.output, dict) else tuple(found.values())


def _token_shapes(
    model: keras.Model, preprocessing: Preprocessing
) -> dict[str, tuple[CompiledLoss, tuple[int | None, ...]]]:
    """Return the compiled loss by output, with the shape of the losses of a row, where it is known."""
    label_of, outputs = label_by_output(output_names(model), preprocessing), outputs_by_name(model, model.output)
    specs, found = _label_specs(preprocessing), {}
    for name, loss in checked_losses(model).items():
        shape = loss.token_shape(specs[label_of[name]], outputs[name]) if name in label_of else None
        if shape is not None:
            found[name] = (loss, shape)
    return found


def _label_specs(preprocessing: Preprocessing) -> Mapping[str, Any]:
    """Return symbolic tensors of what the model learns: the labels, or without labels the features."""
    return preprocessing.label_specs if preprocessing.labels else preprocessing.load_features().output


def checked_losses(model: keras.Model) -> dict[str, CompiledLoss]:
    """Return the compiled losses by output.

    There are none if only the model's author knows how it uses labels: if it overrides `train_step`, or if its outputs
    are unknown because it is not functional.
    """
    if type(model).train_step is not keras.Model.train_step or not has_graph(model):
        return {}
    return compiled_losses(model)


def check_losses(model: keras.Model, preprocessing: Preprocessing, where: str) -> None:
    """Check that each output with a loss has a label and weights that fit it. A custom `train_step` is not checked.

    Args:
        where: the stage, for messages.

    Raises:
        ParameterError: an output has no label, a label no output, or the loss does not fit the shape of the label or of
            the weights.
    """
    losses = checked_losses(model)
    if not losses:
        return
    found, outputs = label_by_output(output_names(model), preprocessing), outputs_by_name(model, model.output)
    _check_names(list(losses), found, preprocessing, list(outputs), where)
    specs = _label_specs(preprocessing)
    for name, loss in losses.items():
        label = found[name]
        problem = loss_problem(loss.kind, tuple(specs[label].shape[1:]), tuple(outputs[name].shape[1:]))
        if problem:
            raise ParameterError(f"{where}: output {name!r} with label {label!r}: {problem}")
    _check_weights(model, preprocessing, where)


def _check_weights(model: keras.Model, preprocessing: Preprocessing, where: str) -> None:
    weight = preprocessing.facts["sample_weight"]
    received = tuple(preprocessing.label_specs[weight].shape[1:]) if weight else ()
    if all(size == 1 for size in received):
        return
    for name, (_, tokens) in _token_shapes(model, preprocessing).items():
        pairs = zip(tokens, received)
        if len(tokens) != len(received) or any(a != b and 1 not in (a, b) and None not in (a, b) for a, b in pairs):
            each = f", or numbers of shape {tokens}, one for each of its losses" if tokens else ""
            raise ParameterError(
                f"{where}: output {name!r} with weight {weight!r}: expected one number per row{each}, received shape "
                f"{received}; change Transform.sample_weight"
            )


def _check_names(
    trained: Sequence[str],
    label_of: Mapping[str, str],
    preprocessing: Preprocessing,
    outputs: Sequence[str],
    where: str,
) -> None:
    labels = preprocessing.labels
    for name in trained:
        if name not in label_of and labels:
            raise ParameterError(
                f"{where}: output {name!r} has a loss but no label of its name; {_names('label', labels, name)}"
            )
        if name not in label_of:
            raise ParameterError(
                f"{where}: output {name!r} has a loss, but Transform.label is None and no feature has its name; set "
                f"Transform.label, or name the output as the feature that it predicts; "
                f"{_names('feature', preprocessing.features, name)}"
            )
    for name in labels if len(labels) > 1 else ():
        if name not in trained:
            reason = "has no loss" if name in outputs else "does not exist"
            raise ParameterError(
                f"{where}: label {name!r} needs an output of its name, which {reason}; remove it from "
                f"Transform.label, or {'compile a loss for it' if name in outputs else 'add the output'}; "
                f"{_names('output', outputs, name)}"
            )


def _names(noun: str, names: Sequence[str], name: str) -> str:
    return f"{noun}s: {', '.join(names)}" if name in names or len(names) < 5 else nearest(name, names)


def loss_problem(loss: str, label: tuple[int | None, ...], output: tuple[int | None, ...]) -> str | None:
    """Return why a loss of Keras cannot compare a label with an output, and the remedy, or None if it can.

    Args:
        loss: name of the loss function, such as `"binary_crossentropy"`.
        label: shape of a row of the label.
        output: shape of a row of the output.
    """
    if loss not in (*BINARY, CLASS_INDEX, *DISTRIBUTION, *MARGINS, *NUMBERS):
        return None
    units = output[-1] if output else 1
    squeezed = label[:-1] if len(label) == len(output) and label[-1] == 1 else label
    has_indices = units != 1 and len(squeezed) == len(output) - 1
    if units == 1 and loss in (CLASS_INDEX, *DISTRIBUTION[:2]):
        return f"{loss} needs a unit for each class, and the output has 1; use binary_crossentropy for two classes"
    if loss == CLASS_INDEX and _same_shape(label, output) and not has_indices:
        return f"{loss} expects a class index, received rows of {units} numbers; use categorical_crossentropy"
    if loss == CLASS_INDEX and has_indices:
        return _length_problem(squeezed, output[:-1])
    if has_indices:
        if loss == "categorical_crossentropy":
            return f"{loss} expects one number for each class, received a class index; use {CLASS_INDEX}"
        if loss in DISTRIBUTION:
            return (
                f"{loss} expects one number for each class, received one number; "
                f"encode the label with keras.layers.CategoryEncoding({units}, output_mode='one_hot')"
            )
        several = f", or {CLASS_INDEX} for {units} classes" if loss in BINARY else ""
        return f"{loss} compares number by number, and the label is one number; give the output 1 unit{several}"
    if _same_shape(label, output):
        return None
    return f"{loss} expects equal shapes, received a label of shape {label} and an output of shape {output}"


def _length_problem(label: tuple[int | None, ...], output: tuple[int | None, ...]) -> str | None:
    """Return why sequences of class indices do not fit the steps of an output, or None if they do."""
    for received, expected in zip(label, output):
        if expected is not None and received is None:
            return (
                f"its lists vary in length, and the output has {expected} steps; give them that length in the "
                f"preprocessing, as keras.Input(({expected},), dtype='int64') does by padding with -1"
            )
        if received is not None and expected is not None and received != expected:
            return f"it has {received} steps, and the output has {expected}"
    return None


def _same_shape(label: tuple[int | None, ...], output: tuple[int | None, ...]) -> bool:
    """Return whether Keras's losses take the shapes as equal: it adds or removes a last axis of size 1."""
    if len(label) == len(output) - 1 and output[-1] == 1:
        label = (*label, 1)
    elif len(label) == len(output) + 1 and label[-1] == 1:
        label = label[:-1]
    return len(label) == len(output) and all(a is None or b is None or a == b for a, b in zip(label, output))
