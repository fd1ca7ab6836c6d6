"""Conversion of statistics to tensorflow-metadata's proto, which other tools read, and to a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from tensorflow_metadata.proto.v0 import statistics_pb2

from kerasline.components.data.media import AUDIO_FORMATS
from kerasline.components.statistics_gen.feature_statistics import FeatureSummary, NumberSummary
from kerasline.components.statistics_gen.weighted_statistics import WeightedSummary

BUCKETS = 10
TOP_VALUES = 20
RANKED_VALUES = 1000


def as_dataset(name: str, rows: int, summaries: Mapping[str, FeatureSummary]) -> Any:
    """Return a `DatasetFeatureStatistics`. Its fields have the meanings that statistics.proto defines.

    Statistics without a field are in `custom_stats`: `shape` of tensors; `unique` and `top_values` of numbers;
    `min_length` and `max_length` of strings, in bytes; `formats`, `unknown_format` and histograms of the sizes of
    images and audio (`height`, `width`, `sample_rate`, `channels`, `frames`), and for WAV files of `seconds`,
    `loudness` (in decibels of full scale), `clipped` and `silent` (shares of the sound).
    """
    dataset = statistics_pb2.DatasetFeatureStatistics(name=name, num_examples=rows)
    weighted = [summary.weighted for summary in summaries.values() if summary.weighted is not None]
    if weighted:
        dataset.weighted_num_examples = weighted[0].missing + weighted[0].present
    for feature, summary in summaries.items():
        _fill(dataset.features.add(), feature, summary)
    return dataset


def as_table(datasets: Mapping[str, Mapping[str, FeatureSummary]]) -> pa.Table:
    """Return a table with a row for each feature of each data set, for the statistics that fit in a cell."""
    rows = []
    for dataset, summaries in datasets.items():
        for name, summary in summaries.items():
            numbers, counted = summary.numbers, summary.kind != "NONE" and not summary.is_media
            known = numbers.moments.count > 0
            quartiles: Sequence[float | None] = numbers.at([0.25, 0.5, 0.75]) or [None] * 3
            top = summary.counts.top(1)
            rows.append(
                {
                    "dataset": dataset,
                    "feature": name,
                    "type": summary.kind,
                    "rows": summary.rows,
                    "missing": summary.missing,
                    "values": summary.values,
                    "zeros": numbers.zeros if known else None,
                    "non_finite": numbers.non_finite if summary.kind == "FLOAT" else None,
                    "mean": float(numbers.moments.mean) if known else None,
                    "std_dev": float(numbers.moments.std) if known else None,
                    "min": numbers.minimum if known else None,
                    "quartile_1": quartiles[0],
                    "median": numbers.median if known else None,
                    "quartile_3": quartiles[2],
                    "max": numbers.maximum if known else None,
                    "unique": summary.counts.distinct if counted else None,
                    "top": _label(top[0][0]) if top else None,
                    "top_count": top[0][1] if top else None,
                    "mean_length": summary.lengths.moments.mean if summary.lengths else None,
                    "min_values": summary.min_values,
                    "max_values": summary.max_values,
                    "invalid_utf8": summary.invalid_utf8 if summary.kind == "STRING" else None,
                    "formats": ", ".join(summary.media.formats) if summary.media and summary.media.count else None,
                }
            )
    return pa.Table.from_pylist(rows)


def image_count(feature: Any) -> int:
    """Return how many values of a `FeatureNameStatistics` are images."""
    return sum(count for name, count in _formats(feature).items() if name not in AUDIO_FORMATS)


def sound_count(feature: Any) -> int:
    """Return how many values of a `FeatureNameStatistics` are sound."""
    return sum(count for name, count in _formats(feature).items() if name in AUDIO_FORMATS)


def _formats(feature: Any) -> dict[str, int]:
    formats = [custom.rank_histogram.buckets for custom in feature.custom_stats if custom.name == "formats"]
    return {one.label: int(one.sample_count) for buckets in formats for one in buckets}


def _fill(feature: Any, name: str, summary: FeatureSummary) -> None:
    feature.path.step.append(name)
    if summary.shape is not None:
        feature.custom_stats.add(name="shape", str=",".join(map(str, summary.shape)))
    kind = "STRING" if summary.kind == "NONE" else summary.kind
    feature.type = statistics_pb2.FeatureNameStatistics.Type.Value(kind)
    side = feature.string_stats if kind == "STRING" else feature.num_stats
    _fill_common(side.common_stats, summary)
    if kind == "STRING":
        _fill_text(feature, side, summary)
    else:
        _fill_numbers(side, summary)
        feature.custom_stats.add(name="unique", num=summary.counts.distinct)
        if kind == "INT":
            _fill_ranks(feature.custom_stats.add(name="top_values").rank_histogram, summary, RANKED_VALUES)


def _fill_common(common: Any, summary: FeatureSummary) -> None:
    present = summary.rows - summary.missing
    common.num_non_missing, common.num_missing = present, summary.missing
    common.tot_num_values = summary.values
    common.min_num_values, common.max_num_values = summary.min_values, summary.max_values
    common.avg_num_values = summary.values / present if present else 0.0
    if summary.valency is not None:
        _fill_quantiles(common.num_values_histogram, summary.valency)
    if (found := summary.weighted) is not None:
        common.weighted_common_stats.num_non_missing, common.weighted_common_stats.num_missing = (
            found.present,
            found.missing,
        )
        common.weighted_common_stats.tot_num_values = found.values
        common.weighted_common_stats.avg_num_values = found.values / found.present if found.present else 0.0
    for level in summary.levels:
        common.presence_and_valency_stats.add(
            num_non_missing=level.lists,
            num_missing=level.missing,
            min_num_values=level.fewest,
            max_num_values=level.most,
            tot_num_values=level.values,
        )


def _fill_text(feature: Any, stats: Any, summary: FeatureSummary) -> None:
    stats.invalid_utf8_count = 0 if summary.is_media else summary.invalid_utf8
    if summary.lengths is not None:
        stats.avg_length = summary.lengths.moments.mean
        feature.custom_stats.add(name="min_length", num=summary.lengths.minimum)
        feature.custom_stats.add(name="max_length", num=summary.lengths.maximum)
    if summary.media is not None and summary.media.count:
        _fill_media(feature, summary)
        if summary.is_media:
            return
    if summary.weighted is not None:
        top = [(_label(value), weight) for value, weight in summary.weighted.counts.top(RANKED_VALUES)]
        for rank, (label, weight) in enumerate(top):
            if rank < TOP_VALUES:
                stats.weighted_string_stats.top_values.add(value=label, frequency=weight)
            ranked = stats.weighted_string_stats.rank_histogram.buckets
            ranked.add(low_rank=rank, high_rank=rank, label=label, sample_count=weight)
    stats.unique = summary.counts.distinct
    for value, count in summary.counts.top(TOP_VALUES):
        stats.top_values.add(value=_label(value), frequency=count)
    _fill_ranks(stats.rank_histogram, summary, RANKED_VALUES)


def _fill_media(feature: Any, summary: FeatureSummary) -> None:
    media, lengths = summary.media, summary.lengths
    assert media and lengths, "a column of bytes with images or audio"
    formats = feature.custom_stats.add(name="formats").rank_histogram
    for rank, (name, count) in enumerate(media.formats.most_common()):
        formats.buckets.add(low_rank=rank, high_rank=rank, label=name, sample_count=count)
    feature.custom_stats.add(name="unknown_format", num=lengths.moments.count - media.count)
    for name, sizes in media.sizes.items():
        _fill_quantiles(feature.custom_stats.add(name=name).histogram, sizes)


def _fill_numbers(stats: Any, summary: FeatureSummary) -> None:
    numbers = summary.numbers
    stats.num_zeros = numbers.zeros
    if numbers.moments.count:
        stats.mean, stats.std_dev = numbers.moments.mean, numbers.moments.std
        stats.min, stats.max = numbers.minimum, numbers.maximum
        stats.median = numbers.median
    if (found := summary.weighted) is not None and found.moments.count:
        weighted = stats.weighted_numeric_stats
        weighted.mean, weighted.std_dev = float(found.moments.mean), float(found.moments.std)
        weighted.median = found.quantiles.median
        _fill_weighted_histograms(weighted, found, numbers)
    _fill_equal_width(stats.histograms.add(), numbers)
    _fill_quantiles(stats.histograms.add(), numbers)
    for histogram in stats.histograms:
        histogram.num_nan, histogram.num_undefined = summary.nan, numbers.non_finite


def _fill_equal_width(histogram: Any, numbers: NumberSummary) -> None:
    """Fill a histogram with buckets of equal width. If there is only one distinct value, all are in the first."""
    histogram.type = statistics_pb2.Histogram.STANDARD
    count = numbers.moments.count
    if not count:
        return
    width = (numbers.maximum - numbers.minimum) / BUCKETS
    bounds = [numbers.minimum + width * i for i in range(1, BUCKETS)]
    below = [0.0, *numbers.cumulative_shares(bounds), 1.0]
    edges = [numbers.minimum, *bounds, numbers.maximum]
    for i in range(BUCKETS):
        share = below[i + 1] - below[i]
        histogram.buckets.add(low_value=edges[i], high_value=edges[i + 1], sample_count=share * count)


def _fill_weighted_histograms(weighted: Any, found: WeightedSummary, numbers: NumberSummary) -> None:
    """Fill a histogram with the buckets of the unweighted one, and one with buckets of equal weight."""
    inner, total = np.arange(1, BUCKETS) / BUCKETS, found.quantiles.weight
    width = (numbers.maximum - numbers.minimum) / BUCKETS
    equal_width = [numbers.minimum + width * i for i in range(1, BUCKETS)]
    by_type = {
        statistics_pb2.Histogram.STANDARD: (equal_width, np.diff([0, *found.quantiles.shares_up_to(equal_width), 1])),
        statistics_pb2.Histogram.QUANTILES: (found.quantiles.at(inner).tolist(), np.full(BUCKETS, 1 / BUCKETS)),
    }
    for kind, (bounds, shares) in by_type.items():
        histogram = weighted.histograms.add(type=kind)
        edges = [numbers.minimum, *bounds, numbers.maximum]
        for low, high, share in zip(edges, edges[1:], shares.tolist()):
            histogram.buckets.add(low_value=low, high_value=high, sample_count=share * total)


def _fill_quantiles(histogram: Any, numbers: NumberSummary) -> None:
    """Fill a histogram with buckets of equal counts."""
    histogram.type = statistics_pb2.Histogram.QUANTILES
    count = numbers.moments.count
    if not count:
        return
    edges = [numbers.minimum, *numbers.at([i / BUCKETS for i in range(1, BUCKETS)]), numbers.maximum]
    for low, high in zip(edges, edges[1:]):
        histogram.buckets.add(low_value=low, high_value=high, sample_count=count / BUCKETS)


def _fill_ranks(histogram: Any, summary: FeatureSummary, max_values: int) -> None:
    for rank, (value, count) in enumerate(summary.counts.top(max_values)):
        histogram.buckets.add(low_rank=rank, high_rank=rank, label=_label(value), sample_count=count)


def _label(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
