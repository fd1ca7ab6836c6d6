"""Tables and curves of an evaluation: confusion, thresholds, curves, classes, residuals, fairness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kerasline.components.evaluator.fairness import gaps
from kerasline.components.evaluator.settings import EvaluatorSettings
from kerasline.components.metrics.base import Metrics
from kerasline.components.metrics.binary import BinaryScores, BinaryThresholds
from kerasline.components.metrics.cell_counts import CellCounts
from kerasline.components.metrics.detection import DetectionMetrics
from kerasline.components.metrics.estimates import Estimate
from kerasline.components.metrics.measuring import Measure, Measured, SumTally
from kerasline.components.metrics.metric_values import cell_spread
from kerasline.components.metrics.multi_class import Confusion
from kerasline.components.metrics.multi_label import MultiLabelMetrics
from kerasline.components.metrics.one_vs_rest import OneVsRestScores
from kerasline.components.metrics.regression import ResidualQuantiles, residual_table
from kerasline.components.metrics.resampling import Resampling
from kerasline.components.models.tasks import Output

MOST_CLASSES_SHOWN = 100


def details(
    outputs: Sequence[Output], measured: Measured, request: Measure, settings: EvaluatorSettings
) -> dict[str, Any]:
    """Return tables and curves by key of `metrics.json` (docs/EVALUATION.md)."""
    parts: dict[str, Any] = {
        "confusion": {},
        "thresholds": {},
        "curves": {},
        "residuals": {},
        "per_class": [],
        "fairness": [],
    }
    tally: Any
    for output in outputs:
        for family in request.families[output.name]:
            tally = measured.tallies.get((output.name, family.key, request.answers))
            tables = _tables_of_family(output, family, tally, settings, request.weighted)
            if isinstance(family, (BinaryThresholds, Confusion)):
                tables["fairness"] = _gaps(family, tally, measured, request, settings)
            for name, part in tables.items():
                if isinstance(parts[name], list):
                    parts[name] += [{"output": output.name, **entry} for entry in part]
                else:
                    parts[name][output.name] = part
    return parts


def _tables_of_family(
    output: Output, family: Metrics, tally: Any, settings: EvaluatorSettings, weighted: bool
) -> dict[str, Any]:
    if isinstance(family, BinaryThresholds):
        cells, sums = tally.of(0)
        return {"thresholds": family.table(cells, sums[1])}
    if isinstance(family, Confusion):
        return _class_tables(output, family, tally, settings.confidence, weighted)
    if isinstance(family, BinaryScores):
        cells, sums = tally.of(0)
        return {"curves": family.curves(cells, sums[1])}
    if isinstance(family, OneVsRestScores):
        return {"per_class": _areas_per_class(output, family, tally, settings)}
    if isinstance(family, MultiLabelMetrics):
        return {"per_class": _per_label(family, tally, output.classes or (), settings.confidence)}
    if isinstance(family, DetectionMetrics) and tally:
        per_class = _per_object_class(family, tally[0], output.classes or ())
        return {"per_class": per_class, "curves": family.curves(tally[0])}
    if isinstance(family, ResidualQuantiles) and tally:
        return {"residuals": residual_table(family.estimates(tally[0], 0))}
    return {}


def _class_tables(
    output: Output, family: Confusion, counts: CellCounts, confidence: float, weighted: bool
) -> dict[str, Any]:
    if family.classes > MOST_CLASSES_SHOWN:
        return {}
    names = output.classes or ()
    cells, sums = counts.of(0)
    classes = family.per_class(cells, sums[1], weighted, confidence)
    return {
        "confusion": {"classes": output.classes, "counts": family.matrix(cells, sums[1])},
        "per_class": [{**entry, "class": names[entry["class"]]} for entry in classes],
    }


def _areas_per_class(
    output: Output, family: OneVsRestScores, counts: CellCounts, settings: EvaluatorSettings
) -> list[dict[str, Any]]:
    """Return the areas under the curves of each class against the rest, with bootstrap intervals."""
    cells, sums = counts.of(0)
    all_classes = OneVsRestScores(family.classes, named=dict(enumerate(output.classes or ())))
    resampling = Resampling(settings.seed, settings.replicates)
    values, spreads = all_classes.values(cells, sums[1]), cell_spread(all_classes, cells, sums, resampling, output.name)
    found = []
    for name, rows in zip(output.classes or (), all_classes.class_rows(cells, sums[1]).tolist()):
        for area in ("roc_auc", "pr_auc"):
            one = Estimate(float(values[f"{area}_of_{name}"]), replicates=spreads[f"{area}_of_{name}"])
            found.append(_entry(name, area, one.value, rows, one.interval(settings.confidence)))
    return found


def _per_label(
    family: MultiLabelMetrics, tally: SumTally, classes: Sequence[str], confidence: float
) -> list[dict[str, Any]]:
    """Return precision, recall and F1 of each label, with bootstrap intervals."""
    values, spreads = (family.per_class(sums, classes) for sums in (tally.sums[0], tally.replicates[0]))
    found = []
    for label, figures in values.items():
        for metric in ("precision", "recall", "f1"):
            one = Estimate(float(figures[metric]), replicates=spreads[label][metric])
            found.append(_entry(label, metric, one.value, float(figures["rows"]), one.interval(confidence)))
    return found


def _per_object_class(family: DetectionMetrics, state: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return average precision and recall of the objects of each class."""
    counts, named = state.matches().true_counts(), dict(enumerate(names)) | state.names
    figures_of = sorted(family.per_class(state).items(), key=lambda item: (state.names.get(item[0], ""), item[0]))
    return [
        _entry(named.get(one, str(one)), metric, figures[metric], counts.get(one, 0))
        for one, figures in figures_of[:MOST_CLASSES_SHOWN]
        for metric in ("ap", "ap_50", "ar_100")
    ]


def _entry(
    name: str, metric: str, value: float, rows: float, interval: tuple[float | None, float | None] = (None, None)
) -> dict[str, Any]:
    return {"class": name, "metric": metric, "value": value, "low": interval[0], "high": interval[1], "rows": rows}


def _gaps(
    family: BinaryThresholds | Confusion,
    counts: CellCounts,
    measured: Measured,
    request: Measure,
    settings: EvaluatorSettings,
) -> list[dict[str, Any]]:
    """Return the fairness gaps of each slicing between the slices that are not small."""
    found = []
    for slicing in request.slices.slices:
        slices = {
            group: label
            for group, (of, label) in enumerate(request.slices.names)
            if of == slicing and measured.rows[group][0] >= settings.small_slice_rows
        }
        of_slicing = gaps(counts, family, slices, request.resampling, settings.confidence)
        found += [{"slicing": slicing, **gap} for gap in of_slicing]
    return found
