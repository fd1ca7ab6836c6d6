"""Elements of SVG as text; every value is escaped, so that a name can never become markup."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from kerasline.components.charts.style import STYLE

# Pixels of a character of 11-pixel sans-serif, by the wider ones of the usual fonts.
NARROW, WIDE, OTHER = 4.0, 8.2, 6.9


def tag(name: str, *children: str, **attributes: Any) -> str:
    """An element. `children` are markup; of an attribute's name `_` stands for `-`, and `kind` for `class`."""
    given = "".join(
        f' {"class" if key == "kind" else key.replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value not in (None, "")
    )
    return f"<{name}{given}>{''.join(children)}</{name}>" if children else f"<{name}{given}/>"


def words(text: Any, x: float, y: float, **attributes: Any) -> str:
    return tag("text", escape(str(text)), x=x, y=y, **attributes)


def told(text: Any) -> str:
    """What a mark says when pointed at."""
    return f"<title>{escape(str(text))}</title>" if text else ""


def drawing(title: str, width: float, height: float, *marks: str) -> str:
    """A whole chart, named for those who do not see it."""
    box = f"0 0 {width:g} {height:g}"
    return tag(
        "svg",
        *marks,
        xmlns="http://www.w3.org/2000/svg",
        kind="chart",
        role="img",
        aria_label=title or "chart",
        viewBox=box,
        width=f"{width:g}",
        height=f"{height:g}",
    )


def standalone(charts: Sequence[str], width: float, height: float, columns: int = 3) -> str:
    """The text of an SVG file: charts of one size, in rows, with their style."""
    across = max(min(columns, len(charts)), 1)
    down = -(-len(charts) // across)
    placed = [
        tag("g", chart, transform=f"translate({number % across * width:g} {number // across * height:g})")
        for number, chart in enumerate(charts)
    ]
    style = f"<style>{STYLE} svg{{background:var(--chart-paper)}}</style>"
    size = {"width": across * width, "height": down * height}
    box = f"0 0 {size['width']:g} {size['height']:g}"
    return tag("svg", style, *placed, xmlns="http://www.w3.org/2000/svg", viewBox=box, **size) + "\n"


def text_width(text: Any) -> float:
    """About how many pixels a text takes, in the size of all charts."""
    return sum(NARROW if c in " .,:;'|!iljtfr()[]" else WIDE if c in "mwMWGOQ@%…" else OTHER for c in str(text))


def shortened(text: Any, most: int) -> str:
    text = str(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def _attribute(value: Any) -> str:
    return f"{round(value, 2):g}" if isinstance(value, float) else escape(str(value))
