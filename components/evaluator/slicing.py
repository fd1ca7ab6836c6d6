"""Slices: which rows belong together, by a column, a cross of columns, buckets of a number, or a function.

A slicing is written as

- `"payment_type"`: a slice for each value;
- `"payment_type*company"`: a slice for each pair of values;
- `{"column": "fare", "buckets": 4}`: by a number, into so many parts of as many rows;
- `{"column": "fare", "edges": [5, 20]}`: by a number: below 5, 5 to 20, 20 or more;
- a list of these: a cross of them;
- a function of a `pyarrow.RecordBatch` of raw columns, which gives a text or None for each row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.component import Context
from kerasline.components.core.errors import ParameterError, UserCodeError, nearest
from kerasline.components.core.user_code import call, name_of
from kerasline.components.data.accumulators.quantiles import Quantiles
from kerasline.components.data.accumulators.value_counts import ValueCounts
from kerasline.components.data.fold import fold
from kerasline.components.data.shards import rows_a_batch
from kerasline.components.data.unify import is_list
from kerasline.components.evaluator.settings import Buckets, Slicing

MISSING = "(missing)"


@dataclass(frozen=True)
class Slicer:
    """Gives each row its slice of one slicing.

    Attributes:
        name: of the slicing: `payment_type*fare`.
        parts: what is crossed: columns, or columns cut at edges.
        function: the user's, instead of parts.
    """

    name: str
    parts: tuple[_Cut, ...] = ()
    function: Callable | None = None

    @property
    def columns(self) -> list[str]:
        """The raw columns that are read; none stands for all."""
        return [part.column for part in self.parts]

    def labels(self, batch: pa.RecordBatch) -> pa.Array:
        """The slice of each row, texts (rows,); null for none.

        Raises:
            UserCodeError: the function raised, or gave other than a text a row.
        """
        if self.function is None:
            labels = [part.labels(batch.column(part.column)) for part in self.parts]
            return labels[0] if len(labels) == 1 else pc.binary_join_element_wise(*labels, ", ")
        given = call(self.function, batch)
        try:
            labels = pa.array(given) if not isinstance(given, (pa.Array, pa.ChunkedArray)) else given
            labels = labels.combine_chunks() if isinstance(labels, pa.ChunkedArray) else labels
            labels = labels.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise UserCodeError(f"{name_of(self.function)} must give a text or None a row: {error}") from error
        if len(labels) != batch.num_rows:
            raise UserCodeError(f"{name_of(self.function)} gave {len(labels)} slices for {batch.num_rows} rows")
        return labels


@dataclass(frozen=True)
class _Cut:
    """A column by its values, or, where there are edges, by the interval between them."""

    column: str
    edges: tuple[float, ...] = ()

    def labels(self, column: pa.Array) -> pa.Array:
        column = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        if self.edges:
            values = column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
            places = np.where(np.isnan(values), -1, np.searchsorted(self.edges, values, side="right"))
            column = pa.array(_bucket_names(self.edges)).take(pa.array(places, mask=places < 0))
        elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            column = pa.array([_text(value.as_py()) for value in column], pa.string())
        labels = column.cast(pa.string()).fill_null(MISSING)
        return pc.if_else(pc.equal(labels, ""), MISSING, labels)  # an empty text is a missing one, see `feed`


def slicers(
    slicings: Sequence[Slicing], examples: Examples, split: str, context: Context, *, where: str
) -> list[Slicer]:
    """The slicings made ready: edges computed, columns checked.

    Args:
        where: the parameter, for messages.

    Raises:
        ParameterError: there is no such column, it holds lists, or a number is wanted; or a name comes twice.
    """
    made = [_slicer(slicing, examples, split, context, where) for slicing in slicings]
    names = [slicer.name for slicer in made]
    for name in names:
        if names.count(name) > 1:
            raise ParameterError(f"{where}: {name!r} is given twice")
    return made


def _slicer(slicing: Slicing, examples: Examples, split: str, context: Context, where: str) -> Slicer:
    if callable(slicing):
        return Slicer(getattr(slicing, "__name__", "function"), function=slicing)
    parts = slicing if isinstance(slicing, list) else [slicing]
    flat: list[str | Buckets] = []
    for part in parts:
        flat += part.split("*") if isinstance(part, str) else [part]
    cuts = tuple(_cut(part, examples, split, context, where) for part in flat)
    return Slicer("*".join(cut.column for cut in cuts), cuts)


def _cut(part: str | Buckets, examples: Examples, split: str, context: Context, where: str) -> _Cut:
    column = part if isinstance(part, str) else part.column
    schema = examples.schema()
    if column not in schema.names:
        raise ParameterError(f"{where}: no column {column!r}; {nearest(column, schema.names)}")
    kind = schema.field(column).type
    if is_list(kind) or isinstance(kind, pa.BaseExtensionType):
        raise ParameterError(f"{where}: {column!r} holds lists; slice by single values, or by a function")
    if isinstance(part, str):
        return _Cut(column)
    if (part.buckets is None) == (part.edges is None):
        raise ParameterError(f"{where}: {column!r}: give one of `buckets` and `edges`")
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ParameterError(f"{where}: {column!r} holds {kind}; buckets are for numbers")
    if part.edges is not None:
        return _Cut(column, tuple(sorted(set(part.edges))))
    return _Cut(column, _equal_parts(examples, split, column, part.buckets, context))


def slice_table(
    slicers: Sequence[Slicer], examples: Examples, split: str, context: Context, *, most: int
) -> SliceTable:
    """The slices of a split, of each slicing the `most` frequent."""
    shards = [str(shard) for shard in examples.whole_shards(split)]
    counts = fold(shards, functools.partial(_counts, slicers=slicers), _all_merged, context) if slicers else {}
    tops = {name: [label for label, _ in found.top(most)] for name, found in (counts or {}).items()}
    return SliceTable(
        {name: tuple(sorted(labels, key=_natural)) for name, labels in tops.items()},
        {name: max(0, counts[name].distinct - len(labels)) for name, labels in tops.items()},
    )


def _counts(shard: str, slicers: Sequence[Slicer]) -> dict[str, ValueCounts]:
    columns = list(dict.fromkeys(column for slicer in slicers for column in slicer.columns))
    whole = any(slicer.function for slicer in slicers)
    found = {slicer.name: ValueCounts() for slicer in slicers}
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(rows_a_batch(file.metadata), columns=None if whole else columns):
            for slicer in slicers:
                found[slicer.name].add(slicer.labels(batch).drop_null())
    return found


def _all_merged(ours: dict[str, ValueCounts], theirs: dict[str, ValueCounts]) -> dict[str, ValueCounts]:
    return {name: counts.merge(theirs[name]) for name, counts in ours.items()}


def _natural(label: str) -> tuple[float, str]:
    """Numbers and buckets in the order of the numbers, before texts in theirs."""
    try:
        number = -np.inf if label.startswith("below ") else float(label.split(" ")[0])
    except ValueError:
        number = np.inf
    return (np.inf if np.isnan(number) else number), label


def _equal_parts(examples: Examples, split: str, column: str, parts: int, context: Context) -> tuple[float, ...]:
    """The edges between parts of as many rows each; fewer where values recur."""
    shards = [(str(shard), column) for shard in examples.whole_shards(split)]
    quantiles = fold(shards, _quantiles, _merged, context)
    if quantiles is None or not quantiles.count:
        return (0.0,)
    lowest = quantiles.at(np.array([1e-12]))[0]
    edges = quantiles.at(np.arange(1, parts) / parts)
    return tuple(float(edge) for edge in np.unique(edges[edges > lowest])) or (float(lowest),)


def _quantiles(element: tuple[str, str]) -> Quantiles:
    shard, column = element
    found = Quantiles()
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(columns=[column]):
            values = batch.column(0).drop_null().cast(pa.float64(), safe=False)
            values = values.to_numpy(zero_copy_only=False)
            found.add(values[np.isfinite(values)])
    return found


def _merged(ours: Quantiles, theirs: Quantiles) -> Quantiles:
    ours.merge(theirs)
    return ours


def _bucket_names(edges: Sequence[float]) -> list[str]:
    # As many digits as tell the edges apart.
    told = next(t for d in range(6, 18) if len(set(t := [f"{e:.{d}g}" for e in edges])) == len(set(edges)))
    between = [f"{low} to {high}" for low, high in zip(told, told[1:])]
    return [f"below {told[0]}", *between, f"{told[-1]} or more"]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class SliceTable:
    """All slices that are measured: group 0 is all rows, then those of each slicing in turn.

    Attributes:
        slices: of each slicing the slices' labels, by its name.
        left_out: of each slicing how many slices are not among them.
    """

    slices: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, int]

    @property
    def names(self) -> list[tuple[str, str]]:
        """The slicing and the label of each group."""
        return [("", ""), *((slicing, label) for slicing, labels in self.slices.items() for label in labels)]

    def groups(self, labels: Mapping[str, pa.Array], rows: int) -> list[np.ndarray]:
        """Of each slicing the group of each row, int64 (rows,); -1 for none. All rows come first."""
        found, first = [np.zeros(rows, np.int64)], 1
        for slicing, known in self.slices.items():
            places = pc.index_in(labels[slicing], pa.array(known, pa.string()))
            places = places.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
            found.append(np.where(places < 0, -1, places + first))
            first += len(known)
        return found
