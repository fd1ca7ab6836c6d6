"""Turns Sequential and subclassed models into functional models of the features."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from kerasline.components.core.errors import UserCodeError, named_cause, some
from kerasline.components.core.keras_compat import has_graph


def as_functional(model: keras.Model, inputs: Mapping[str, keras.KerasTensor], source: str) -> keras.Model:
    """Return a functional model that calls a Sequential or subclassed model, so that its inputs are features by name.

    A functional model is returned as it is. So is a model with a training step of its own, which is built by a call.

    Args:
        model: the compiled model.
        inputs: symbolic features by name.
        source: where the model comes from, for error messages.

    Raises:
        UserCodeError: the model cannot be called on the features.
    """
    if has_graph(model) and not isinstance(model, keras.Sequential):
        return model
    output = _call(model, dict(inputs), source)
    if type(model).train_step is not keras.Model.train_step or type(model).compile is not keras.Model.compile:
        return model
    functional = keras.Model(dict(inputs), output)
    arguments = keras.saving.deserialize_keras_object(model.get_compile_config())
    functional.compile(**{**arguments, "auto_scale_loss": False})
    return functional


def _call(model: keras.Model, inputs: dict[str, keras.KerasTensor], source: str) -> Any:
    """Call a model on the features by name, or on the only feature."""
    forms: list[Any] = [inputs]
    if isinstance(model, keras.Sequential):
        if len(inputs) > 1:
            raise UserCodeError(
                f"{source}: a Sequential model takes one tensor, and there are the features {some(inputs)}; "
                "concatenate them in a functional model"
            )
        forms = []
    forms += inputs.values() if len(inputs) == 1 else []
    with warnings.catch_warnings():  # Keras warns when it tries to build the model for a form that does not fit
        warnings.simplefilter("ignore")
        for form in forms:
            try:
                return model(form)
            except Exception as error:  # any: `call` is the user's
                cause = error
    expected = "the only feature" if len(inputs) == 1 else "a dict of features by name"
    kind = type(model).__name__
    raise UserCodeError(f"{source}: {kind} cannot be called on {expected}: {named_cause(cause)}") from cause
