"""The user's preprocessing as one functional model whose layers can be adapted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras

from kerasline.components.core.errors import UserCodeError
from kerasline.components.core.keras_compat import mark_adapted
from kerasline.components.preprocessing.adaptation.graph import flattened

if TYPE_CHECKING:
    import pyarrow as pa

    from kerasline.components.preprocessing.features import Feature


@dataclass(frozen=True)
class Draft:
    """Preprocessing before its layers are adapted.

    Attributes:
        model: functional, with inputs and outputs by name. It has all layers that need data.
        finished: returns the complete model once those layers are adapted.
    """

    model: keras.Model
    finished: Callable[[], keras.Model]


def from_returned_value(value: Any, source: str) -> Draft:
    """Return a draft of the value that the user's function returned.

    Args:
        value: a functional model or a `FeatureSpace`.
        source: the function's name, for messages.

    Raises:
        UserCodeError: `value` is neither a model with inputs and outputs by name nor a FeatureSpace.
    """
    if isinstance(value, keras.utils.FeatureSpace):
        return _from_feature_space(value)
    if not isinstance(value, keras.Model) or not isinstance(getattr(value, "input", None), dict):
        raise UserCodeError(
            f"{source} must return a functional keras.Model whose inputs are a dict by column name, or a "
            f"keras.utils.FeatureSpace; it returned {type(value).__name__}"
        )
    if not isinstance(value.output, dict):
        raise UserCodeError(f"{source}: the model's outputs must be a dict by name")
    model = flattened(value)
    return Draft(model, lambda: model)


def from_features(features: Mapping[str, Feature], schema: pa.Schema, labels: Sequence[str]) -> Draft:
    """Return a draft of one-line features and of labels that are texts; see `preprocessing.features`.

    Raises:
        DataError: a feature's column is not in the data, or has the wrong type.
    """
    from kerasline.components.preprocessing.features import preprocessing_model

    model = preprocessing_model(features, schema, labels)
    return Draft(model, lambda: model)


def _from_feature_space(space: keras.utils.FeatureSpace) -> Draft:
    """Return a draft of a FeatureSpace, which adds its one-hot encoders only once the vocabularies are known."""
    adaptable = {name: space.preprocessors[name](space.inputs[name]) for name in space.inputs}
    inputs = dict(space.inputs)

    def finished() -> keras.Model:
        mark_adapted(space)
        encoded = space.get_encoded_features()
        return keras.Model(inputs, encoded if isinstance(encoded, dict) else {"features": encoded})

    return Draft(keras.Model(inputs, adaptable), finished)
