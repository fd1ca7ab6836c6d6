"""StatisticsGen: what is in every feature of every split, in one pass."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kerasline.components.core.artifacts import Examples, Statistics
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.core.errors import DataError, ParameterError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

    from kerasline.components.statistics_gen.statistics import ColumnSummary

MOST_SLICES = 200

# Some row groups of one shard of a split: what one Beam element names.
Piece = tuple[str, str, range]
# By data set and column. A data set is a split, or a slice of one: (split, "column=value").
DatasetKey = tuple[str, str]
Summaries = dict[DatasetKey, dict[str, "ColumnSummary"]]


@dataclass(frozen=True, kw_only=True)
class StatisticsGenSettings:
    """The parameters of StatisticsGen, which documents them."""

    slices: list[str] = field(default_factory=list)


class StatisticsGen(Component):
    """Computes statistics over all rows and writes them as tensorflow-metadata has them.

    Parameters:
        slices: columns by whose values each split is looked at apart: `["payment_type"]`, or
            several at once, joined by `*`: `["company*trip_start_hour"]`.

    Missing are nulls and NaN. Counts, moments and extremes are exact; medians, quantiles, unique
    and top values are exact for small data, and otherwise within the bounds that
    `kerasline.components.statistics_gen.statistics` and `value_counts` state. The same data give the same bytes on
    every runner.

    Raises:
        DataError: there is no such column to slice by, or it has too many values.
    """

    LIBRARIES = ("pyarrow", "datasketches")

    examples: Input[Examples]
    statistics: Output[Statistics]
    settings: Parameters[StatisticsGenSettings]

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.data.fold import fold

        examples: Examples = inputs.examples
        slices = [_columns_of(text, examples.schema()) for text in self.settings.slices]
        pieces = list(_pieces(examples))
        summarise = functools.partial(summarise_piece, slices=slices)
        summaries = fold(pieces, summarise, merge_summaries, context) or {}
        for split in examples.splits:
            _check_whole(split, examples.rows(split), summaries.get((split, ""), {}))
        _write(outputs.statistics, examples, summaries)
        columns = [c for (_, part), found in summaries.items() if not part for c in found.values()]
        cells = sum(c.rows for c in columns)
        missing = sum(c.missing for c in columns) / cells if cells else 0.0
        rows = sum(examples.rows(split) for split in examples.splits)
        metrics = {"rows": rows, "features": len(examples.schema()), "missing": f"{missing:.1%}"}
        return {**metrics, "slices": sum(bool(part) for _, part in summaries)} if slices else metrics


def summarise_piece(piece: Piece, slices: Sequence[Sequence[str]]) -> Summaries:
    """The summaries of a piece's columns, batch by batch."""
    import pyarrow.parquet as pq

    from kerasline.components.data.shards import rows_a_batch

    split, path, groups = piece
    found: Summaries = {(split, ""): {}}
    with pq.ParquetFile(path) as file:
        rows = rows_a_batch(file.metadata)
        for batch in file.iter_batches(batch_size=rows, row_groups=list(groups), use_threads=False):
            _summarise(found, (split, ""), batch)
            for columns in slices:
                for label, part in _sliced(batch, columns):
                    _summarise(found, (split, label), part)
                if len(found) > MOST_SLICES * len(slices):
                    raise DataError(
                        f"StatisticsGen.slices: {'*'.join(columns)} has more than {MOST_SLICES} values; "
                        "slice by a column with fewer"
                    )
    return found


def merge_summaries(ours: Summaries, theirs: Summaries) -> Summaries:
    for dataset, columns in theirs.items():
        mine = ours.setdefault(dataset, {})
        for name, summary in columns.items():
            mine[name] = mine[name].merge(summary) if name in mine else summary
    return ours


def _pieces(examples: Examples) -> Iterator[Piece]:
    from kerasline.components.data.row_groups import row_groups

    for split in examples.splits:
        for group in row_groups(examples, split):
            yield split, group.shard, range(group.number, group.number + 1)


def _summarise(found: Summaries, dataset: DatasetKey, batch: pa.RecordBatch) -> None:
    from kerasline.components.statistics_gen.statistics import ColumnSummary

    columns = found.setdefault(dataset, {})
    for name, column in zip(batch.schema.names, batch.columns):
        summary = ColumnSummary.of(column)
        columns[name] = columns[name].merge(summary) if name in columns else summary


def _sliced(batch: pa.RecordBatch, columns: Sequence[str]) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The rows of each value of the columns, named `column=value`; nulls are left out."""
    import numpy as np
    import pyarrow as pa

    table = pa.table([batch.column(name) for name in columns], names=list(columns))
    groups = table.append_column("row", pa.array(np.arange(batch.num_rows)))
    for group in groups.group_by(list(columns)).aggregate([("row", "list")]).to_pylist():
        if all(group[name] is not None for name in columns):
            label = ",".join(f"{name}={group[name]}" for name in columns)
            yield label, batch.take(pa.array(group["row_list"]))


def _columns_of(text: str, schema: pa.Schema) -> list[str]:
    import pyarrow as pa

    columns = text.split("*")
    for name in columns:
        if name not in schema.names:
            raise ParameterError(f"StatisticsGen.slices: no column {name!r}; {nearest(name, schema.names)}")
        if pa.types.is_nested(schema.field(name).type) or isinstance(schema.field(name).type, pa.BaseExtensionType):
            raise ParameterError(f"StatisticsGen.slices: {name!r} holds lists; slice by single values")
    return columns


def _check_whole(split: str, rows: int, summaries: Mapping[str, ColumnSummary]) -> None:
    for name, summary in summaries.items():
        if summary.rows != rows:
            raise RuntimeError(f"{split}, {name}: {summary.rows} rows summarised of {rows}")


def _write(statistics: Statistics, examples: Examples, summaries: Summaries) -> None:
    from pyarrow import csv
    from tensorflow_metadata.proto.v0 import statistics_pb2

    from kerasline.components.statistics_gen.statistics_proto import as_dataset, as_table

    splits, slices = (statistics_pb2.DatasetFeatureStatisticsList() for _ in range(2))
    for split in examples.splits:
        found = summaries.get((split, ""), {})
        splits.datasets.append(as_dataset(split, examples.rows(split), found))
    named = {f"{split}: {part}": found for (split, part), found in sorted(summaries.items()) if part}
    for name, found in named.items():
        slices.datasets.append(as_dataset(name, next(iter(found.values())).rows, found))
    statistics.write(splits, slices)
    whole = {split: summaries.get((split, ""), {}) for split in examples.splits}
    csv.write_csv(as_table({**whole, **named}), statistics.path / Statistics.TABLE)
