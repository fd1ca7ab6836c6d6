"""Lines: values along another, with bands of uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kerasline.components.charts.axis import number_axis
from kerasline.components.charts.numbers import finite, number_text
from kerasline.components.charts.plot import COLOURS, HEIGHT, WIDTH, Key, Plot
from kerasline.components.charts.svg import tag, told

FEW, HOVERED = 20, 60


@dataclass(frozen=True)
class Series:
    """A line.

    Attributes:
        low, high: a band around it.
        steps: each value holds until the next.
        color: its number, from 1; by its place among the series when left out.
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
    """One line a series; a gap where a value is missing.

    Args:
        x_within, y_within: ends of the axes; by the values when left out.
        diagonal: a dashed line from corner to corner, what a curve is held against.
    """
    across = number_axis((x for s in series for x in s.x), x_label, within=x_within, log=x_log)
    heights = [y for s in series for side in (s.y, s.low, s.high) for y in side]
    up = number_axis(heights, y_label, within=y_within)
    colors = [one.color or number % COLOURS + 1 for number, one in enumerate(series)]
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
        marks.append(tag("path", told(series.name), d=d, kind="line dashed" if series.dashed else "line"))
    points = [point for run in runs for point in run]
    alone = {run[0] for run in runs if len(run) == 1}
    every = max(len(points) // HOVERED, 1)
    for number, (x, y) in enumerate(points):
        seen = len(points) <= FEW or (x, y) in alone
        if seen or number % every == 0:
            text = f"{series.name}: {number_text(y)} at {plot.across.label or 'x'} {number_text(x)}"
            marks.append(
                tag(
                    "circle",
                    told(text),
                    cx=plot.x(x),
                    cy=plot.y(y),
                    r=3 if seen else 5,
                    kind="dot" if seen else "hover",
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
