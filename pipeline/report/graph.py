"""A drawing of the pipeline, each stage below the stages that it reads from (Sugiyama, Tagawa and Toda, 1981).

An edge that crosses ranks reserves a position in each of them, so that it runs between the boxes. An edge is faint
if a longer path connects the same stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kerasline.components.charts.svg import chart_svg, shortened, tag, text_element, tooltip
from kerasline.pipeline.report.gather import Gathered, Stage

BOX, PASSAGE, HEIGHT = 156.0, 18.0, 44.0
GAP_X, GAP_Y, MARGIN = 22.0, 34.0, 6.0
SWEEPS = 8
STATE_COLORS = {"ran": "s3", "cached": "s1", "skipped": "s2", "failed": "s6", "running": "s5"}


@dataclass
class _Place:
    """The position of a box or, without a stage, of an edge that crosses a rank."""

    rank: int
    stage: Stage | None = None
    above: list[_Place] = field(default_factory=list)
    below: list[_Place] = field(default_factory=list)
    x: float = 0.0

    @property
    def width(self) -> float:
        return BOX if self.stage else PASSAGE

    @property
    def y(self) -> float:
        return MARGIN + self.rank * (HEIGHT + GAP_Y)


def picture(gathered: Gathered) -> str:
    """Return an SVG of the stages with their states, times and edges; empty if there are no stages."""
    stages = {stage.name: stage for stage in gathered.stages}
    if not stages:
        return ""
    sources = {name: [s for s in stage.sources if s in stages] for name, stage in stages.items()}
    ranks, ways = _laid_out(stages, sources)
    _place(ranks)
    left = min(place.x - place.width / 2 for rank in ranks for place in rank) - MARGIN
    for place in (place for rank in ranks for place in rank):
        place.x -= left
    width = max(place.x + place.width / 2 for rank in ranks for place in rank) + MARGIN
    implied = {(source, name) for name in stages for source in sources[name] if _has_longer_path(source, name, sources)}
    edges = [tag("path", d=_edge(way), kind="edge faint" if ends in implied else "edge") for ends, way in ways.items()]
    boxes = [_box(place, place.stage) for rank in ranks for place in rank if place.stage]
    height = len(ranks) * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN
    return chart_svg(f"The stages of {gathered.run.pipeline}", width, height, *edges, *boxes)


def _laid_out(
    stages: Mapping[str, Stage], sources: Mapping[str, Sequence[str]]
) -> tuple[list[list[_Place]], dict[tuple[str, str], list[_Place]]]:
    """Return the positions by rank, and for each edge the positions on its path."""
    rank = _ranks(sources)
    ranks: list[list[_Place]] = [[] for _ in range(1 + max(rank.values()))]
    boxes = {name: _Place(rank[name], stage) for name, stage in stages.items()}
    for box in boxes.values():
        ranks[box.rank].append(box)
    ways: dict[tuple[str, str], list[_Place]] = {}
    for name, names in sources.items():
        for source in names:
            way = [boxes[source], *(_Place(r) for r in range(rank[source] + 1, rank[name])), boxes[name]]
            ways[source, name] = way
            for place in way[1:-1]:
                ranks[place.rank].append(place)
            for upper, lower in zip(way, way[1:]):
                upper.below.append(lower)
                lower.above.append(upper)
    return ranks, ways


def _ranks(sources: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Assign ranks: one below the lowest source. A stage without sources is right above its highest reader."""
    rank: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in rank:
            rank[name] = 0
            rank[name] = 1 + max((depth(source) for source in sources[name]), default=-1)
        return rank[name]

    for name in sources:
        depth(name)
    for name in [name for name in sources if not sources[name]]:
        readers = [rank[other] for other, names in sources.items() if name in names]
        rank[name] = max(min(readers, default=1) - 1, 0)
    return rank


def _place(ranks: Sequence[list[_Place]]) -> None:
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
    """Return whether another source of the node reads, directly or indirectly, from this one."""
    waiting = [other for other in sources[name] if other != source]
    seen: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node == source:
            return True
        if node not in seen:
            seen.add(node)
            waiting.extend(sources[node])
    return False


def _edge(way: Sequence[_Place]) -> str:
    upper = way[0]
    d = f"M{upper.x:.1f} {upper.y + HEIGHT:.1f}"
    for place in way[1:]:
        start = upper.y + HEIGHT
        half = (start + place.y) / 2
        d += f"C{upper.x:.1f} {half:.1f} {place.x:.1f} {half:.1f} {place.x:.1f} {place.y:.1f}"
        d += "" if place.stage else f"v{HEIGHT:g}"
        upper = place
    return d


def _box(place: _Place, stage: Stage) -> str:
    x, y = place.x - BOX / 2, place.y
    seconds = f" · {stage.seconds:.1f} s" if stage.seconds and stage.state in ("ran", "failed") else ""
    state = "from an earlier run" if stage.state == "earlier" else stage.state
    note = "\n".join(filter(None, [f"{stage.name}: {state}{seconds}", stage.message]))
    box = (
        tag("rect", x=x, y=y, width=BOX, height=HEIGHT, rx=7, kind="stage"),
        tag("rect", x=x, y=y + 7, width=4, height=HEIGHT - 14, rx=2, kind="bar"),
        text_element(shortened(stage.name, 19), x + 14, y + 18, kind="name strong"),
        text_element(state + seconds, x + 14, y + 34),
    )
    return tag("g", tooltip(note), *box, kind=STATE_COLORS.get(stage.state, "plain"))
