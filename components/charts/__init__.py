"""Charts as inline SVG, drawn from plain numbers: no dependency, light, dark and in print.

Each function returns the text of an `<svg class="chart">` that scales with its `viewBox`. Its colours are CSS
variables of `STYLE`, which a page includes once; `standalone` makes a file of charts, with the style in it.
Texts are escaped. What is not a finite number (None, NaN, infinities) is left out.
"""

from components.charts.bars import Bar, bar_chart, histogram
from components.charts.heat_map import heat_map
from components.charts.intervals import Interval, interval_plot
from components.charts.lines import Series, line_chart
from components.charts.numbers import number_text
from components.charts.scatter import Dot, scatter
from components.charts.style import STYLE
from components.charts.svg import standalone

__all__ = [
    "STYLE",
    "Bar",
    "Dot",
    "Interval",
    "Series",
    "bar_chart",
    "heat_map",
    "histogram",
    "interval_plot",
    "line_chart",
    "number_text",
    "scatter",
    "standalone",
]
