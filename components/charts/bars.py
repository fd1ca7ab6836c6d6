"""Bar charts and histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kerasline.components.charts.axis import Axis, category_axis, number_axis
from kerasline.components.charts.numbers import finite, number_text
from kerasline.components.charts.plot import WIDTH, Plot
from kerasline.components.charts.svg import tag, tooltip

ROW_HEIGHT = 22.0


@dataclass(frozen=True)
class Bar:
    """A bar of `bar_chart`.

    Attributes:
        name: the label of the bar.
        value: the length of the bar.
        low, high: the ends of its interval, drawn as a whisker. Optional.
    """

    name: str
    value: Any
    low: Any = None
    high: Any = None


def bar_chart(
    bars: Sequence[Bar],
    *,
    title: str,
    label: str = "",
    highest: float | None = None,
    color: int = 1,
    width: float = WIDTH,
    row_height: float = ROW_HEIGHT,
) -> str:
    """Draw horizontal bars from zero, the first at the top, with their intervals as whiskers.

    Args:
        bars: the bars.
        title: the accessible name of the chart.
        label: the label of the value axis.
        highest: a value that the axis includes, so that several charts have the same axis.
        color: number of the color of the bars, 1 to 6.
        width: width in pixels.
        row_height: height of each bar with its margin, in pixels.

    Returns:
        The `<svg>` element as text.

    Example:

    >>> bar_chart([Bar("Cash", 928), Bar("Credit card", 519)], title="Rides")[:4]
    '<svg'
    """
    values = [highest, *(v for bar in bars for v in (bar.value, bar.low, bar.high))]
    across = number_axis(values, label, zero=True, about=4)
    plot = Plot(
        title,
        across,
        category_axis([bar.name for bar in bars]),
        width=width,
        top_down=True,
        height=len(bars) * row_height + 28 + (16 if label else 0),
    )
    zero = plot.x(0.0)
    marks = []
    for number, bar in enumerate(bars):
        if not finite(bar.value):
            continue
        y, end = plot.y(number + 0.5), plot.x(bar.value)
        text = f"{bar.name}: {number_text(bar.value)}"
        whisker = ""
        if finite(bar.low) and finite(bar.high):
            text += f" ({number_text(bar.low)} to {number_text(bar.high)})"
            low, high = plot.x(bar.low), plot.x(bar.high)
            whisker = tag("path", d=f"M{low:.1f} {y - 3:.1f}v6m0 -3H{high:.1f}m0 -3v6", kind="whisker")
        shape = tag(
            "rect",
            x=min(zero, end),
            y=y - row_height * 0.36,
            width=max(abs(end - zero), 0.5),
            height=row_height * 0.72,
            rx=2,
            kind="bar",
        )
        marks.append(tag("g", tooltip(text), shape, whisker, kind=f"s{color}"))
    return plot.svg(*marks)


def histogram(
    buckets: Sequence[tuple[float, float, float]],
    *,
    title: str,
    label: str = "",
    counts: bool = True,
    within: tuple[float, float] | None = None,
    highest: float | None = None,
    color: int = 1,
    width: float = WIDTH,
    height: float = 150.0,
) -> str:
    """Draw a histogram: a vertical bar over the range of each bucket.

    Args:
        buckets: low end, high end and count of each bucket.
        title: the accessible name of the chart.
        label: the label of the value axis.
        counts: whether to draw the axis of the counts.
        within: the ends of the value axis. Derived from the buckets by default.
        highest: the upper end of the axis of the counts, without `counts`. The largest count by default.
        color: number of the color of the bars, 1 to 6.
        width, height: size in pixels.

    Returns:
        The `<svg>` element as text.

    Example:

    >>> histogram([(0.0, 1.0, 3), (1.0, 2.0, 5)], title="Miles")[:4]
    '<svg'
    """
    known = [bucket for bucket in buckets if all(map(finite, bucket))]
    across = number_axis([end for low, high, _ in known for end in (low, high)], label, within=within, about=4)
    up = number_axis([count for *_, count in known], zero=True, about=3)
    up = up if counts else Axis(up.low, highest or max((count for *_, count in known), default=1.0) or 1.0, ())
    plot = Plot(title, across, up, width=width, height=height)
    marks = []
    for low, high, count in known:
        x, top = plot.x(low), plot.y(count)
        where = number_text(low) if low == high else f"{number_text(low)} to {number_text(high)}"
        text = tooltip(f"{where}: {number_text(round(count, 6))}")
        size = {"width": max(plot.x(high) - x - 1, 1.5), "height": max(plot.bottom - top, 0.0)}
        marks.append(tag("rect", text, x=x + 0.5, y=top, **size, kind="bar"))
    return plot.svg(tag("g", *marks, kind=f"s{color}")) if marks else plot.svg()
