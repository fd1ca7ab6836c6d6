"""A functional model as a graph: which of its layers need data, and which tensors enter them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kerasline.components.core.keras_compat import (
    call_nodes,
    can_run_graph,
    flatten_layers,
    graph_nodes,
    run_graph,
    source_operation,
)
from kerasline.components.preprocessing.adaptation import new_state


def flattened(model: keras.Model) -> keras.Model:
    """Return a model in which the layers of nested functional models are layers of the model itself.

    Only there are layers that need data found and fed. The layers are shared, not copied.
    """
    if not any(_is_nested(layer) for layer in model.layers):
        return model
    return keras.Model(model.input, _run(model, model.input), name=model.name)


def adaptation_passes(
    model: keras.Model, beside: Mapping[str, Mapping[str, str]] | None = None
) -> list[list[keras.layers.Layer]]:
    """Return the layers that need data, grouped by pass. Layers depend only on layers of earlier passes.

    Args:
        model: functional, with outputs by name.
        beside: by the name of a layer that takes a label or weight, the outputs or raw columns that these are.
    """
    needy = [layer for layer in model.layers if new_state(layer) is not None]
    upstream = {}
    for layer in needy:
        upstream[layer.name] = _ancestors(layer)
        for name in (beside or {}).get(layer.name, {}).values():
            if name in model.output:
                upstream[layer.name] |= operations_before(model.output[name])

    @functools.cache
    def depth(name: str) -> int:
        return 1 + max((depth(other) for other in upstream if other != name and other in upstream[name]), default=-1)

    passes: list[list[Any]] = [[] for _ in range(1 + max(map(depth, upstream), default=-1))]
    for layer in needy:
        passes[depth(layer.name)].append(layer)
    return passes


def operations_before(tensor: Any) -> set[str]:
    """Return the names of the layers from which a symbolic tensor is computed."""
    operation = source_operation(tensor)
    return {operation.name} | _ancestors(operation)


def calls(model: keras.Model, layer: keras.layers.Layer) -> list[Sequence[Any]]:
    """Return the tensors that enter the layer, for each of its calls in the model."""
    return [node.input_tensors for node in graph_nodes(model) if node.operation is layer]


def complete_inputs(model: keras.Model) -> set[str]:
    """Return the inputs that enter layers with `may_be_missing=False`, for which -1 is an ordinary integer."""
    names = {id(tensor): name for name, tensor in model.input.items()}
    layers = [layer for layer in model.layers if getattr(layer, "may_be_missing", True) is False]
    tensors = [tensor for layer in layers for called in calls(model, layer) for tensor in called]
    return {names[id(tensor)] for tensor in tensors if id(tensor) in names}


def unreachable(model: keras.Model) -> str | None:
    """Return a message about a layer that needs data but lies inside another layer, where it cannot be fed."""
    for outer in model.layers:
        whole = isinstance(outer, keras.layers.TextVectorization) or new_state(outer) is not None
        for inner in () if whole else flatten_layers(outer):
            if new_state(inner) is not None:
                return (
                    f"layer {inner.name!r} must be adapted but lies inside layer {outer.name!r}, where it cannot be "
                    "fed; call it in the model itself, or give it its state"
                )
    return None


def unsavable(model: keras.Model) -> str | None:
    """Return a message about a layer that Keras before 3.14 saves but cannot load."""
    if tuple(int(part) for part in keras.__version__.split(".")[:2]) >= (3, 14):
        return None
    for layer in model.layers:
        if getattr(layer, "output_mode", None) == "tf_idf":
            return (
                f"layer {layer.name!r}: Keras {keras.__version__} cannot load a TF-IDF lookup that it saved; "
                "Keras 3.14 can, and kerasline.layers.TfIdf needs no particular version"
            )
    return None


def _run(model: keras.Model, inputs: Any, **_options: Any) -> Any:
    """Call the layers of a functional model, and of models nested in it, one by one.

    The outer call's options `mask` and `training` are left to the layers' defaults.
    """

    def called(operation: Any) -> Any:
        return functools.partial(_run, operation) if _is_nested(operation) else operation

    return run_graph(model, inputs, called)


def _is_nested(operation: Any) -> bool:
    return can_run_graph(operation)


def _ancestors(layer: Any) -> set[str]:
    found: set[str] = set()
    waiting = [layer]
    while waiting:
        for node in call_nodes(waiting.pop()):
            for tensor in node.input_tensors:
                operation = source_operation(tensor)
                if operation.name not in found:
                    found.add(operation.name)
                    waiting.append(operation)
    return found
