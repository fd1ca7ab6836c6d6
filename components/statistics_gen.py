"""StatisticsGen: what is in every feature of every split, in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.artifacts import Examples, Statistics
from components.base import Component, Context, Input, Output

if TYPE_CHECKING:
    from components.columnar.statistics import ColumnSummary, NumberSummary

BATCH_BYTES = 4 << 20
BUCKETS = 10
TOP_VALUES = 20
RANKED_VALUES = 1000

# A shard of a split: what one Beam element names.
Shard = tuple[str, str]
Summaries = dict[str, dict[str, "ColumnSummary"]]


class StatisticsGen(Component):
    """Computes statistics over all rows and writes them as tensorflow-metadata has them.

    Missing are nulls and NaN. Counts, moments and extremes are exact; medians and quantiles are
    exact for small data and otherwise within the bound of `components.columnar.statistics`.
    """

    LIBRARIES = ("pyarrow", "datasketches")

    examples: Input[Examples]
    statistics: Output[Statistics]

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from tensorflow_metadata.proto.v0 import statistics_pb2

        from components.columnar.beam import fold

        examples: Examples = inputs.examples
        shards = [(split, str(path)) for split in examples.splits for path in examples.shards(split)]
        summaries = fold(shards, summarise_shard, merge_summaries, context) or {}
        proto = statistics_pb2.DatasetFeatureStatisticsList()
        for split in examples.splits:
            dataset = proto.datasets.add(name=split, num_examples=examples.rows(split))
            for name, summary in summaries.get(split, {}).items():
                _fill(dataset.features.add(), name, summary)
        outputs.statistics.write(proto)
        columns = [c for split in summaries.values() for c in split.values()]
        cells = sum(c.rows for c in columns)
        missing = sum(c.missing for c in columns) / cells if cells else 0.0
        rows = sum(examples.rows(split) for split in examples.splits)
        return {"rows": rows, "features": len(examples.schema()), "missing": f"{missing:.1%}"}


def summarise_shard(shard: Shard) -> Summaries:
    """The summaries of one shard's columns, batch by batch."""
    import pyarrow.parquet as pq

    from components.columnar.statistics import ColumnSummary

    split, path = shard
    found: dict[str, ColumnSummary] = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_batch_rows(file.metadata)):
            for name, column in zip(batch.schema.names, batch.columns):
                summary = ColumnSummary.of(column)
                found[name] = found[name].merge(summary) if name in found else summary
    return {split: found}


def _batch_rows(metadata: Any) -> int:
    """Rows a batch: as many as `BATCH_BYTES` hold, so that wide rows take no more memory."""
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return max(256, min(65536, BATCH_BYTES * metadata.num_rows // max(size, 1)))


def merge_summaries(ours: Summaries, theirs: Summaries) -> Summaries:
    for split, columns in theirs.items():
        mine = ours.setdefault(split, {})
        for name, summary in columns.items():
            mine[name] = mine[name].merge(summary) if name in mine else summary
    return ours


def _fill(feature: Any, name: str, summary: ColumnSummary) -> None:
    """One FeatureNameStatistics; the fields mean what statistics.proto says of them."""
    from tensorflow_metadata.proto.v0 import statistics_pb2

    feature.path.step.append(name)
    kind = "STRING" if summary.kind == "NONE" else summary.kind
    feature.type = statistics_pb2.FeatureNameStatistics.Type.Value(kind)
    side = feature.string_stats if kind == "STRING" else feature.num_stats
    common = side.common_stats
    present = summary.rows - summary.missing
    common.num_non_missing, common.num_missing = present, summary.missing
    common.tot_num_values = summary.values
    common.min_num_values, common.max_num_values = summary.least_values or 0, summary.most_values
    common.avg_num_values = summary.values / present if present else 0.0
    if kind == "STRING":
        _fill_text(side, summary)
    else:
        _fill_numbers(side, summary.numbers)


def _fill_text(stats: Any, summary: ColumnSummary) -> None:
    stats.unique = summary.counts.distinct
    stats.avg_length = summary.text_bytes / summary.values if summary.values else 0.0
    ranked = [(_as_text(v), count) for v, count in summary.counts.top(RANKED_VALUES)]
    for value, count in ranked[:TOP_VALUES]:
        stats.top_values.add(value=value, frequency=count)
    for rank, (value, count) in enumerate(ranked):
        stats.rank_histogram.buckets.add(low_rank=rank, high_rank=rank, label=value, sample_count=count)


def _fill_numbers(stats: Any, numbers: NumberSummary) -> None:
    from tensorflow_metadata.proto.v0 import statistics_pb2

    count = numbers.moments.count
    stats.num_zeros = numbers.zeros
    if not count:
        return
    stats.mean, stats.std_dev = numbers.moments.mean, numbers.moments.std
    stats.min, stats.max = numbers.minimum, numbers.maximum
    ranks = [i / BUCKETS for i in range(BUCKETS + 1)]
    edges = [numbers.minimum, *numbers.quantiles(ranks[1:-1]), numbers.maximum]
    stats.median = numbers.quantiles([0.5])[0]
    kinds = statistics_pb2.Histogram
    quantiles = stats.histograms.add(type=kinds.QUANTILES, num_undefined=numbers.non_finite)
    for low, high in zip(edges, edges[1:]):
        quantiles.buckets.add(low_value=low, high_value=high, sample_count=count / BUCKETS)
    width = (numbers.maximum - numbers.minimum) / BUCKETS
    bounds = [numbers.minimum + width * (i + 1) for i in range(BUCKETS - 1)]
    below = [0.0, *(numbers.shares_below(bounds) if width > 0 else [1.0] * (BUCKETS - 1)), 1.0]
    standard = stats.histograms.add(type=kinds.STANDARD, num_undefined=numbers.non_finite)
    for i, (low, high) in enumerate(zip([numbers.minimum, *bounds], [*bounds, numbers.maximum])):
        standard.buckets.add(
            low_value=low, high_value=high, sample_count=(below[i + 1] - below[i]) * count
        )


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
