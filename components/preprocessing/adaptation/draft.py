"""What the user gives as preprocessing, as one functional model whose layers can be adapted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras

from kerasline.components.core.errors import UserCodeError
from kerasline.components.preprocessing.adaptation.graph import flattened

if TYPE_CHECKING:
    import pyarrow as pa

    from kerasline.components.preprocessing.features import Feature


@dataclass(frozen=True)
class Draft:
    """Preprocessing before its layers are adapted.

    Attributes:
        model: functional, inputs and outputs by name; has all layers that need data.
        finished: gives the whole model, once those layers are adapted.
    """

    model: keras.Model
    finished: Callable[[], keras.Model]


def of_returned(value: Any, told: str) -> Draft:
    """A draft of what the user's function returned.

    Args:
        told: what to call the function.

    Raises:
        UserCodeError: it is neither a model with inputs and outputs by name nor a FeatureSpace.
    """
    if isinstance(value, keras.utils.FeatureSpace):
        return _of_feature_space(value)
    if not isinstance(value, keras.Model) or not isinstance(getattr(value, "input", None), dict):
        raise UserCodeError(
            f"{told} must return a functional keras.Model whose inputs are a dict by column name, or a "
            f"keras.utils.FeatureSpace, it returned {type(value).__name__}"
        )
    if not isinstance(value.output, dict):
        raise UserCodeError(f"{told}: the model's outputs must be a dict by name")
    model = flattened(value)
    return Draft(model, lambda: model)


def of_features(features: Mapping[str, Feature], schema: pa.Schema) -> Draft:
    """A draft of one-line specifications; see `kerasline.components.preprocessing.features`.

    Raises:
        DataError: a column that one wants is not in the data, or is of another kind.
    """
    from kerasline.components.preprocessing.features import preprocessing_model

    model = preprocessing_model(features, schema)
    return Draft(model, lambda: model)


def _of_feature_space(space: keras.utils.FeatureSpace) -> Draft:
    """A FeatureSpace gets its one-hot encoders only when the vocabularies are known."""
    adaptable = {name: space.preprocessors[name](space.inputs[name]) for name in space.inputs}
    inputs = dict(space.inputs)

    def finished() -> keras.Model:
        space._is_adapted = True
        encoded = space.get_encoded_features()
        return keras.Model(inputs, encoded if isinstance(encoded, dict) else {"features": encoded})

    return Draft(keras.Model(inputs, adaptable), finished)
