"""What a model's Embedding layers give, seen or replaced on the way: numbers of words have no gradient."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

Passing = Callable[[str, tf.Tensor], tf.Tensor]


class Embeddings:
    """The Embedding layers of a model; masks that they make stay as they are.

    Attributes:
        names: the layers', and of those called several times the first call's.
    """

    def __init__(self, model: keras.Model) -> None:
        self._layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Embedding)]
        self.names = [layer.name for layer in self._layers]

    @contextlib.contextmanager
    def passing(self, through: Passing) -> Iterator[None]:
        """While it lasts, what the layers give goes through a function of a name and a tensor.

        The name is the layer's; its second call in the model has " 2" behind it, and so on.
        """
        called: Counter[str] = Counter()
        for layer in self._layers:
            layer.call = _passed(layer, through, called)
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.call  # the class's own shows again


def _passed(layer: keras.layers.Layer, through: Passing, called: Counter[str]) -> Callable[..., Any]:
    own = layer.call

    def call(inputs: Any, *arguments: Any, **named: Any) -> Any:
        given = own(inputs, *arguments, **named)
        if named.get("reverse"):  # KerasHub's embeddings that turn vectors back into words
            return given
        called[layer.name] += 1
        count = called[layer.name]
        return through(layer.name if count == 1 else f"{layer.name} {count}", given)

    return call
