"""Names of Keras inputs and layers for columns, whose names may be any text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kerasline.components.core.errors import UserCodeError
from kerasline.components.core.keras_compat import flatten_layers

if TYPE_CHECKING:
    import keras


def input_names(columns: Iterable[str]) -> dict[str, str]:
    """Return a name for the `keras.Input` of each column: its own where Keras accepts that.

    Keras accepts no `/`, treats an empty name as none, and requires unique names.

    >>> input_names(["a", "a/b", "a_b", ""])
    {'a': 'a', 'a/b': 'a_b_', 'a_b': 'a_b', '': '_'}
    """
    names: dict[str, str] = {}
    columns = list(columns)
    for column in columns:
        name = column.replace("/", "_") or "_"
        while name != column and (name in columns or name in names.values()):
            name += "_"
        names[column] = name
    return names


def layer_prefixes(features: Iterable[str], inputs: Iterable[str]) -> dict[str, str]:
    """Return the beginning of the names of each feature's layers, so that no layer has the name of another or an input.

    >>> layer_prefixes(["a", "b (cm)"], ["a", "a_scaled", "b (cm)"])
    {'a': 'a_', 'b (cm)': 'b__cm_'}
    """
    prefixes: dict[str, str] = {}
    features, inputs = list(features), list(inputs)
    for feature in features:
        prefix = _scope_name(feature)
        others = [name for name in (*inputs, *features, *prefixes.values()) if name != feature]
        while any(name == prefix or name.startswith(f"{prefix}_") for name in others):
            prefix += "_"
        prefixes[feature] = prefix
    return prefixes


def check_layer_names(model: keras.Model, source: str) -> None:
    """Raise a UserCodeError if TensorFlow does not accept the name of a layer. Keras reports it only in training.

    Args:
        model: the model.
        source: the user's function, for the message.
    """
    import keras

    for layer in flatten_layers(model):
        accepted = _scope_name(layer.name)
        if layer.name != accepted and not isinstance(layer, keras.layers.InputLayer):
            raise UserCodeError(
                f"{source}: layer {layer.name!r}: expected a name of ASCII letters, digits and _ . - that begins "
                f"with a letter or digit, as TensorFlow requires; rename it, to {accepted!r} for example"
            )


def _scope_name(name: str) -> str:
    """Return a similar name that TensorFlow accepts for a scope. Each layer opens one in a graph."""
    name = re.sub(r"[^A-Za-z0-9_.>-]", "_", name)
    return name if re.match(r"[A-Za-z0-9.]", name) else f"layer{name}"
