"""Less memory for more arithmetic: activations are made again in the backward pass, not kept.

Chen et al., "Training deep nets with sublinear memory cost", 2016: of n layers in a row, segments of
about the square root of n keep nothing but their ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.errors import ParameterError, nearest

WHERE = "Trainer.rematerialize"


def rematerialize(model: keras.Model, layers: bool | Sequence[str]) -> None:
    """Makes the model, in place, keep less between the forward and the backward pass.

    A layer that draws random numbers or changes its state in a call (Dropout, BatchNormalization)
    would do so twice: such layers keep what they give, and segments lie between them.

    Args:
        layers: True for segments of a functional model; or the names of layers (a block that is a
            layer or model of its own, say) that keep their inputs alone; False for nothing.

    Raises:
        ParameterError: no such layer; one that may not be called twice; with True, a model that is
            not functional or that masks steps of time.
    """
    if layers is True:
        _by_segments(model)
    else:
        for name in layers or ():
            _alone(model, name)


def _alone(model: keras.Model, name: str) -> None:
    known = {layer.name: layer for layer in model._flatten_layers(include_self=False)}
    if name not in known:
        raise ParameterError(f"{WHERE}: the model has no layer {name!r}; {nearest(name, known)}")
    layer = known[name]
    if not _repeatable(layer):
        raise ParameterError(
            f"{WHERE}: layer {name!r} draws random numbers or changes its state when it is called, so it "
            "cannot be called twice; name the layers inside it or around it"
        )
    layer.call = _recomputed(layer.call)


def _recomputed(call: Callable[..., Any]) -> Callable[..., Any]:
    def recomputed(*arguments: Any, **settings: Any) -> Any:
        return tf.recompute_grad(lambda *tensors: call(*tensors, **settings))(*arguments)

    return recomputed


def _repeatable(operation: Any) -> bool:
    """Whether two calls of a layer, or of a plain operation, give the same and leave no trace."""
    if not isinstance(operation, keras.layers.Layer):
        return "random" not in type(operation).__module__
    inside = operation._flatten_layers()
    return not any(layer._seed_generators or layer._non_trainable_variables for layer in inside)


def _by_segments(model: keras.Model) -> None:
    if not hasattr(model, "_nodes_by_depth"):
        raise ParameterError(
            f"{WHERE}: true goes by the graph of a functional model, which this {type(model).__name__} has "
            "not; name its layers instead"
        )
    masking = [layer.name for layer in model.layers if getattr(layer, "mask_zero", False)]
    masking += [layer.name for layer in model.layers if isinstance(layer, keras.layers.Masking)]
    if masking:
        raise ParameterError(
            f"{WHERE}: {masking[0]!r} masks steps of time, and a mask is not passed on between segments; "
            "name layers that no mask reaches instead"
        )
    segments = list(_segments(model))

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        values = dict(zip(map(id, model.inputs), model._standardize_inputs(inputs)))
        for segment in segments:
            values |= segment.called(values, training)
        return keras.tree.pack_sequence_as(model.output, [values[id(tensor)] for tensor in model.outputs])

    model.call = call


@dataclass(frozen=True)
class _Segment:
    """Nodes of the graph, one after the other.

    Attributes:
        takes, gives: ids of the symbolic tensors that it needs from before, and that later ones or
            the model's outputs need of it.
        again: whether it is run once more in the backward pass, and keeps `takes` alone.
    """

    nodes: Sequence[Any]
    takes: Sequence[int]
    gives: Sequence[int]
    again: bool

    def called(self, values: dict[int, Any], training: bool | None) -> dict[int, Any]:
        def run(*taken: Any) -> list[Any]:
            known = dict(zip(self.takes, taken))
            for node in self.nodes:
                known |= _node_called(node, known, training)
            return [known[key] for key in self.gives]

        taken = [values[key] for key in self.takes]
        given = tf.recompute_grad(run)(*taken) if self.again else run(*taken)
        return dict(zip(self.gives, given))


def _node_called(node: Any, known: dict[int, Any], training: bool | None) -> dict[int, Any]:
    arguments, settings = node.arguments.fill_in(known)
    # The backward pass runs outside of the model's call, from which layers would learn this.
    if getattr(node.operation, "_call_has_training_arg", False) and training is not None:
        settings = {**settings, "training": training}
    results = keras.tree.flatten(node.operation(*arguments, **settings))
    return dict(zip(map(id, node.outputs), results))


def _segments(model: keras.Model) -> Iterator[_Segment]:
    """The graph in its order, cut where an operation may not be repeated, and every √n nodes."""
    nodes = [
        node
        for depth in sorted(model._nodes_by_depth, reverse=True)
        for node in model._nodes_by_depth[depth]
        if not node.is_input
    ]
    longest = math.isqrt(max(len(nodes) - 1, 0)) + 1
    groups: list[tuple[bool, list[Any]]] = []
    for node in nodes:
        again = _repeatable(node.operation)
        if groups and groups[-1][0] == again and len(groups[-1][1]) < longest:
            groups[-1][1].append(node)
        else:
            groups.append((again, [node]))
    wanted = {id(tensor) for tensor in model.outputs}
    found = []
    for again, group in reversed(groups):  # from the end: what later segments take is known
        made = [id(tensor) for node in group for tensor in node.outputs]
        needed = [id(tensor) for node in group for tensor in node.input_tensors]
        takes = list(dict.fromkeys(key for key in needed if key not in made))
        found.append(_Segment(group, takes, [key for key in made if key in wanted], again))
        wanted |= set(takes)
    return reversed(found)
