"""Slices: each figure of each part of the rows, as a table to sort and as intervals against the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kerasline.components.charts import Interval, interval_plot

if TYPE_CHECKING:
    from kerasline.pipeline.report.evaluation import Evaluated

# A page of thousands of rows is slow on a phone: of many metrics, the main ones are kept.
MOST_ROWS, MOST_PLOTTED, MOST_METRICS = 1500, 30, 6


def shown(found: Evaluated) -> dict[str, Any] | None:
    """`rows` of the table, `metrics` to choose from, and `plots`, one a metric and slicing."""
    entries = [entry for output in found.outputs for entry in found.entries(output, whole=False)]
    if not entries:
        return None
    rows = [{**entry, "title": found.title(entry)} for entry in entries[:MOST_ROWS]]
    titles = list(dict.fromkeys(row["title"] for row in rows))
    return {
        "rows": [{**row, "differs": _differs(row, found)} for row in rows],
        "left_out": len(entries) - len(rows),
        "metrics": titles,
        "slicings": found.facts.get("slicings") or [],
        "small_rows": found.facts.get("small_slice_rows"),
        "plots": [plot for output in found.outputs for plot in _plots(found, output)],
    }


def _differs(row: Mapping[str, Any], found: Evaluated) -> bool:
    corrected = row.get("p_corrected")
    return corrected is not None and corrected < 1 - (found.facts.get("confidence") or 0.95)


def _plots(found: Evaluated, output: str) -> list[dict[str, Any]]:
    wholes = {entry["metric"]: entry for entry in found.entries(output, whole=True)}
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in found.entries(output, whole=False):
        groups.setdefault((entry["metric"], entry["slicing"]), []).append(entry)
    main = list(dict.fromkeys(metric for metric, _ in groups))[:MOST_METRICS]
    return [
        _plot(found, slicing, entries, wholes.get(metric))
        for (metric, slicing), entries in groups.items()
        if metric in main
    ]


def _plot(
    found: Evaluated, slicing: str, entries: Sequence[Mapping[str, Any]], whole: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The worst slice first; of very many, the worst alone."""
    title = found.title(entries[0])
    known = [entry for entry in entries if entry["value"] is not None]
    sign = -1 if entries[0].get("direction") == "down" else 1
    worst = sorted(known, key=lambda entry: sign * entry["value"])[:MOST_PLOTTED]
    svg = interval_plot(
        [_interval(entry, entry["slice"]) for entry in worst],
        title=f"{title} by {slicing}",
        label=title,
        reference=_interval(whole, "all rows") if whole else None,
    )
    few = f", the worst {len(worst)} of {len(known)}" if len(worst) < len(known) else ""
    return {"metric": title, "svg": svg, "caption": f"{title} by {slicing}{few}"}


def _interval(entry: Mapping[str, Any], name: str) -> Interval:
    rows = f"{entry['rows']:,} rows" if entry.get("rows") is not None else ""
    return Interval(name, entry["value"], entry.get("low"), entry.get("high"), bool(entry.get("small")), rows)
