"""SVG elements as text. Every value is escaped, so that a name cannot become markup."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

# Colors and lines of all charts, as CSS variables: light, dark and print are one block each.
STYLE = """
:root { --chart-paper:#fff; --chart-ink:#1d2733; --chart-soft:#5f6b7a; --chart-grid:#e4e8ee; --chart-axis:#a3adba;
  --chart-1:#2764c5; --chart-2:#d2660b; --chart-3:#0b8468; --chart-4:#a13aa6; --chart-5:#8a6a00; --chart-6:#c0334d;
  --chart-on-heat:#fff }
@media (prefers-color-scheme: dark) { :root { --chart-paper:#171c24; --chart-ink:#e8ecf1; --chart-soft:#9ba7b6;
  --chart-grid:#2a323d; --chart-axis:#566172; --chart-1:#7fb0ff; --chart-2:#ffab5e; --chart-3:#4fd0ac;
  --chart-4:#e08ee4; --chart-5:#d9bb4f; --chart-6:#ff8b9f; --chart-on-heat:#0d1117 } }
@media print { :root { --chart-paper:#fff; --chart-ink:#000; --chart-soft:#444; --chart-grid:#ddd;
  --chart-axis:#888; --chart-1:#2764c5; --chart-2:#d2660b; --chart-3:#0b8468; --chart-4:#a13aa6; --chart-5:#8a6a00;
  --chart-6:#c0334d; --chart-on-heat:#fff } }
.chart { font:11px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif; font-variant-numeric:tabular-nums }
.chart text { fill:var(--chart-soft) } .chart text.name { fill:var(--chart-ink) }
.chart .grid { stroke:var(--chart-grid) } .chart .axis { stroke:var(--chart-axis); fill:none }
.chart .reference { stroke:var(--chart-axis); stroke-dasharray:4 3; fill:none }
.chart .s1 { color:var(--chart-1) } .chart .s2 { color:var(--chart-2) } .chart .s3 { color:var(--chart-3) }
.chart .s4 { color:var(--chart-4) } .chart .s5 { color:var(--chart-5) } .chart .s6 { color:var(--chart-6) }
.chart .line { stroke:currentColor; fill:none; stroke-width:2; stroke-linejoin:round; stroke-linecap:round }
.chart .dashed { stroke-dasharray:5 4 } .chart .thin { stroke-width:1.25 }
.chart .band { fill:currentColor; opacity:.16 } .chart .bar { fill:currentColor } .chart .dot { fill:currentColor }
.chart .hover { fill:transparent } .chart .hover:hover { fill:currentColor }
.chart .whisker { stroke:currentColor; stroke-width:1.5; fill:none }
.chart .bar + .whisker { stroke:var(--chart-ink) }
.chart .hollow .dot { fill:var(--chart-paper); stroke:currentColor; stroke-width:1.5 }
.chart .cell { fill:var(--chart-1) } .chart .frame { fill:none; stroke:var(--chart-grid) }
.chart .box { fill:var(--chart-paper); stroke:var(--chart-axis) }
.chart .edge { fill:none; stroke:var(--chart-axis); stroke-width:1.3 } .chart .edge.faint { opacity:.4 }
.chart .strong { font-weight:600; font-size:12.5px } .chart .plain { color:var(--chart-axis) }
.chart text.on-heat { fill:var(--chart-on-heat) } .chart text.on-paper { fill:var(--chart-ink) }
"""

# Width in pixels of a character of 11-pixel sans-serif, measured on the wider ones of the common fonts.
NARROW, WIDE, OTHER = 4.0, 8.2, 6.9


def tag(name: str, *children: str, **attributes: Any) -> str:
    """Return an element. `children` are markup. In attribute names, `_` becomes `-` and `kind` becomes `class`."""
    pairs = "".join(
        f' {"class" if key == "kind" else key.replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value not in (None, "")
    )
    return f"<{name}{pairs}>{''.join(children)}</{name}>" if children else f"<{name}{pairs}/>"


def text_element(text: Any, x: float, y: float, **attributes: Any) -> str:
    return tag("text", escape(str(text)), x=x, y=y, **attributes)


def tooltip(text: Any) -> str:
    """Return the element that a browser shows as a tooltip; empty for no text."""
    return f"<title>{escape(str(text))}</title>" if text else ""


def chart_svg(title: str, width: float, height: float, *marks: str) -> str:
    """Return a complete chart, with its title as the accessible name."""
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
    """Return an SVG file that shows charts of one size in a grid, with their style.

    Args:
        charts: the charts, as the functions of this package return them.
        width, height: size of each chart in pixels.
        columns: number of charts per row.

    Example:

    >>> from kerasline.components.charts import Bar, bar_chart
    >>> standalone([bar_chart([Bar("Cash", 928)], title="Rides")], 320, 80)[:11]
    '<svg xmlns='
    """
    across = max(min(columns, len(charts)), 1)
    down = -(-len(charts) // across)
    tiles = [
        tag("g", chart, transform=f"translate({number % across * width:g} {number // across * height:g})")
        for number, chart in enumerate(charts)
    ]
    style = f"<style>{STYLE} svg{{background:var(--chart-paper)}}</style>"
    size = {"width": across * width, "height": down * height}
    box = f"0 0 {size['width']:g} {size['height']:g}"
    return tag("svg", style, *tiles, xmlns="http://www.w3.org/2000/svg", viewBox=box, **size) + "\n"


def text_width(text: Any) -> float:
    """Estimate the width of a text in pixels, at the font size of the charts."""
    return sum(NARROW if c in " .,:;'|!iljtfr()[]" else WIDE if c in "mwMWGOQ@%…" else OTHER for c in str(text))


def shortened(text: Any, most: int) -> str:
    """Truncate a text to `most` characters."""
    text = str(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def _attribute(value: Any) -> str:
    return f"{round(value, 2):g}" if isinstance(value, float) else escape(str(value))
