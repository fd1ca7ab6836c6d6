"""The colours and lines of all charts: variables, so that light, dark and print are each one block."""

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
.chart text.on-heat { fill:var(--chart-on-heat) } .chart text.on-paper { fill:var(--chart-ink) }
"""
