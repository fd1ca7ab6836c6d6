"""Rematerialization: activations are recomputed in the backward pass instead of stored, to save memory.

Chen et al., "Training deep nets with sublinear memory cost", 2016: of n consecutive layers, segments of about sqrt(n)
layers store only their inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.core.keras_compat import (
    accepts_training,
    flatten_layers,
    graph_nodes,
    has_graph,
    is_stateful,
    standardize_inputs,
)

WHERE = "Trainer.rematerialize"


def rematerialize(model: keras.Model, layers: bool | Sequence[str]) -> None:
    """Make a model, in place, store fewer activations between the forward and the backward pass.

    A layer that draws random numbers or changes its state in a call (Dropout, BatchNormalization) must not be called
    twice. Such layers store their activations, and segments end before them.

    Args:
        model: the model.
        layers: True to divide a functional model into segments, or names of layers (or of blocks that are layers or
            models) that store only their inputs, or False to change nothing.

    Raises:
        ParameterError: there is no such layer, or it must not be called twice. With True: the model is not
            functional, or uses masking.
    """
    if layers is True:
        _rematerialize_segments(model)
    else:
        for name in layers or ():
            _rematerialize_layer(model, name)


def _rematerialize_layer(model: keras.Model, name: str) -> None:
    by_name = {layer.name: layer for layer in flatten_layers(model)}
    if name not in by_name:
        raise ParameterError(f"{WHERE}: the model has no layer {name!r}; {nearest(name, by_name)}")
    layer = by_name[name]
    if not _is_repeatable(layer):
        raise ParameterError(
            f"{WHERE}: layer {name!r} draws random numbers or changes its state in a call, so it must not be called "
            "twice; name the layers inside it or around it"
        )
    layer.call = _recomputed(layer.call)


def _recomputed(call: Callable[..., Any]) -> Callable[..., Any]:
    def recomputed_call(*arguments: Any, **options: Any) -> Any:
        return tf.recompute_grad(lambda *tensors: call(*tensors, **options))(*arguments)

    return recomputed_call


def _is_repeatable(operation: Any) -> bool:
    """Return whether two calls of a layer or other operation give the same result and change no state."""
    if not isinstance(operation, keras.layers.Layer):
        return "random" not in type(operation).__module__
    return not any(is_stateful(layer) for layer in flatten_layers(operation, include_self=True))


def _rematerialize_segments(model: keras.Model) -> None:
    if not has_graph(model):
        raise ParameterError(
            f"{WHERE}: true requires a functional model, received a {type(model).__name__}; name its layers instead"
        )
    masking = [layer.name for layer in model.layers if getattr(layer, "mask_zero", False)]
    masking += [layer.name for layer in model.layers if isinstance(layer, keras.layers.Masking)]
    if masking:
        raise ParameterError(
            f"{WHERE}: layer {masking[0]!r} masks time steps, and masks are not passed between segments; name layers "
            "that no mask reaches instead"
        )
    segments = list(_segments(model))

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        values = dict(zip(map(id, model.inputs), standardize_inputs(model, inputs)))
        for segment in segments:
            values |= segment.call(values, training)
        return keras.tree.pack_sequence_as(model.output, [values[id(tensor)] for tensor in model.outputs])

    model.call = call


@dataclass(frozen=True)
class _Segment:
    """Consecutive nodes of the graph.

    Attributes:
        nodes: the nodes.
        inputs: ids of the symbolic tensors that it needs from earlier segments.
        outputs: ids of its symbolic tensors that later segments or the outputs of the model need.
        is_recomputed: whether it stores only its inputs and runs again in the backward pass.
    """

    nodes: Sequence[Any]
    inputs: Sequence[int]
    outputs: Sequence[int]
    is_recomputed: bool

    def call(self, values: dict[int, Any], training: bool | None) -> dict[int, Any]:
        def run(*inputs: Any) -> list[Any]:
            known = dict(zip(self.inputs, inputs))
            for node in self.nodes:
                known |= _call_node(node, known, training)
            return [known[key] for key in self.outputs]

        inputs = [values[key] for key in self.inputs]
        outputs = tf.recompute_grad(run)(*inputs) if self.is_recomputed else run(*inputs)
        return dict(zip(self.outputs, outputs))


def _call_node(node: Any, known: dict[int, Any], training: bool | None) -> dict[int, Any]:
    arguments, options = node.arguments.fill_in(known)
    # Layers take `training` from the enclosing call of the model, and the backward pass runs outside that call.
    if accepts_training(node.operation) and training is not None:
        options = {**options, "training": training}
    results = keras.tree.flatten(node.operation(*arguments, **options))
    return dict(zip(map(id, node.outputs), results))


def _segments(model: keras.Model) -> Iterator[_Segment]:
    """Divide the graph after every sqrt(n) nodes, and where an operation must not be repeated."""
    nodes = [node for node in graph_nodes(model) if not node.is_input]
    longest = math.isqrt(max(len(nodes) - 1, 0)) + 1
    groups: list[tuple[bool, list[Any]]] = []
    for node in nodes:
        is_repeatable = _is_repeatable(node.operation)
        if groups and groups[-1][0] == is_repeatable and len(groups[-1][1]) < longest:
            groups[-1][1].append(node)
        else:
            groups.append((is_repeatable, [node]))
    needed = {id(tensor) for tensor in model.outputs}
    segments = []
    for is_repeatable, group in reversed(groups):  # from the end, so that the needs of later segments are known
        computed = [id(tensor) for node in group for tensor in node.outputs]
        used = [id(tensor) for node in group for tensor in node.input_tensors]
        inputs = list(dict.fromkeys(key for key in used if key not in computed))
        segments.append(_Segment(group, inputs, [key for key in computed if key in needed], is_repeatable))
        needed |= set(inputs)
    return reversed(segments)
