"""Find the layer and the columns in which an operation of a TensorFlow graph failed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from kerasline.components.core.artifacts import needed_inputs
from kerasline.components.core.errors import one_line
from kerasline.components.core.keras_compat import flatten_layers

_NODE = re.compile(r"\{\{node ([^}]*)\}\}|Detected at node (\S+)")
MAX_NAMED_INPUTS = 3


def describe_failure(error: tf.errors.OpError, *models: keras.Model) -> str:
    """Return the cause of an error in one line, with the layer and the inputs that it depends on, if they are known.

    Args:
        models: the models that may have failed.
    """
    cause = one_line(error)
    for node in (a or b for a, b in _NODE.findall(str(error))):
        for model in models:
            for layer in _layers_at(node, model):
                return f"layer {layer.name!r}{_inputs_of(layer, model)}: {cause}"
    return cause


def _layers_at(node: str, model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers whose names are in the path of a node, the innermost first.

    TensorFlow appends a number to a name that occurs twice in a graph.
    """
    layers = {layer.name: layer for layer in flatten_layers(model)}
    for part in reversed(node.split("/")[:-1]):
        name = part if part in layers else re.sub(r"_\d+$", "", part)
        if name in layers:
            yield layers[name]


def _inputs_of(layer: keras.layers.Layer, model: keras.Model) -> str:
    """Return the inputs of the model that a layer depends on, as text, or nothing if they are unknown or many."""
    try:
        outputs = {str(number): tensor for number, tensor in enumerate(keras.tree.flatten(layer.output))}
        names = list(needed_inputs(model.input, outputs)) if isinstance(model.input, dict) else []
    except (AttributeError, ValueError, KeyError):  # called several times, or never in a graph
        names = []
    return columns_text(names)


def columns_text(names: Sequence[str]) -> str:
    """Return columns for a message, such as ` (column 'fare')`, or nothing if there are none or many."""
    if not 0 < len(names) <= MAX_NAMED_INPUTS:
        return ""
    return f" ({'column' if len(names) == 1 else 'columns'} {', '.join(map(repr, names))})"
