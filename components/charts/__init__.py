"""Charts as inline SVG, drawn from plain numbers: no dependency, light, dark and in print.

Each function returns the text of an `<svg class="chart">` that scales with its `viewBox`. Its colours are CSS
variables of `STYLE`, which a page includes once; `standalone` makes a file of charts, with the style in it.
Texts are escaped. What is not a finite number (None, NaN, infinities) is left out.
"""

from kerasline.components.charts.bars import Bar, bar_chart, histogram
from kerasline.components.charts.heat_map import heat_map
from kerasline.components.charts.intervals import Interval, interval_plot
from kerasline.components.charts.lines import Series, line_chart
from kerasline.components.charts.numbers import number_text
from kerasline.components.charts.scatter import Dot, scatter
from kerasline.components.charts.style import STYLE
from kerasline.components.charts.svg import standalone

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
