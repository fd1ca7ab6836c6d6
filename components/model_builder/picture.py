"""The graph of a model as a picture: a self-contained SVG, light or dark as its reader is.

Layers lie in ranks, each below all that it takes from; within a rank they are ordered by the middle of
those above them, which keeps edges short (Sugiyama, Tagawa and Toda, 1981).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import keras

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 210, 56, 24, 34, 16
STYLE = """
svg { font: 12px system-ui, sans-serif; background: #fff }
rect { fill: #eef3fb; stroke: #5b7db1 } .input rect { fill: #eaf6ec; stroke: #4f9060 }
path { fill: none; stroke: #8a94a6; stroke-width: 1.3 } text { fill: #1c2430; text-anchor: middle }
.kind { font-weight: 600 } .told { fill: #5a6474 }
@media (prefers-color-scheme: dark) {
svg { background: #14181f } rect { fill: #1f2a3a; stroke: #6f94cc } .input rect { fill: #1d2f24; stroke: #63a877 }
path { stroke: #667085 } text { fill: #e6eaf0 } .told { fill: #9aa5b5 } }
"""


@dataclass(frozen=True)
class _Node:
    kind: str
    name: str
    told: str
    sources: tuple[int, ...]


def picture(model: keras.Model) -> str:
    """The model's layers and what flows between them.

    Args:
        model: functional; of another, whose graph nobody knows, the layers are drawn in a row.

    Returns:
        The text of an SVG file.
    """
    nodes = _nodes_of_graph(model) if hasattr(model, "_nodes_by_depth") else _nodes_in_a_row(model)
    ranks = _ranked(nodes)
    places = _placed(ranks)
    width = max((x for x, _ in places.values()), default=0) + BOX_WIDTH + MARGIN
    height = len(ranks) * (BOX_HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN
    edges = [_edge(places[source], places[key]) for key, node in nodes.items() for source in node.sources]
    boxes = [_box(node, *places[key]) for key, node in nodes.items()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'height="{height}" role="img"><title>{escape(model.name)}</title><style>{STYLE}</style>'
        f"{''.join(edges)}{''.join(boxes)}</svg>\n"
    )


def _nodes_of_graph(model: keras.Model) -> dict[int, _Node]:
    made_by: dict[int, int] = {}
    found: dict[int, _Node] = {}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            key = len(found)
            sources = dict.fromkeys(made_by[id(t)] for t in node.input_tensors if id(t) in made_by)
            found[key] = _Node(type(node.operation).__name__, node.operation.name, _told(node), tuple(sources))
            made_by |= {id(tensor): key for tensor in node.outputs}
    return found


def _nodes_in_a_row(model: keras.Model) -> dict[int, _Node]:
    return {
        number: _Node(
            type(layer).__name__,
            layer.name,
            f"{layer.count_params():,} parameters" if layer.built else "",
            (number - 1,) if number else (),
        )
        for number, layer in enumerate(model.layers)
    }


def _told(node: object) -> str:
    shape = "×".join("?" if size is None else str(size) for size in node.outputs[0].shape[1:]) or "1"
    count = node.operation.count_params() if hasattr(node.operation, "count_params") else 0
    return f"{shape}, {count:,} parameters" if count else shape


def _ranked(nodes: Mapping[int, _Node]) -> list[list[int]]:
    """Keys by rank: one below the lowest of its sources; the order within a rank by the middle of these."""
    rank: dict[int, int] = {}
    for key, node in nodes.items():  # sources come first
        rank[key] = 1 + max((rank[source] for source in node.sources), default=-1)
    ranks: list[list[int]] = [[] for _ in range(1 + max(rank.values(), default=-1))]
    for key in nodes:
        ranks[rank[key]].append(key)
    column: dict[int, float] = {}
    for keys in ranks:
        keys.sort(key=lambda key: _middle([column[s] for s in nodes[key].sources]))
        column |= {key: number - len(keys) / 2 for number, key in enumerate(keys)}
    return ranks


def _middle(columns: Sequence[float]) -> float:
    return sum(columns) / len(columns) if columns else 0.0


def _placed(ranks: Sequence[Sequence[int]]) -> dict[int, tuple[float, float]]:
    """The upper left corner of each box; every rank is centred."""
    widest = max(map(len, ranks), default=0)
    places = {}
    for number, keys in enumerate(ranks):
        left = MARGIN + (widest - len(keys)) * (BOX_WIDTH + GAP_X) / 2
        for column, key in enumerate(keys):
            places[key] = left + column * (BOX_WIDTH + GAP_X), MARGIN + number * (BOX_HEIGHT + GAP_Y)
    return places


def _edge(source: tuple[float, float], target: tuple[float, float]) -> str:
    x1, y1 = source[0] + BOX_WIDTH / 2, source[1] + BOX_HEIGHT
    x2, y2 = target[0] + BOX_WIDTH / 2, target[1]
    # One that passes other ranks goes round their boxes.
    bow = 0 if y2 - y1 <= GAP_Y + 1 else (BOX_WIDTH + GAP_X) / 2 * (1 if x2 >= x1 else -1)
    half = (y1 + y2) / 2
    return f'<path d="M{x1:g} {y1}C{x1 + bow:g} {half:g} {x2 + bow:g} {half:g} {x2:g} {y2}"/>'


def _box(node: _Node, x: float, y: float) -> str:
    middle = x + BOX_WIDTH / 2
    kind = ' class="input"' if node.kind == "InputLayer" else ""
    lines = [("kind", node.kind), ("", node.name), ("told", node.told)]
    texts = "".join(
        f'<text x="{middle:g}" y="{y + 17 + 16 * number}" class="{style}">{escape(_short(text))}</text>'
        for number, (style, text) in enumerate(lines)
    )
    return f'<g{kind}><rect x="{x:g}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>{texts}</g>'


def _short(text: str, most: int = 32) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
