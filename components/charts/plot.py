"""The frame of all plots: two axes with labels and grid, and a legend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kerasline.components.charts.axis import Axis
from kerasline.components.charts.svg import chart_svg, tag, text_element, text_width, tooltip

WIDTH, HEIGHT = 320.0, 215.0
LINE, GAP = 16.0, 8.0
COLORS = 6


@dataclass(frozen=True)
class Key:
    """An entry of the legend. `color` is the number of the color, 1 to 6."""

    name: str
    color: int
    dashed: bool = False


class Plot:
    """A plot with two axes.

    Args:
        title: the accessible name of the chart.
        across, up: the horizontal and the vertical axis.
        width, height: size in pixels.
        legend: the entries of the legend, which is drawn if there are several.
        top_down: the vertical axis starts at the top.
    """

    def __init__(
        self,
        title: str,
        across: Axis,
        up: Axis,
        *,
        width: float = WIDTH,
        height: float = HEIGHT,
        legend: Sequence[Key] = (),
        top_down: bool = False,
    ) -> None:
        self.title, self.across, self.up = title, across, up
        self.width, self.height, self.top_down = width, height, top_down
        self._legend = _legend_rows(legend, width)
        widest = max((text_width(text) for _, text in up.ticks), default=0.0)
        last = text_width(across.ticks[-1][1]) if across.ticks and not across.names else 0.0
        self.left = min(widest * 1.06 + GAP, width * 0.6)
        self.right = width - max(last / 2, GAP)
        self.top = GAP + LINE * len(self._legend) + (LINE + 4 if up.label else 0)
        self.bottom = height - GAP / 2 - (LINE if across.ticks else 0) - (LINE if across.label else 0)

    def x(self, value: float) -> float:
        """Return the x coordinate of a value in pixels."""
        return self.left + self.across.share(value) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Return the y coordinate of a value in pixels."""
        share = self.up.share(value)
        return self.top + (share if self.top_down else 1 - share) * (self.bottom - self.top)

    def svg(self, *marks: str) -> str:
        """Return the chart with these elements on top of the axes."""
        parts = [*self._legend_marks(), *self._grid(), *self._across_texts(), *self._up_texts(), *marks]
        return chart_svg(self.title, self.width, self.height, *parts)

    def path(self, points: Sequence[tuple[float, float]], steps: bool = False) -> str:
        """Return the `d` attribute of a line through points. With `steps`, each value holds until the next point."""
        placed = [(self.x(x), self.y(y)) for x, y in points]
        join: Callable[[float, float], str] = (
            (lambda x, y: f"H{x:.1f}V{y:.1f}") if steps else (lambda x, y: f"L{x:.1f} {y:.1f}")
        )
        return "".join(join(x, y) if number else f"M{x:.1f} {y:.1f}" for number, (x, y) in enumerate(placed))

    def _legend_marks(self) -> list[str]:
        parts = []
        for row, keys in enumerate(self._legend):
            for x, key in keys:
                y = GAP + LINE * row + 4
                swatch = tag("path", d=f"M{x:.1f} {y - 3:.1f}h13", kind="line dashed" if key.dashed else "line")
                parts.append(tag("g", swatch, text_element(key.name, x + 18, y), kind=f"s{key.color}"))
        return parts

    def _grid(self) -> list[str]:
        lines = []
        if not self.up.names:
            lines += [f"M{self.left:.1f} {self.y(value):.1f}H{self.right:.1f}" for value, _ in self.up.ticks]
        elif not self.across.names:
            lines += [f"M{self.x(value):.1f} {self.top:.1f}V{self.bottom:.1f}" for value, _ in self.across.ticks]
        grid = [tag("path", d="".join(lines), kind="grid")] if lines else []
        return [*grid, tag("path", d=f"M{self.left:.1f} {self.bottom:.1f}H{self.right:.1f}", kind="axis")]

    def _across_texts(self) -> list[str]:
        y, free_from, parts = self.bottom + LINE - 3, -1e9, []
        for value, text in self.across.ticks:
            x, half = self.x(value), text_width(text) / 2
            if x - half >= free_from:  # Omit a label that would overlap its neighbour.
                parts.append(text_element(text, x, y, text_anchor="middle"))
                free_from = x + half + GAP / 2
        if self.across.label:
            middle = (self.left + self.right) / 2
            parts.append(
                text_element(self.across.label, middle, self.height - GAP / 2, kind="name", text_anchor="middle")
            )
        return parts

    def _up_texts(self) -> list[str]:
        kind = "name" if self.up.names else None
        names = self.up.names or [None] * len(self.up.ticks)
        parts = [
            tag(
                "g",
                tooltip(name) if name != text else "",
                text_element(text, self.left - GAP / 2 - 1, self.y(value) + 4, text_anchor="end", kind=kind),
            )
            for (value, text), name in zip(self.up.ticks, names)
        ]
        if self.up.label:
            parts.append(text_element(self.up.label, 2.0, self.top - GAP - 3, kind="name"))
        return parts


def _legend_rows(keys: Sequence[Key], width: float) -> list[list[tuple[float, Key]]]:
    """Arrange the keys in rows. Return each with its x coordinate."""
    rows: list[list[tuple[float, Key]]] = []
    x = width
    for key in keys if len(keys) > 1 else ():
        needed = 18 + text_width(key.name) + 2 * GAP
        if x + needed > width:
            rows.append([])
            x = 2.0
        rows[-1].append((x, key))
        x += needed
    return rows
