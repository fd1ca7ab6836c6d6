"""Graphs: boxes, each below those that it depends on, and the edges between them.

Boxes are arranged in ranks, and within a rank by the mean position of their neighbours, which keeps edges short
(Sugiyama, Tagawa and Toda, 1981). An edge that crosses ranks reserves a position in each of them, so that it runs
between the boxes.
"""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kerasline.components.charts.svg import STYLE, chart_svg, shortened, tag, text_element, tooltip

PASSAGE, GAP_X, GAP_Y, MARGIN = 18.0, 22.0, 34.0, 6.0
LINE_HEIGHT, CHARACTER_WIDTH = 16.0, 7.0
SWEEPS = 8


@dataclass(frozen=True)
class Box:
    """A box of a graph.

    Attributes:
        lines: its texts, the first one in bold.
        sources: names of the boxes that it depends on.
        color: class of the color of a bar at its side, such as `s1`, or an empty text for no bar.
        note: its tooltip.
    """

    lines: Sequence[str]
    sources: Sequence[str] = ()
    color: str = ""
    note: str = ""


@dataclass
class _Place:
    """The position of a box or, without a box, of an edge that crosses a rank."""

    rank: int
    width: float
    box: Box | None = None
    above: list[_Place] = field(default_factory=list)
    below: list[_Place] = field(default_factory=list)
    x: float = 0.0


def graph(
    boxes: Mapping[str, Box], *, title: str, width: float = 156.0, faint: bool = False, standalone: bool = False
) -> str:
    """Draw a graph without cycles.

    Args:
        boxes: the boxes by name.
        width: width of a box in pixels.
        faint: whether an edge is faint if a longer path connects the same boxes.
        standalone: whether the drawing contains the style of the charts, as a file needs it.

    Returns:
        The text of an SVG element; empty if there are no boxes.
    """
    if not boxes:
        return ""
    sources = {name: [source for source in box.sources if source in boxes] for name, box in boxes.items()}
    height = 12 + LINE_HEIGHT * max(len(box.lines) for box in boxes.values())
    ranks, ways = _ranks_and_ways(boxes, sources, width)
    _arrange(ranks)
    places = [place for rank in ranks for place in rank]
    left = min(place.x - place.width / 2 for place in places) - MARGIN
    for place in places:
        place.x -= left
    implied = {(source, name) for name in boxes for source in sources[name] if _has_longer_path(source, name, sources)}
    edges = [
        tag("path", d=_edge(way, height), kind="edge faint" if faint and ends in implied else "edge")
        for ends, way in ways.items()
    ]
    drawn = [_box(place, place.box, height) for place in places if place.box is not None]
    style = [f"<style>{STYLE} svg{{background:var(--chart-paper)}}</style>"] if standalone else []
    right = max(place.x + place.width / 2 for place in places) + MARGIN
    return chart_svg(title, right, _top(len(ranks), height) - GAP_Y + MARGIN, *style, *edges, *drawn)


def _ranks_and_ways(
    boxes: Mapping[str, Box], sources: Mapping[str, Sequence[str]], width: float
) -> tuple[list[list[_Place]], dict[tuple[str, str], list[_Place]]]:
    """Return the places by rank, and for each edge the places on its way."""
    rank = _ranks(sources)
    ranks: list[list[_Place]] = [[] for _ in range(1 + max(rank.values()))]
    places = {name: _Place(rank[name], width, box) for name, box in boxes.items()}
    for place in places.values():
        ranks[place.rank].append(place)
    ways: dict[tuple[str, str], list[_Place]] = {}
    for name, names in sources.items():
        for source in names:
            passages = [_Place(r, PASSAGE) for r in range(rank[source] + 1, rank[name])]
            ways[source, name] = way = [places[source], *passages, places[name]]
            for place in passages:
                ranks[place.rank].append(place)
            for upper, lower in zip(way, way[1:]):
                upper.below.append(lower)
                lower.above.append(upper)
    return ranks, ways


def _ranks(sources: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Assign ranks: one below the lowest source. A box without sources is right above the highest box that needs it."""
    rank: dict[str, int] = {}
    first_reader: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(sources).static_order():
        rank[name] = 1 + max((rank[source] for source in sources[name]), default=-1)
        for source in sources[name]:
            first_reader[source] = min(first_reader.get(source, rank[name]), rank[name])
    return {name: one if sources[name] else max(first_reader.get(name, 1) - 1, 0) for name, one in rank.items()}


def _arrange(ranks: Sequence[list[_Place]]) -> None:
    """Order each rank by the mean position of the neighbours, then move all towards these means."""
    for rank in ranks:
        _separate(rank, [0.0] * len(rank))
    for sweep in range(2 * SWEEPS):
        downwards = sweep % 2 == 0
        for rank in ranks if downwards else reversed(ranks):
            targets = {id(place): _middle(place, downwards) for place in rank}
            if sweep < SWEEPS:
                rank.sort(key=lambda place: targets[id(place)])
            _separate(rank, [targets[id(place)] for place in rank])


def _middle(place: _Place, of_those_above: bool) -> float:
    near = (place.above or place.below) if of_those_above else (place.below or place.above)
    return sum(other.x for other in near) / len(near) if near else place.x


def _separate(rank: Sequence[_Place], targets: Sequence[float]) -> None:
    """Set positions near the targets, in order and without overlap: the mean of packing from both ends."""
    from_left, from_right = list(targets), list(targets)
    for i in range(1, len(rank)):
        from_left[i] = max(targets[i], from_left[i - 1] + _distance(rank[i - 1], rank[i]))
    for i in range(len(rank) - 2, -1, -1):
        from_right[i] = min(targets[i], from_right[i + 1] - _distance(rank[i], rank[i + 1]))
    for place, left, right in zip(rank, from_left, from_right):
        place.x = (left + right) / 2


def _distance(one: _Place, other: _Place) -> float:
    return (one.width + other.width) / 2 + GAP_X


def _has_longer_path(source: str, name: str, sources: Mapping[str, Sequence[str]]) -> bool:
    """Return whether another source of the box depends, directly or indirectly, on this one."""
    waiting = [other for other in sources[name] if other != source]
    seen: set[str] = set()
    while waiting:
        box = waiting.pop()
        if box == source:
            return True
        if box not in seen:
            seen.add(box)
            waiting.extend(sources[box])
    return False


def _top(rank: int, height: float) -> float:
    return MARGIN + rank * (height + GAP_Y)


def _edge(way: Sequence[_Place], height: float) -> str:
    upper = way[0]
    d = f"M{upper.x:.1f} {_top(upper.rank, height) + height:.1f}"
    for place in way[1:]:
        start, end = _top(upper.rank, height) + height, _top(place.rank, height)
        half = (start + end) / 2
        d += f"C{upper.x:.1f} {half:.1f} {place.x:.1f} {half:.1f} {place.x:.1f} {end:.1f}"
        d += "" if place.box is not None else f"v{height:g}"
        upper = place
    return d


def _box(place: _Place, box: Box, height: float) -> str:
    x, y = place.x - place.width / 2, _top(place.rank, height)
    most = int((place.width - 20) / CHARACTER_WIDTH)
    marks = [tag("rect", x=x, y=y, width=place.width, height=height, rx=7, kind="box")]
    marks += [tag("rect", x=x, y=y + 7, width=4, height=height - 14, rx=2, kind="bar")] if box.color else []
    marks += [
        text_element(shortened(line, most), x + 14, y + 18 + LINE_HEIGHT * n, kind="" if n else "name strong")
        for n, line in enumerate(box.lines)
    ]
    return tag("g", tooltip(box.note), *marks, kind=box.color)
