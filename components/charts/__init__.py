"""Charts as inline SVG, without dependencies, for light and dark pages and for print.

Each function returns an `<svg class="chart">` element as text. It scales with its `viewBox`. Its colors are CSS
variables defined in `STYLE`, which a page includes once. `standalone` returns an SVG file of several charts with the
style inside. All texts are escaped. Values that are not finite numbers (None, NaN, infinities) are omitted.
"""

from kerasline.components.charts.bars import Bar, bar_chart, histogram
from kerasline.components.charts.graph import Box, graph
from kerasline.components.charts.heat_map import heat_map
from kerasline.components.charts.intervals import Interval, interval_plot
from kerasline.components.charts.lines import Series, line_chart
from kerasline.components.charts.numbers import number_text, value_text
from kerasline.components.charts.scatter import Dot, scatter
from kerasline.components.charts.svg import STYLE, standalone

__all__ = [
    "STYLE",
    "Bar",
    "Box",
    "Dot",
    "Interval",
    "Series",
    "bar_chart",
    "graph",
    "heat_map",
    "histogram",
    "interval_plot",
    "line_chart",
    "number_text",
    "scatter",
    "standalone",
    "value_text",
]
