"""Partial dependence: the mean score of a model when a raw column has the same value in all rows.

Friedman, "Greedy function approximation: a gradient boosting machine", 2001, section 8.2.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.core.component import Context
from kerasline.components.core.errors import DataError, ParameterError, nearest
from kerasline.components.data.arrow_types import is_text
from kerasline.components.data.fold import fold
from kerasline.components.explainer.explained_output import ExplainedOutput
from kerasline.components.explainer.intervals import around, weighted_mean
from kerasline.components.explainer.progress import record_start, report_progress
from kerasline.components.explainer.sample import Sample, load_sample
from kerasline.components.explainer.subject import Subject, Target, load_subject

# Quantiles that bound the grid of a numeric column: beyond them, there are too few rows.
LOWEST, HIGHEST = 0.05, 0.95
MOST_FEATURES, MOST_CLASSES = 6, 3


@dataclass(frozen=True)
class Grid:
    """The values of a column at which partial dependence is computed.

    Attributes:
        kind: "number" or "category".
        values: an Arrow array of the column's type.
    """

    feature: str
    kind: str
    values: pa.Array


def grids(
    subject: Subject, sample: Sample, requested: Sequence[str] | None, ranked: Sequence[str], points: int
) -> list[Grid]:
    """Return the grids of the requested columns or, if None, of the most important columns that have one.

    Raises:
        DataError: a requested column is neither numeric nor categorical.
    """
    if requested is None:
        grids = (_grid(name, sample.table.column(name), points, strict=True) for name in ranked)
        return [grid for grid in grids if grid is not None][:MOST_FEATURES]
    found = []
    for name in requested:
        grid = _grid(name, sample.table.column(name), points, strict=False)
        if grid is None:
            kind = sample.table.schema.field(name).type
            raise DataError(f"Explainer.features: column {name!r} of type {kind} is neither numeric nor categorical")
        found.append(grid)
    return found


def dependences(
    target: Target, sample: Path, grids: Sequence[Grid], units: Sequence[int], context: Context
) -> list[dict[str, Any]]:
    """Compute the mean score at every value of the grids, with pointwise normal intervals.

    Args:
        units: the indices of the classes, or outputs, to return: one entry each.

    Returns:
        `feature`, `kind`, `class` (null if the model has a single score), `x`, `y`, `low`, `high`.
    """
    progress = context.work_dir / "dependences"
    accumulate = functools.partial(_dependence, target=target, sample=sample, units=units, progress=progress)
    with report_progress(progress, "partial dependence", len(grids), context.report):
        return fold(grids, accumulate, operator.add, context) or []


def units_of(explained: ExplainedOutput, requested: Sequence[int | str] | None, scores: np.ndarray) -> list[int]:
    """Return the indices of the requested classes (names or numbers) or, if None, of those predicted most often.

    Args:
        scores: float64 (rows, units).

    Raises:
        ParameterError: a requested class does not exist.
    """
    if requested is not None:
        return [_unit(explained, name) for name in requested]
    if explained.task == "regression":
        return list(range(min(explained.units, MOST_CLASSES)))
    counts = np.bincount(scores.argmax(1), minlength=explained.units)
    return sorted(np.argsort(-counts, kind="stable")[:MOST_CLASSES].tolist())


def _unit(explained: ExplainedOutput, name: int | str) -> int:
    names = [explained.unit_name(unit) or "0" for unit in range(explained.units)]
    if str(name) in names:
        return names.index(str(name))
    if str(name).isdecimal() and int(name) < explained.units:
        return int(name)
    raise ParameterError(f"Explainer.classes: no class {str(name)!r}; {nearest(str(name), names)}")


def _grid(name: str, column: pa.ChunkedArray, points: int, strict: bool) -> Grid | None:
    """Return the grid of a column, or None if it is neither numeric nor categorical.

    Args:
        strict: do not treat texts that rarely recur as categories.
    """
    kind, values = column.type, column.drop_null()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = values.filter(pc.is_finite(values)) if pa.types.is_floating(kind) else values
        return Grid(name, "number", _quantiles(values, points)) if len(values) else None
    if not is_text(kind) and not pa.types.is_boolean(kind):
        return None
    counts = sorted(
        pc.value_counts(values.combine_chunks()).to_pylist(), key=lambda c: (-c["counts"], str(c["values"]))
    )
    if not counts or (strict and len(counts) > max(points, len(values) // 10)):
        return None
    return Grid(name, "category", pa.array([count["values"] for count in counts[:points]], kind))


def _quantiles(values: pa.ChunkedArray, points: int) -> pa.Array:
    """Return values of the column, ascending: all if there are few, else those at even ranks."""
    distinct = values.unique()
    if len(distinct) <= points:
        return distinct.take(pc.sort_indices(distinct))
    ordered = values.take(pc.sort_indices(values)).combine_chunks()
    places = np.round(np.linspace(LOWEST, HIGHEST, points) * (len(ordered) - 1)).astype(np.int64)
    return ordered.take(pa.array(places)).unique()


def _dependence(grid: Grid, target: Target, sample: Path, units: Sequence[int], progress: Path) -> list[dict[str, Any]]:
    record_start(progress, grid.feature)
    subject, drawn = load_subject(target), load_sample(sample)
    found = np.empty((len(grid.values), 3, len(units)))
    for number, value in enumerate(grid.values):
        scores = []
        for chunk in drawn.chunks(subject):
            constant = pa.repeat(value, chunk[1] - chunk[0])
            scores.append(subject.scores(drawn.raw(subject, chunk, {grid.feature: constant}))[:, units])
        for place, of_unit in enumerate(np.concatenate(scores).T):
            mean, influence = weighted_mean(of_unit, drawn.row_values.weight)
            found[number, :, place] = mean, *around(mean, influence)
    curves = zip(("y", "low", "high"), found.transpose(1, 2, 0))
    lists = {name: curve.tolist() for name, curve in curves}
    return [
        {
            "feature": grid.feature,
            "kind": grid.kind,
            "class": subject.explained.unit_name(unit),
            "x": grid.values.to_pylist(),
            **{name: curve[place] for name, curve in lists.items()},
        }
        for place, unit in enumerate(units)
    ]
