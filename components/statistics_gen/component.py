"""StatisticsGen: statistics of every feature of every split, in one pass."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kerasline.components.core.artifacts import Artifact, Examples, Statistics
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.core.errors import DataError, ParameterError, check_known, nearest

if TYPE_CHECKING:
    import pyarrow as pa
    from tensorflow_metadata.proto.v0 import statistics_pb2

    from kerasline.components.statistics_gen.feature_statistics import FeatureSummary

MAX_SLICES = 200

# A Beam element: a split, one of its shards, and numbers of row groups in the shard.
Piece = tuple[str, str, range]
# (split, "") for a split, (split, "column=value") for a slice.
DatasetKey = tuple[str, str]
Summaries = dict[DatasetKey, dict[str, "FeatureSummary"]]


@dataclass(frozen=True, kw_only=True)
class StatisticsGenSettings:
    """The parameters of StatisticsGen, which documents them."""

    slices: list[str | Callable] = field(default_factory=list)
    weight: str | None = None


class StatisticsGen(Component):
    """Computes statistics over all rows and writes them in the format of tensorflow-metadata.

    Null and NaN count as missing. Counts, moments and extremes are exact. Medians, quantiles, unique and top values are
    exact for small data. For large data their error is bounded; see `feature_statistics` and `value_counts`. The same
    data give the same bytes on every runner.

    Args:
        examples: the data.
        slices: columns whose values define slices of each split, for separate statistics: `["payment_type"]`, or
            several columns together, joined by `*`: `["company*trip_start_hour"]`. A row with a list, such as of tags,
            is in the slice of each of its values. Or functions of a `pyarrow.RecordBatch` that return, for each row, a
            string, a list of strings, or None. Defaults to none.
        weight: a column of weights of the rows, for weighted statistics beside the others: counts, mean, standard
            deviation, median and the most frequent texts (tensorflow-metadata's `weighted_...` fields).

    Raises:
        ParameterError: there is no such column, or it holds lists of lists, or weights that are no numbers.
        DataError: a column to slice by has too many values.
        UserCodeError: a function to slice by raised, or returned something else.

    Example:

    >>> examples = kl.InMemoryExampleGen({"x": [1.0, None]}, splits={"train": 1}).execute(folder / "examples").examples
    >>> done = kl.StatisticsGen(examples).execute(folder / "statistics")
    >>> done.metrics
    {'rows': 2, 'features': 1, 'missing': '50.0%'}
    >>> done.statistics.proto().datasets[0].features[0].num_stats.mean
    1.0
    """

    VERSION = "4"
    LIBRARIES = ("pyarrow", "datasketches", "soundfile")

    examples: Input[Examples]
    statistics: Output[Statistics]
    settings: Parameters[StatisticsGenSettings]

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        if inputs.examples is not None:
            if self.settings.weight is not None:
                _check_weight(self.settings.weight, inputs.examples.schema())
            for text in self.settings.slices:
                _slice_columns(text, inputs.examples.schema())

    def preview(self, inputs: Any) -> Mapping[str, Artifact]:
        return {} if inputs.examples is None else {"statistics": PlannedStatistics(inputs.examples)}

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.data.fold import fold

        examples: Examples = inputs.examples
        slices = [_slice_columns(text, examples.schema()) for text in self.settings.slices]
        work = functools.partial(summarize_piece, slices=slices, weight=self.settings.weight)
        pieces = list(_pieces(examples))
        summaries = fold(pieces, work, merge_summaries, context) or {}
        for split in examples.splits:
            _check_row_count(split, examples.rows(split), summaries.get((split, ""), {}))
        _write(outputs.statistics, examples, summaries)
        columns = [c for (_, part), found in summaries.items() if not part for c in found.values()]
        cells = sum(c.rows for c in columns)
        missing = sum(c.missing for c in columns) / cells if cells else 0.0
        rows = sum(examples.rows(split) for split in examples.splits)
        metrics = {"rows": rows, "features": len(examples.schema()), "missing": f"{missing:.1%}"}
        return {**metrics, "slices": sum(bool(part) for _, part in summaries)} if slices else metrics


class PlannedStatistics(Statistics):
    """The splits and features of which StatisticsGen will compute statistics. There are no files."""

    def __init__(self, examples: Examples) -> None:
        super().__init__("statistics that are not computed yet")
        self._examples = examples

    def proto(self) -> statistics_pb2.DatasetFeatureStatisticsList:
        from tensorflow_metadata.proto.v0 import statistics_pb2

        proto = statistics_pb2.DatasetFeatureStatisticsList()
        for split in self._examples.splits:
            dataset = proto.datasets.add(name=split)
            for name in self._examples.schema().names:
                dataset.features.add().path.step.append(name)
        return proto


def summarize_piece(piece: Piece, slices: Sequence[Sequence[str] | Callable], weight: str | None = None) -> Summaries:
    """Summarize the columns of a piece, batch by batch."""
    import pyarrow.parquet as pq

    from kerasline.components.data.shards import rows_per_batch

    split, path, groups = piece
    summaries: Summaries = {(split, ""): {}}
    with pq.ParquetFile(path) as file:
        rows = rows_per_batch(file.metadata)
        for batch in file.iter_batches(batch_size=rows, row_groups=list(groups), use_threads=False):
            _summarize(summaries, (split, ""), batch, weight)
            for slicing in slices:
                for label, part in _split_by_value(batch, slicing):
                    _summarize(summaries, (split, label), part, weight)
                if len(summaries) > MAX_SLICES * len(slices):
                    raise DataError(
                        f"StatisticsGen.slices: {'*'.join(_names(slicing))} has more than {MAX_SLICES} values; "
                        "slice by one with fewer"
                    )
    return summaries


def merge_summaries(ours: Summaries, theirs: Summaries) -> Summaries:
    """Merge `theirs` into `ours` and return it."""
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


def _summarize(summaries: Summaries, dataset: DatasetKey, batch: pa.RecordBatch, weight: str | None) -> None:
    from kerasline.components.data.row_weights import checked_weights
    from kerasline.components.statistics_gen.feature_statistics import FeatureSummary

    columns = summaries.setdefault(dataset, {})
    weights = None
    if weight is not None:
        values = batch.column(weight).to_numpy(zero_copy_only=False)
        weights = checked_weights(values, f"{dataset[0]}: column {weight!r}")
    for name, column in zip(batch.schema.names, batch.columns):
        summary = FeatureSummary.of(column, weights)
        columns[name] = columns[name].merge(summary) if name in columns else summary


def _check_weight(name: str, schema: pa.Schema) -> None:
    import pyarrow as pa

    check_known("StatisticsGen.weight", "no column", [name], schema.names)
    kind = schema.field(name).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ParameterError(f"StatisticsGen.weight: expected a column of numbers, received {name!r} of type {kind}")


def _split_by_value(batch: pa.RecordBatch, slicing: Sequence[str] | Callable) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield the rows of each slice, named `column=value`. Rows without a value are left out.

    A row with several values, of a list or from a function, belongs to the slice of each.
    """
    import pyarrow as pa

    from kerasline.components.data.multivalent import combinations, labels_by_function

    if callable(slicing):
        columns = [labels_by_function(slicing, batch)]
    else:
        columns = [batch.column(name) for name in slicing]
    names, (rows, values) = _names(slicing), combinations(columns)
    groups = pa.table([*values, pa.array(rows)], names=[*names, "row"])
    for group in groups.group_by(names).aggregate([("row", "list")]).to_pylist():
        if all(group[name] is not None for name in names):
            label = ",".join(f"{name}={group[name]}" for name in names)
            yield label, batch.take(pa.array(group["row_list"]))


def _names(slicing: Sequence[str] | Callable) -> list[str]:
    return [getattr(slicing, "__name__", "function")] if callable(slicing) else list(slicing)


def _slice_columns(text: str | Callable, schema: pa.Schema) -> list[str] | Callable:
    """Return the columns of a slicing, or its function."""
    if callable(text):
        return text
    from kerasline.components.data.multivalent import is_nested_list

    columns = text.split("*")
    for name in columns:
        if name not in schema.names:
            raise ParameterError(f"StatisticsGen.slices: no column {name!r}; {nearest(name, schema.names)}")
        if is_nested_list(schema.field(name).type):
            raise ParameterError(
                f"StatisticsGen.slices: {name!r} holds lists of lists or tensors; slice by a column of scalars or lists"
            )
    return columns


def _check_row_count(split: str, rows: int, summaries: Mapping[str, FeatureSummary]) -> None:
    for name, summary in summaries.items():
        if summary.rows != rows:
            raise RuntimeError(f"{split}, {name}: expected statistics of {rows} rows, received {summary.rows}")


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
