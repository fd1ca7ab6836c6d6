"""The graph of a model as a self-contained SVG image that follows the viewer's light or dark theme."""

from __future__ import annotations

from typing import Any

import keras

from kerasline.components.charts.graph import Box, graph
from kerasline.components.core.keras_compat import graph_nodes, has_graph

BOX_WIDTH = 230.0


def draw_graph(model: keras.Model) -> str:
    """Draw the layers of a model and the edges between them.

    Args:
        model: the model. The graph of a model that is not functional is unknown; its layers are drawn in a chain.

    Returns:
        The text of an SVG file.
    """
    boxes = _boxes_of_graph(model) if has_graph(model) else _boxes_of_chain(model)
    return graph(boxes, title=model.name, width=BOX_WIDTH, standalone=True) + "\n"


def _boxes_of_graph(model: keras.Model) -> dict[str, Box]:
    computed_by: dict[int, str] = {}
    boxes: dict[str, Box] = {}
    for number, node in enumerate(graph_nodes(model)):
        sources = dict.fromkeys(computed_by[id(t)] for t in node.input_tensors if id(t) in computed_by)
        boxes[str(number)] = _box(node.operation, _details(node), *sources)
        computed_by |= {id(tensor): str(number) for tensor in node.outputs}
    return boxes


def _boxes_of_chain(model: keras.Model) -> dict[str, Box]:
    return {
        str(number): _box(
            layer,
            f"{layer.count_params():,} parameters" if layer.built else "",
            *([str(number - 1)] if number else []),
        )
        for number, layer in enumerate(model.layers)
    }


def _box(operation: Any, details: str, *sources: str) -> Box:
    kind = type(operation).__name__
    return Box((kind, operation.name, details), sources, "s3" if kind == "InputLayer" else "", operation.name)


def _details(node: Any) -> str:
    """Return the output shape of a node and its number of parameters."""
    shape = "×".join("?" if size is None else str(size) for size in node.outputs[0].shape[1:]) or "1"
    count = node.operation.count_params() if hasattr(node.operation, "count_params") else 0
    return f"{shape}, {count:,} parameters" if count else shape
