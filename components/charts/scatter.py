"""Scatter plots of one value against another, or against a category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kerasline.components.charts.axis import category_axis, number_axis
from kerasline.components.charts.numbers import finite
from kerasline.components.charts.plot import HEIGHT, WIDTH, Plot
from kerasline.components.charts.svg import tag, tooltip


@dataclass(frozen=True)
class Dot:
    """A point of `scatter`.

    Attributes:
        x, y: the coordinates.
        note: the text of the tooltip.
        kind: `"plain"`, `"hollow"` or `"strong"`.
    """

    x: Any
    y: Any
    note: str = ""
    kind: str = "plain"


def scatter(
    dots: Sequence[Dot],
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    x_log: bool = False,
    choice: bool = False,
    steps: Sequence[tuple[float, float]] = (),
    width: float = WIDTH,
    height: float = HEIGHT,
) -> str:
    """Draw a circle per point.

    Args:
        dots: the points.
        title: the accessible name of the chart.
        x_label, y_label: the labels of the axes.
        x_log: use a logarithmic x axis if all values are positive.
        choice: treat the values of x as categories.
        steps: points of an additional step line, whose values hold until the next point.
        width, height: size in pixels.

    Returns:
        The `<svg>` element as text.

    Example:

    >>> scatter([Dot(0.1, 3.0), Dot(0.2, 2.5)], title="Loss by learning rate")[:4]
    '<svg'
    """
    if choice:
        names = sorted({str(dot.x) for dot in dots})
        across, place = category_axis(names, x_label, 12), {name: n + 0.5 for n, name in enumerate(names)}
        placed = [(place[str(dot.x)], dot) for dot in dots]
    else:
        across = number_axis([dot.x for dot in dots], x_label, log=x_log)
        placed = [(dot.x, dot) for dot in dots]
    plot = Plot(title, across, number_axis([dot.y for dot in dots], y_label), width=width, height=height)
    marks = [tag("g", tag("path", d=plot.path(steps, steps=True), kind="line thin"), kind="s6")] if steps else []
    for x, dot in placed:
        if finite(x) and finite(dot.y):
            shape = tag("circle", tooltip(dot.note), cx=plot.x(x), cy=plot.y(dot.y), r=4, kind="dot")
            marks.append(tag("g", shape, kind={"strong": "s6", "hollow": "s2 hollow"}.get(dot.kind, "s1")))
    return plot.svg(*marks)
