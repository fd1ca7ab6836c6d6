"""Line charts with bands of uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kerasline.components.charts.axis import number_axis
from kerasline.components.charts.numbers import finite, number_text
from kerasline.components.charts.plot import COLORS, HEIGHT, WIDTH, Key, Plot
from kerasline.components.charts.svg import tag, tooltip

MOST_DOTS = 20  # Longer lines get no visible dots.
MOST_TOOLTIPS = 60  # Approximate number of tooltips along a longer line.


@dataclass(frozen=True)
class Series:
    """A line of `line_chart`.

    Attributes:
        name: the name of the line in the legend.
        x, y: the coordinates of its points. The line has a gap where one is missing.
        low, high: lower and upper ends of a band around the line. Optional.
        steps: draw steps: each value holds until the next point.
        dashed: draw a dashed line.
        color: number of the color, 1 to 6. Defaults to the position of the line among the series.
    """

    name: str
    x: Sequence[Any]
    y: Sequence[Any]
    low: Sequence[Any] = ()
    high: Sequence[Any] = ()
    steps: bool = False
    dashed: bool = False
    color: int = 0


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    x_within: tuple[float, float] | None = None,
    y_within: tuple[float, float] | None = None,
    x_log: bool = False,
    diagonal: bool = False,
    width: float = WIDTH,
    height: float = HEIGHT,
) -> str:
    """Draw one line per series.

    Args:
        series: the lines.
        title: the accessible name of the chart.
        x_label, y_label: the labels of the axes.
        x_within, y_within: the ends of the axes. Derived from the values by default.
        x_log: use a logarithmic x axis if all values are positive.
        diagonal: draw a dashed reference line from corner to corner.
        width, height: size in pixels.

    Returns:
        The `<svg>` element as text.

    Example:

    >>> line_chart([Series("training", [1, 2, 3], [0.9, 0.5, 0.4])], title="Loss by epoch")[:4]
    '<svg'
    """
    across = number_axis((x for s in series for x in s.x), x_label, within=x_within, log=x_log)
    heights = [y for s in series for side in (s.y, s.low, s.high) for y in side]
    up = number_axis(heights, y_label, within=y_within)
    colors = [one.color or number % COLORS + 1 for number, one in enumerate(series)]
    keys = [Key(one.name, color, one.dashed) for one, color in zip(series, colors)]
    plot = Plot(title, across, up, width=width, height=height, legend=keys)
    marks = []
    if diagonal:
        d = plot.path([(across.low, up.low), (across.high, up.high)])
        marks.append(tag("path", d=d, kind="reference"))
    marks += [tag("g", *_marks(plot, one), kind=f"s{color}") for one, color in zip(series, colors)]
    return plot.svg(*marks)


def _marks(plot: Plot, series: Series) -> list[str]:
    band = [p for p in zip(series.x, series.low, series.high) if all(map(finite, p))]
    marks = []
    if band:
        outline = [(x, high) for x, _, high in band] + [(x, low) for x, low, _ in reversed(band)]
        marks.append(tag("path", d=plot.path(outline) + "Z", kind="band"))
    runs = _unbroken(list(zip(series.x, series.y)))
    d = "".join(plot.path(run, series.steps) for run in runs if len(run) > 1)
    if d:
        marks.append(tag("path", tooltip(series.name), d=d, kind="line dashed" if series.dashed else "line"))
    points = [point for run in runs for point in run]
    alone = {run[0] for run in runs if len(run) == 1}
    every = max(len(points) // MOST_TOOLTIPS, 1)
    for number, (x, y) in enumerate(points):
        visible = len(points) <= MOST_DOTS or (x, y) in alone
        if visible or number % every == 0:
            text = f"{series.name}: {number_text(y)} at {plot.across.label or 'x'} {number_text(x)}"
            marks.append(
                tag(
                    "circle",
                    tooltip(text),
                    cx=plot.x(x),
                    cy=plot.y(y),
                    r=3 if visible else 5,
                    kind="dot" if visible else "hover",
                )
            )
    return marks


def _unbroken(points: Sequence[tuple[Any, Any]]) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if finite(x) and finite(y):
            runs[-1].append((float(x), float(y)))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
