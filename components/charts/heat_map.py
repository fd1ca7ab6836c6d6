"""Heat maps of counts, such as a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

from kerasline.components.charts.numbers import number_text
from kerasline.components.charts.plot import WIDTH
from kerasline.components.charts.svg import chart_svg, shortened, tag, text_element, text_width, tooltip

MOST_LABEL_CHARACTERS = 14
MOST_NUMBERED_ROWS = 16  # With more rows, the cells have no room for their counts.
LINE = 16.0


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    counts: Sequence[Sequence[float]],
    *,
    title: str,
    row_label: str = "",
    column_label: str = "",
) -> str:
    """Draw a square for each pair, shaded by its share of the row's total.

    Args:
        rows: names of the rows, written at the left.
        columns: names of the columns, written below.
        counts: a list of counts per row, one for each column.
        title: the accessible name of the chart.
        row_label, column_label: what rows and columns stand for.

    Returns:
        The `<svg>` element as text.

    Example:

    >>> names = ["cat", "dog"]
    >>> heat_map(names, names, [[8, 2], [1, 9]], title="Confusion matrix")[:4]
    '<svg'
    """
    side = 44.0 if len(rows) <= 6 else 34.0 if len(rows) <= MOST_NUMBERED_ROWS else max(640.0 / len(rows), 6.0)
    every = max(-(-11 // int(side)), 1)  # Omit names that would overlap.
    left = max((text_width(shortened(name, MOST_LABEL_CHARACTERS)) for name in rows), default=0.0) + 8
    top = LINE if row_label else 4.0
    right, bottom = left + side * len(columns), top + side * len(rows)
    marks = [text_element(row_label, 2, 11, kind="name")] if row_label else []
    for number, name in enumerate(rows):
        y = top + side * number
        if number % every == 0:
            marks.append(_name(name, left - 5, y + side / 2 + 4, "end"))
        total = sum(counts[number]) or 1
        for place, (column, count) in enumerate(zip(columns, counts[number])):
            text = f"{row_label or 'row'} {name}, {column_label or 'column'} {column}: "
            text += f"{number_text(count)} ({count / total:.1%} of the row)"
            marks.append(
                _cell(left + side * place, y, side, count, count / total, text, len(rows) <= MOST_NUMBERED_ROWS)
            )
    longest = max((text_width(shortened(name, MOST_LABEL_CHARACTERS)) for name in columns), default=0.0)
    upright = longest <= side
    for number, name in enumerate(columns):
        x, y = left + side * (number + 0.5), bottom + 14
        if number % every == 0:
            turn = {} if upright else {"transform": f"rotate(-45 {x:.1f} {y:.1f})"}
            marks.append(_name(name, x + (0 if upright else 4), y, "middle" if upright else "end", **turn))
    below = 18 if upright else longest * 0.72 + 16
    height = bottom + below + (LINE if column_label else 0)
    if column_label:
        marks.append(text_element(column_label, (left + right) / 2, height - 4, kind="name", text_anchor="middle"))
    return chart_svg(title, max(right + 8, WIDTH), height, *marks)


def _cell(x: float, y: float, side: float, count: float, share: float, text: str, numbered: bool) -> str:
    fill = tag("rect", x=x, y=y, width=side, height=side, kind="cell", fill_opacity=round(0.04 + 0.96 * share, 3))
    frame = tag("rect", x=x, y=y, width=side, height=side, kind="frame")
    number = ""
    if numbered:
        kind = "on-heat" if share > 0.55 else "on-paper"
        number = text_element(number_text(count), x + side / 2, y + side / 2 + 4, text_anchor="middle", kind=kind)
    return tag("g", tooltip(text), fill, frame, number)


def _name(name: str, x: float, y: float, anchor: str, **more: str) -> str:
    return tag(
        "g",
        tooltip(name) if len(str(name)) > MOST_LABEL_CHARACTERS else "",
        text_element(shortened(name, MOST_LABEL_CHARACTERS), x, y, text_anchor=anchor, **more),
    )
