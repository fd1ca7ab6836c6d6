"""A functional model as a graph: which of its layers need data, and what enters them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras

from kerasline.components.preprocessing.adaptation import new_state


def flattened(model: keras.Model) -> keras.Model:
    """The same layers with those of nested functional models in the model itself.

    Layers that need data are found, and fed, only there.
    """
    if not any(_is_nested(layer) for layer in model.layers):
        return model
    return keras.Model(model.input, _run(model, model.input), name=model.name)


def adaptation_passes(model: keras.Model) -> list[list[keras.layers.Layer]]:
    """The layers that need data, in rows: those of a row depend on layers of earlier rows only."""
    needy = [layer for layer in model.layers if new_state(layer) is not None]
    depth: dict[str, int] = {}
    for layer in needy:  # model.layers is in the order of the graph
        upstream = _ancestors(layer)
        depth[layer.name] = 1 + max((depth[n] for n in depth if n in upstream), default=-1)
    rows: list[list[Any]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for layer in needy:
        rows[depth[layer.name]].append(layer)
    return rows


def calls(model: keras.Model, layer: keras.layers.Layer) -> list[Sequence[Any]]:
    """The tensors that the layer is called on in the model, for each call."""
    nodes = [node for row in model._nodes_by_depth.values() for node in row]
    return [node.input_tensors for node in nodes if node.operation is layer]


def unreachable(model: keras.Model) -> str | None:
    """Says which layer needs data but lies inside another, where nothing can be fed to it."""
    for outer in model.layers:
        whole = isinstance(outer, keras.layers.TextVectorization) or new_state(outer) is not None
        for inner in () if whole else outer._flatten_layers(include_self=False):
            if new_state(inner) is not None:
                return (
                    f"layer {inner.name!r} wants adapting but lies inside layer {outer.name!r}, out of "
                    "reach; call it in the model itself, or give it its state"
                )
    return None


def unsavable(model: keras.Model) -> str | None:
    """Says which layer Keras before 3.14 saves, but fails to load."""
    if tuple(int(part) for part in keras.__version__.split(".")[:2]) >= (3, 14):
        return None
    for layer in model.layers:
        if getattr(layer, "output_mode", None) == "tf_idf":
            return (
                f"layer {layer.name!r}: Keras {keras.__version__} cannot load a TF-IDF lookup that it "
                "saved; Keras 3.14 can, on Python 3.11 or later; kerasline.components.preprocessing.layers.TfIdf always"
            )
    return None


def _run(model: keras.Model, inputs: Any, **_options: Any) -> Any:
    """Calls a functional model's layers on tensors, and those within them, one by one.

    The options of the outer call, `mask` and `training`, are left to the layers' own defaults.
    """
    functional = model._functional if isinstance(model, keras.Sequential) else model

    def called(operation: Any) -> Any:
        return functools.partial(_run, operation) if _is_nested(operation) else operation

    return functional._run_through_graph(inputs, operation_fn=called)


def _is_nested(operation: Any) -> bool:
    return isinstance(operation, keras.Sequential) or hasattr(operation, "_run_through_graph")


def _ancestors(layer: keras.layers.Layer) -> set[str]:
    found: set[str] = set()
    waiting = [layer]
    while waiting:
        for node in waiting.pop()._inbound_nodes:
            for tensor in node.input_tensors:
                operation = tensor._keras_history.operation
                if operation.name not in found:
                    found.add(operation.name)
                    waiting.append(operation)
    return found
