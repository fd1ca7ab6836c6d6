"""Partial dependence: the mean answer of a model when a raw column has one value in every row.

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
from kerasline.components.data.fold import fold
from kerasline.components.explainer.answers import Answers
from kerasline.components.explainer.intervals import around, weighted_mean
from kerasline.components.explainer.progress import begun, watched
from kerasline.components.explainer.sample import Sample, opened_sample
from kerasline.components.explainer.subject import Question, Subject, opened

# Of numbers, the middle nine tenths: where there are few rows, a mean says little.
LOWEST, HIGHEST = 0.05, 0.95
MOST_FEATURES, MOST_CLASSES = 6, 3


@dataclass(frozen=True)
class Grid:
    """The values of a column at which the model is asked.

    Attributes:
        kind: number or category.
        values: an Arrow array of the column's type.
    """

    feature: str
    kind: str
    values: pa.Array


def grids(
    subject: Subject, sample: Sample, asked: Sequence[str] | None, ranked: Sequence[str], points: int
) -> list[Grid]:
    """The grids of the columns asked for, or of the first of those ranked by importance that have one.

    Raises:
        ParameterError: a column is not among those that the features need.
        DataError: a column asked for is neither number nor category.
    """
    if asked is None:
        found = (_grid(name, sample.table.column(name), points, strict=True) for name in ranked)
        return [grid for grid in found if grid is not None][:MOST_FEATURES]
    known = list(subject.features.input)
    for name in asked:
        if name not in known:
            raise ParameterError(f"Explainer.features: the model uses no column {name!r}; {nearest(name, known)}")
    found = [_grid(name, sample.table.column(name), points, strict=False) for name in asked]
    for name, grid in zip(asked, found):
        if grid is None:
            kind = sample.table.schema.field(name).type
            raise DataError(
                f"Explainer.features: column {name!r} of type {kind} has no numbers or categories to go through"
            )
    return found


def dependences(
    question: Question, sample: Path, grids: Sequence[Grid], units: Sequence[int], context: Context
) -> list[dict[str, Any]]:
    """The mean score at every value of the grids, with normal intervals over the rows, pointwise.

    Args:
        units: the classes, or numbers, whose scores are told: an entry each.

    Returns:
        `feature`, `kind`, `class` (null where there is but one score), `x`, `y`, `low`, `high`.
    """
    progress = context.work_dir / "dependences"
    accumulate = functools.partial(_dependence, question=question, sample=sample, units=units, progress=progress)
    with watched(progress, "partial dependence", len(grids), context.report):
        return fold(grids, accumulate, operator.add, context) or []


def units_of(answers: Answers, asked: Sequence[int | str] | None, scores: np.ndarray) -> list[int]:
    """Which classes are told: those asked for by name or number, or those predicted most often.

    Args:
        scores: float64 (rows, units).

    Raises:
        ParameterError: there is no such class.
    """
    if asked is not None:
        return [_unit(answers, name) for name in asked]
    if answers.task == "regression":
        return list(range(min(answers.units, MOST_CLASSES)))
    counts = np.bincount(scores.argmax(1), minlength=answers.units)
    return sorted(np.argsort(-counts, kind="stable")[:MOST_CLASSES].tolist())


def _unit(answers: Answers, name: int | str) -> int:
    names = [answers.unit_name(unit) or "0" for unit in range(answers.units)]
    if str(name) in names:
        return names.index(str(name))
    if str(name).isdecimal() and int(name) < answers.units:
        return int(name)
    raise ParameterError(f"Explainer.classes: no class {str(name)!r}; {nearest(str(name), names)}")


def _grid(name: str, column: pa.ChunkedArray, points: int, strict: bool) -> Grid | None:
    """None where the column has no values to go through.

    Args:
        strict: leaves out texts that hardly recur, which are no categories.
    """
    kind, held = column.type, column.drop_null()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        held = held.filter(pc.is_finite(held)) if pa.types.is_floating(kind) else held
        return Grid(name, "number", _quantiles(held, points)) if len(held) else None
    textual = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not textual and not pa.types.is_boolean(kind):
        return None
    counts = sorted(pc.value_counts(held.combine_chunks()).to_pylist(), key=lambda c: (-c["counts"], str(c["values"])))
    if not counts or (strict and len(counts) > max(points, len(held) // 10)):
        return None
    return Grid(name, "category", pa.array([count["values"] for count in counts[:points]], kind))


def _quantiles(held: pa.ChunkedArray, points: int) -> pa.Array:
    """Values that occur, in order: all where they are few, else those at even ranks."""
    distinct = held.unique()
    if len(distinct) <= points:
        return distinct.take(pc.sort_indices(distinct))
    ordered = held.take(pc.sort_indices(held)).combine_chunks()
    places = np.round(np.linspace(LOWEST, HIGHEST, points) * (len(ordered) - 1)).astype(np.int64)
    return ordered.take(pa.array(places)).unique()


def _dependence(
    grid: Grid, question: Question, sample: Path, units: Sequence[int], progress: Path
) -> list[dict[str, Any]]:
    begun(progress, grid.feature)
    subject, rows = opened(question), opened_sample(sample)
    found = np.empty((len(grid.values), 3, len(units)))
    for number, value in enumerate(grid.values):
        scores = []
        for chunk in rows.chunks(subject):
            constant = pa.repeat(value, chunk[1] - chunk[0])
            scores.append(subject.scores(rows.raw(subject, chunk, {grid.feature: constant}))[:, units])
        for place, of_unit in enumerate(np.concatenate(scores).T):
            mean, influence = weighted_mean(of_unit, rows.given.weight)
            found[number, :, place] = mean, *around(mean, influence)
    curves = zip(("y", "low", "high"), found.transpose(1, 2, 0))
    told = {name: values.tolist() for name, values in curves}
    return [
        {
            "feature": grid.feature,
            "kind": grid.kind,
            "class": subject.answers.unit_name(unit),
            "x": grid.values.to_pylist(),
            **{name: values[place] for name, values in told.items()},
        }
        for place, unit in enumerate(units)
    ]
