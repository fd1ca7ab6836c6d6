"""Diagnostics of the Metrics section: confusion matrix, curves, thresholds, residuals and metrics by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kerasline.components.charts import Bar, Series, bar_chart, heat_map, line_chart
from kerasline.pipeline.report.evaluation import Evaluated

UNIT = (0.0, 1.0)
MOST_THRESHOLDS = 40
MOST_CONFUSED = 10


def diagnostics(found: Evaluated) -> list[dict[str, Any]]:
    """Return, for each output, `name`, `figures` and tables: `confused`, `classes`, `thresholds` and `residuals`."""
    parts = [_of_output(found.facts, output) for output in found.outputs]
    return [part for part in parts if any(part[key] for key in ("figures", "thresholds", "classes", "residuals"))]


def _of_output(facts: Mapping[str, Any], output: str) -> dict[str, Any]:
    residuals = (facts.get("residuals") or {}).get(output)
    return {
        "name": output,
        "task": facts["outputs"][output].get("task"),
        "figures": [
            *_confusion(facts, output),
            *_curves(facts, output),
            *(_residuals(residuals) if residuals else ()),
        ],
        "thresholds": _thresholds((facts.get("thresholds") or {}).get(output) or ()),
        "confused": _confused((facts.get("confusion") or {}).get(output)),
        "classes": _classes([row for row in facts.get("per_class") or () if row["output"] == output]),
        "residuals": _quantiles(residuals) if residuals else [],
    }


def _confusion(facts: Mapping[str, Any], output: str) -> list[dict[str, Any]]:
    confusion = (facts.get("confusion") or {}).get(output)
    if not confusion:
        return []
    classes = [str(name) for name in confusion["classes"]]
    svg = heat_map(
        classes,
        classes,
        confusion["counts"],
        title="Confusion matrix: true class by predicted class",
        row_label="true",
        column_label="predicted",
    )
    return [{"svg": svg, "caption": "Confusion matrix, shaded by the share of the true class"}]


def _confused(confusion: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the pairs of a true and another predicted class with the most rows, and their share of the true class."""
    if not confusion:
        return []
    pairs = [
        {"true": str(true), "predicted": str(predicted), "rows": count, "share": count / sum(counts)}
        for true, counts in zip(confusion["classes"], confusion["counts"])
        for predicted, count in zip(confusion["classes"], counts)
        if count and true != predicted
    ]
    return sorted(pairs, key=lambda pair: -pair["rows"])[:MOST_CONFUSED]


def _curves(facts: Mapping[str, Any], output: str) -> list[dict[str, Any]]:
    """Draw the available curves of ROC, precision-recall and calibration."""
    curves = (facts.get("curves") or {}).get(output) or {}
    kinds = {
        "roc": ("Receiver operating characteristic", "false positive rate", "true positive rate", True),
        "precision_recall": ("Precision and recall", "recall", "precision", False),
        "calibration": ("Calibration: observed against predicted", "mean prediction", "observed proportion", True),
    }
    figures = []
    for kind, (caption, x_label, y_label, diagonal) in kinds.items():
        if kind in curves:
            curve = Series(y_label, curves[kind]["x"], curves[kind]["y"])
            svg = line_chart(
                [curve],
                title=caption,
                x_label=x_label,
                y_label=y_label,
                x_within=UNIT,
                y_within=UNIT,
                diagonal=diagonal,
                height=300,
            )
            figures.append({"svg": svg, "caption": caption})
    return figures


def _residuals(residuals: Mapping[str, Any]) -> list[dict[str, Any]]:
    line = Series("residual", residuals["quantiles"], residuals["values"])
    svg = line_chart([line], title="Residuals by quantile", x_label="quantile", y_label="residual", x_within=UNIT)
    return [{"svg": svg, "caption": "Residuals (prediction minus label) by quantile"}]


def _quantiles(residuals: Mapping[str, Any], most: int = 11) -> list[tuple[float, float]]:
    pairs = list(zip(residuals["quantiles"], residuals["values"]))
    return _thinned(pairs, most)


def _thresholds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add the rates that follow from the counts."""
    return [{**row, **_rates(row)} for row in _thinned(list(rows), MOST_THRESHOLDS)]


def _rates(row: Mapping[str, Any]) -> dict[str, float | None]:
    hits, false = row["true_positives"], row["false_positives"]
    missed, right = row["false_negatives"], row["true_negatives"]
    return {
        "precision": _ratio(hits, hits + false),
        "recall": _ratio(hits, hits + missed),
        "specificity": _ratio(right, right + false),
        "f1": _ratio(2 * hits, 2 * hits + false + missed),
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _classes(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return a table with a row per class and a column per metric, and a bar chart of the F1 scores."""
    if not entries:
        return None
    metrics = list(dict.fromkeys(entry["metric"] for entry in entries))
    rows: dict[str, dict[str, Any]] = {}
    for entry in entries:
        row = rows.setdefault(str(entry["class"]), {"class": entry["class"], "rows": entry.get("rows"), "by": {}})
        row["by"][entry["metric"]] = entry
    bars = [
        Bar(name, r["by"]["f1"]["value"], r["by"]["f1"].get("low"), r["by"]["f1"].get("high"))
        for name, r in rows.items()
        if "f1" in r["by"]
    ]
    svg = bar_chart(bars, title="F1 score by class", label="F1 score") if 0 < len(bars) <= 40 else ""
    return {"metrics": metrics, "rows": list(rows.values()), "svg": svg}


def _thinned(rows: Sequence[Any], most: int) -> list[Any]:
    """Return at most `most` rows, evenly spaced, with the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(number * (len(rows) - 1) / (most - 1))] for number in range(most)]
