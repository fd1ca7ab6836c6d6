"""The graph of a model as a self-contained SVG image that follows the viewer's light or dark theme.

Layers are arranged in ranks, each below all of its sources. Within a rank they are ordered by the mean position of
their sources, which keeps edges short (Sugiyama, Tagawa and Toda, 1981).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import keras

from kerasline.components.core.keras_compat import graph_nodes, has_graph

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 210, 56, 24, 34, 16
STYLE = """
svg { font: 12px system-ui, sans-serif; background: #fff }
rect { fill: #eef3fb; stroke: #5b7db1 } .input rect { fill: #eaf6ec; stroke: #4f9060 }
path { fill: none; stroke: #8a94a6; stroke-width: 1.3 } text { fill: #1c2430; text-anchor: middle }
.kind { font-weight: 600 } .details { fill: #5a6474 }
@media (prefers-color-scheme: dark) {
svg { background: #14181f } rect { fill: #1f2a3a; stroke: #6f94cc } .input rect { fill: #1d2f24; stroke: #63a877 }
path { stroke: #667085 } text { fill: #e6eaf0 } .details { fill: #9aa5b5 } }
"""


@dataclass(frozen=True)
class _Node:
    kind: str
    name: str
    details: str
    sources: tuple[int, ...]


def draw_graph(model: keras.Model) -> str:
    """Draw the layers of a model and the edges between them.

    Args:
        model: the model. The graph of a model that is not functional is unknown; its layers are drawn in a chain.

    Returns:
        The text of an SVG file.
    """
    nodes = _nodes_of_graph(model) if has_graph(model) else _nodes_of_chain(model)
    ranks = _ranks(nodes)
    positions = _positions(ranks)
    width = max((x for x, _ in positions.values()), default=0) + BOX_WIDTH + MARGIN
    height = len(ranks) * (BOX_HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN
    edges = [_edge(positions[source], positions[key]) for key, node in nodes.items() for source in node.sources]
    boxes = [_box(node, *positions[key]) for key, node in nodes.items()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'height="{height}" role="img"><title>{escape(model.name)}</title><style>{STYLE}</style>'
        f"{''.join(edges)}{''.join(boxes)}</svg>\n"
    )


def _nodes_of_graph(model: keras.Model) -> dict[int, _Node]:
    computed_by: dict[int, int] = {}
    nodes: dict[int, _Node] = {}
    for key, node in enumerate(graph_nodes(model)):
        sources = dict.fromkeys(computed_by[id(t)] for t in node.input_tensors if id(t) in computed_by)
        nodes[key] = _Node(type(node.operation).__name__, node.operation.name, _details(node), tuple(sources))
        computed_by |= {id(tensor): key for tensor in node.outputs}
    return nodes


def _nodes_of_chain(model: keras.Model) -> dict[int, _Node]:
    return {
        number: _Node(
            type(layer).__name__,
            layer.name,
            f"{layer.count_params():,} parameters" if layer.built else "",
            (number - 1,) if number else (),
        )
        for number, layer in enumerate(model.layers)
    }


def _details(node: Any) -> str:
    """Return the output shape of a node and its number of parameters."""
    shape = "×".join("?" if size is None else str(size) for size in node.outputs[0].shape[1:]) or "1"
    count = node.operation.count_params() if hasattr(node.operation, "count_params") else 0
    return f"{shape}, {count:,} parameters" if count else shape


def _ranks(nodes: Mapping[int, _Node]) -> list[list[int]]:
    """Return the keys of the nodes by rank. A node's rank is one more than the largest rank of its sources."""
    rank: dict[int, int] = {}
    for key, node in nodes.items():  # sources come first
        rank[key] = 1 + max((rank[source] for source in node.sources), default=-1)
    ranks: list[list[int]] = [[] for _ in range(1 + max(rank.values(), default=-1))]
    for key in nodes:
        ranks[rank[key]].append(key)
    column: dict[int, float] = {}
    for keys in ranks:
        keys.sort(key=lambda key: _mean([column[s] for s in nodes[key].sources]))
        column |= {key: number - len(keys) / 2 for number, key in enumerate(keys)}
    return ranks


def _mean(columns: Sequence[float]) -> float:
    return sum(columns) / len(columns) if columns else 0.0


def _positions(ranks: Sequence[Sequence[int]]) -> dict[int, tuple[float, float]]:
    """Return the upper left corner of each box. Ranks are centered."""
    widest = max(map(len, ranks), default=0)
    positions = {}
    for number, keys in enumerate(ranks):
        left = MARGIN + (widest - len(keys)) * (BOX_WIDTH + GAP_X) / 2
        for column, key in enumerate(keys):
            positions[key] = left + column * (BOX_WIDTH + GAP_X), float(MARGIN + number * (BOX_HEIGHT + GAP_Y))
    return positions


def _edge(source: tuple[float, float], target: tuple[float, float]) -> str:
    x1, y1 = source[0] + BOX_WIDTH / 2, source[1] + BOX_HEIGHT
    x2, y2 = target[0] + BOX_WIDTH / 2, target[1]
    # An edge that skips ranks bends around their boxes.
    bend = 0 if y2 - y1 <= GAP_Y + 1 else (BOX_WIDTH + GAP_X) / 2 * (1 if x2 >= x1 else -1)
    middle = (y1 + y2) / 2
    return f'<path d="M{x1:g} {y1:g}C{x1 + bend:g} {middle:g} {x2 + bend:g} {middle:g} {x2:g} {y2:g}"/>'


def _box(node: _Node, x: float, y: float) -> str:
    middle = x + BOX_WIDTH / 2
    kind = ' class="input"' if node.kind == "InputLayer" else ""
    lines = [("kind", node.kind), ("", node.name), ("details", node.details)]
    texts = "".join(
        f'<text x="{middle:g}" y="{y + 17 + 16 * number:g}" class="{style}">{escape(_shortened(text))}</text>'
        for number, (style, text) in enumerate(lines)
    )
    return f'<g{kind}><rect x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>{texts}</g>'


def _shortened(text: str, limit: int = 32) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
