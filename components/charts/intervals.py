"""Plots of estimates with their intervals, compared with a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kerasline.components.charts.axis import category_axis, number_axis
from kerasline.components.charts.numbers import finite, number_text
from kerasline.components.charts.plot import Plot
from kerasline.components.charts.svg import tag, tooltip

ROW_HEIGHT = 20.0


@dataclass(frozen=True)
class Interval:
    """An estimate of `interval_plot`.

    Attributes:
        name: the label of the estimate.
        value: the estimate.
        low, high: the ends of its interval. Optional.
        faint: draw a hollow dot, for an estimate from little data.
        note: text added to the tooltip.
    """

    name: str
    value: Any
    low: Any = None
    high: Any = None
    faint: bool = False
    note: str = ""


def interval_plot(
    intervals: Sequence[Interval],
    *,
    title: str,
    label: str = "",
    reference: Interval | None = None,
    width: float = 360.0,
) -> str:
    """Draw a dot and a whisker per estimate, the first at the top.

    Args:
        intervals: the estimates.
        title: the accessible name of the chart.
        label: the label of the value axis.
        reference: an estimate to compare with, drawn as a dashed line and a band across all rows.
        width: width in pixels.

    Returns:
        The `<svg>` element as text.

    Example:

    >>> interval_plot([Interval("Cash", 0.8, 0.7, 0.9)], title="Accuracy by payment")[:4]
    '<svg'
    """
    every = [*intervals, *([reference] if reference else [])]
    across = number_axis([v for i in every for v in (i.value, i.low, i.high)], label, about=4)
    plot = Plot(
        title,
        across,
        category_axis([i.name for i in intervals]),
        width=width,
        top_down=True,
        height=len(intervals) * ROW_HEIGHT + 28 + (16 if label else 0),
    )
    marks = _reference(plot, reference) if reference else []
    for number, one in enumerate(intervals):
        if finite(one.value):
            shape = _mark(plot, one, plot.y(number + 0.5))
            marks.append(tag("g", *shape, kind="s1 hollow" if one.faint else "s1"))
    return plot.svg(*marks)


def _reference(plot: Plot, whole: Interval) -> list[str]:
    marks, height = [], plot.bottom - plot.top
    if finite(whole.low) and finite(whole.high):
        low, high = plot.x(whole.low), plot.x(whole.high)
        size = {"x": low, "width": max(high - low, 1.0), "y": plot.top, "height": height}
        marks.append(tag("g", tag("rect", tooltip(_text(whole)), **size, kind="band"), kind="s2"))
    if finite(whole.value):
        marks.append(
            tag(
                "path",
                tooltip(_text(whole)),
                d=f"M{plot.x(whole.value):.1f} {plot.top:.1f}v{height:.1f}",
                kind="reference",
            )
        )
    return marks


def _mark(plot: Plot, one: Interval, y: float) -> list[str]:
    marks = [tooltip(_text(one))]
    if finite(one.low) and finite(one.high):
        low, high = plot.x(one.low), plot.x(one.high)
        marks.append(tag("path", d=f"M{low:.1f} {y - 3:.1f}v6m0 -3H{high:.1f}m0 -3v6", kind="whisker"))
    return [*marks, tag("circle", cx=plot.x(one.value), cy=y, r=4, kind="dot")]


def _text(one: Interval) -> str:
    between = f" ({number_text(one.low)} to {number_text(one.high)})" if finite(one.low) and finite(one.high) else ""
    return f"{one.name}: {number_text(one.value)}{between}{', ' + one.note if one.note else ''}"
