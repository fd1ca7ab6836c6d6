"""Resolve the slicings of the settings against a split: check columns, compute bucket edges, count slices.

A slicing is written as

- `"payment_type"`: a slice for each value; of a column of lists, a row belongs to the slice of each of its values;
- `"payment_type*company"`: a slice for each pair of values;
- `{"column": "fare", "buckets": 4}`: a slice for each of 4 intervals with equal numbers of rows;
- `{"column": "fare", "edges": [5, 20]}`: the slices below 5, 5 to 20, 20 or more;
- a list of these: a cross of them;
- a function of a `pyarrow.RecordBatch` of raw columns, which returns a string or None for each row.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.component import Context
from kerasline.components.core.errors import check_known
from kerasline.components.data.accumulators.quantiles import Quantiles
from kerasline.components.data.accumulators.value_counts import ValueCounts
from kerasline.components.data.arrow_types import is_list
from kerasline.components.data.fold import fold
from kerasline.components.data.shards import rows_per_batch
from kerasline.components.evaluator.checks import check_slicings
from kerasline.components.evaluator.settings import Buckets, Slicing, slicing_name, slicing_parts
from kerasline.components.metrics.slices import ColumnSlices, Slicer, SliceTable


def slicers(
    slicings: Sequence[Slicing], examples: Examples, split: str, context: Context, *, where: str
) -> list[Slicer]:
    """Check the slicings and compute their bucket edges; see `check_slicings`."""
    check_slicings(slicings, examples.schema(), where=where)
    return [
        Slicer(
            slicing_name(slicing),
            tuple(_column_slices(part, examples, split, context) for part in slicing_parts(slicing)),
            slicing if callable(slicing) else None,
        )
        for slicing in slicings
    ]


def _column_slices(part: str | Buckets, examples: Examples, split: str, context: Context) -> ColumnSlices:
    if isinstance(part, str):
        return ColumnSlices(part)
    if part.buckets is not None:
        return ColumnSlices(part.column, _equal_parts(examples, split, part.column, part.buckets, context))
    return ColumnSlices(part.column, tuple(sorted(set(part.edges or ()))))


def slice_table(
    slicers: Sequence[Slicer], examples: Examples, split: str, context: Context, *, most: int
) -> SliceTable:
    """Return the `most` frequent slices of each slicing in a split."""
    shards = [str(shard) for shard in examples.whole_shards(split)]
    counts = (
        fold(shards, functools.partial(_counts, slicers=slicers), _merge_counts, context) if slicers else None
    ) or {}
    tops = {name: [label for label, _ in found.top(most)] for name, found in counts.items()}
    return SliceTable(
        {name: tuple(sorted(labels, key=_natural)) for name, labels in tops.items()},
        {name: max(0, counts[name].distinct - len(labels)) for name, labels in tops.items()},
    )


def reference_groups(slices: SliceTable, references: Mapping[str, str]) -> dict[str, int]:
    """Return the group of the reference slice of each slicing that has one.

    Raises:
        ParameterError: a reference is not among the slices that are measured.
    """
    for slicing, label in references.items():
        check_known("Evaluator.reference_slices", f"no measured slice by {slicing}", [label], slices.slices[slicing])
    return {slicing: slices.names.index((slicing, label)) for slicing, label in references.items()}


def _counts(shard: str, slicers: Sequence[Slicer]) -> dict[str, ValueCounts]:
    columns = list(dict.fromkeys(column for slicer in slicers for column in slicer.columns))
    whole = any(slicer.function for slicer in slicers)
    found = {slicer.name: ValueCounts() for slicer in slicers}
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(rows_per_batch(file.metadata), columns=None if whole else columns):
            for slicer in slicers:
                labels = slicer.labels(batch)
                found[slicer.name].add((labels.flatten() if is_list(labels.type) else labels).drop_null())
    return found


def _merge_counts(ours: dict[str, ValueCounts], theirs: dict[str, ValueCounts]) -> dict[str, ValueCounts]:
    return {name: counts.merge(theirs[name]) for name, counts in ours.items()}


def _natural(label: str) -> tuple[float, str]:
    """Return a sort key: numbers and buckets in ascending order, then other labels alphabetically."""
    try:
        number = -np.inf if label.startswith("below ") else float(label.split(" ")[0])
    except ValueError:
        number = np.inf
    return (np.inf if np.isnan(number) else number), label


def _equal_parts(examples: Examples, split: str, column: str, parts: int, context: Context) -> tuple[float, ...]:
    """Return the edges between parts with equal numbers of rows. Repeated values give fewer parts."""
    shards = [str(shard) for shard in examples.whole_shards(split)]
    quantiles = fold(shards, functools.partial(_quantiles, column=column), _merged, context)
    if quantiles is None or not quantiles.count:
        return (0.0,)
    lowest = quantiles.at(np.array([1e-12]))[0]
    edges = quantiles.at(np.arange(1, parts) / parts)
    return tuple(float(edge) for edge in np.unique(edges[edges > lowest])) or (float(lowest),)


def _quantiles(shard: str, column: str) -> Quantiles:
    found = Quantiles()
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(columns=[column]):
            values = batch.column(0).flatten() if is_list(batch.schema.types[0]) else batch.column(0)
            values = values.drop_null().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            found.add(values[np.isfinite(values)])
    return found


def _merged(ours: Quantiles, theirs: Quantiles) -> Quantiles:
    ours.merge(theirs)
    return ours
