"""The Metrics section: values for all rows, against a baseline, by slice, across exported forms, between groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kerasline.components.charts import Interval, interval_plot
from kerasline.pipeline.report import curves
from kerasline.pipeline.report.evaluation import Evaluated, evaluations
from kerasline.pipeline.report.gather import Gathered

# A page with thousands of rows is slow on a phone.
MOST_ROWS, MOST_PLOTTED, MOST_METRICS = 1500, 30, 6


def section(gathered: Gathered) -> dict[str, Any] | None:
    found = evaluations(gathered)
    every = [stage.name for stage, _ in gathered.outputs("Evaluation")]
    unread = [name for name in every if name not in {e.stage.name for e in found}]
    exported = _exported_forms(gathered)
    return {"evaluations": [_evaluation(e, exported) for e in found], "unread": unread} if every else None


def _evaluation(found: Evaluated, exported: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    facts = found.facts
    whole = [entry for output in found.outputs for entry in found.entries(output, whole=True)]
    return {
        "stage": found.stage.name,
        "facts": facts,
        "confidence": found.confidence,
        "whole": [{**entry, "title": found.title(entry)} for entry in whole],
        "compared": facts.get("baseline") or any(entry.get("baseline") is not None for entry in whole),
        "slices": _slices(found),
        "curves": curves.diagnostics(found),
        "fairness": facts.get("fairness") or [],
        "forms": _forms(found, exported),
        "latency": facts.get("latency") or {},
        "notes": facts.get("notes") or [],
    }


def _exported_forms(gathered: Gathered) -> list[Mapping[str, Any]]:
    """Return the forms that Exporters wrote and measured, in the format of `metrics.json`."""
    return [
        {**form, "rows": facts.get("rows")}
        for _, _, facts in gathered.documents("ModelForms", "forms.json")
        for form in facts.get("forms") or ()
        if form.get("metrics")
    ]


def _forms(found: Evaluated, exported: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the differences of each exported form from the model, by metric, the largest first."""
    rows = []
    for form in (*(found.facts.get("forms") or ()), *exported):
        metrics = [{**m, "title": found.title(m)} for m in form.get("metrics") or ()]
        rows.append({**form, "metrics": sorted(metrics, key=lambda m: -abs(m.get("difference") or 0))})
    return rows


def _slices(found: Evaluated) -> dict[str, Any] | None:
    """Return `rows` of the table, `metrics` to filter by, and `plots`, one per metric and slicing."""
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
    """Plot the slices, the worst first. If there are many, only the worst."""
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
    few = f", worst {len(worst)} of {len(known)}" if len(worst) < len(known) else ""
    return {"metric": title, "svg": svg, "caption": f"{title} by {slicing}{few}"}


def _interval(entry: Mapping[str, Any], name: str) -> Interval:
    rows = f"{entry['rows']:,} rows" if entry.get("rows") is not None else ""
    return Interval(name, entry["value"], entry.get("low"), entry.get("high"), bool(entry.get("small")), rows)
