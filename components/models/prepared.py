"""The preprocessing as an author of a model sees it: its layers, vocabularies and class names."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.errors import UserCodeError, nearest
from kerasline.components.core.keras_compat import flatten_layers


class Prepared:
    """The adapted preprocessing.

    Args:
        model: the Keras model of the preprocessing, with labels and weight if it computes them.
        class_names: names of the classes of the label, or by label if there are several, or None.
    """

    def __init__(self, model: keras.Model, class_names: list[str] | dict[str, list[str] | None] | None) -> None:
        self.model, self.class_names = model, class_names

    def layer(self, name: str) -> Any:
        """Return an adapted layer, such as the tokenizer whose `decode` turns ids back into texts.

        Raises:
            UserCodeError: there is no layer of that name.
        """
        layers = {layer.name: layer for layer in flatten_layers(self.model)}
        if name not in layers:
            raise UserCodeError(f"the preprocessing has no layer {name!r}; {nearest(name, layers)}")
        return layers[name]

    def vocabulary(self, name: str) -> list[str]:
        """Return the texts of a layer by their ids, also while a graph is traced.

        Raises:
            UserCodeError: there is no layer of that name, or it has no vocabulary.
        """
        layer = self.layer(name)
        if not hasattr(layer, "get_vocabulary"):
            raise UserCodeError(f"layer {name!r} of the preprocessing, a {type(layer).__name__}, has no vocabulary")
        with tf.init_scope():
            return [str(word) for word in layer.get_vocabulary()]
