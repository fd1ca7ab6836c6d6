"""The Data section: statistics of each feature by split, anomalies, skew and drift."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from typing import Any

from kerasline.components.charts import Bar, bar_chart, histogram, number_text
from kerasline.pipeline.report.gather import Gathered, Output

# Only this many features get charts. All are in the table.
CHARTED, TOP, FEW_VALUES = 60, 6, 10

Bucket = tuple[float, float, float]  # low end, high end, count or share


def section(gathered: Gathered) -> dict[str, Any] | None:
    statistics = [(stage.name, _statistics(output)) for stage, output in gathered.outputs("Statistics")]
    anomalies = [
        {"stage": stage.name, "groups": _grouped(output.json("anomalies.json") or [])}
        for stage, output in gathered.outputs("Anomalies")
    ]
    statistics = [(name, shown) for name, shown in statistics if shown]
    return {"statistics": statistics, "anomalies": anomalies} if statistics or anomalies else None


def _grouped(anomalies: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Separate violations of the schema from skew and drift."""
    moved = [a for a in anomalies if str(a.get("kind", "")).startswith("COMPARATOR")]
    return {"schema": [a for a in anomalies if a not in moved], "moved": moved}


def _statistics(output: Output) -> dict[str, Any] | None:
    from kerasline.components.core.artifacts import Statistics

    artifact = Statistics(output.path)
    if not (output.path / Statistics.FILE).exists():
        return None
    datasets = [dataset for dataset in artifact.proto().datasets if dataset.num_examples]
    features: dict[str, dict[str, Any]] = {}
    for dataset in datasets:
        for feature in dataset.features:
            name = ".".join(feature.path.step) or feature.name
            features.setdefault(name, {})[dataset.name] = feature
    shown = [_feature(name, by_split) for name, by_split in features.items()]
    for number, feature in enumerate(shown):
        feature["charts"] = _charts(feature, features[feature["name"]]) if number < CHARTED else []
    slices = artifact.slices().datasets if (output.path / Statistics.SLICES).exists() else []
    return {
        "splits": [{"name": dataset.name, "rows": dataset.num_examples} for dataset in datasets],
        "features": shown,
        "uncharted": max(len(shown) - CHARTED, 0),
        "slices": [{"name": part.name, "rows": part.num_examples} for part in slices],
    }


def _feature(name: str, by_split: dict[str, Any]) -> dict[str, Any]:
    rows = [_figures(split, feature) for split, feature in by_split.items()]
    return {"name": name, "kind": rows[0]["kind"], "rows": rows}


def _figures(split: str, feature: Any) -> dict[str, Any]:
    """Return the statistics of a feature in a split. Those that its type does not have are None."""
    texts = feature.WhichOneof("stats") == "string_stats"
    stats = feature.string_stats if texts else feature.num_stats
    common = stats.common_stats
    known = bool(common.num_non_missing)
    custom = {entry.name: entry for entry in feature.custom_stats}
    media = "formats" in custom
    numbers = known and not texts
    rows = common.num_non_missing + common.num_missing
    unique = stats.unique if texts else custom["unique"].num if "unique" in custom else None
    return {
        "split": split,
        "kind": "media" if media else "text" if texts else ("whole number" if feature.type == 0 else "number"),
        "missing": common.num_missing,
        "values": common.tot_num_values or common.num_non_missing,  # more than rows in columns of lists
        "missing_share": common.num_missing / rows if rows else 0.0,
        "unique": None if media else unique,
        "mean": stats.mean if numbers else None,
        "std_dev": stats.std_dev if numbers else None,
        "median": stats.median if numbers else None,
        "low": stats.min if numbers else None,
        "high": stats.max if numbers else None,
        "zeros": stats.num_zeros if numbers else None,
        "length": stats.avg_length if texts and known else None,
        "top": _ranked(feature)[:1] or None,
    }


def _charts(feature: dict[str, Any], by_split: dict[str, Any]) -> list[dict[str, Any]]:
    """Draw a chart of shares per split. All have the same axes, categories and buckets, so that drift is visible."""
    rows, splits = feature["rows"], list(by_split.values())
    ranked = [_ranked(split) for split in splits]
    unique = [row["unique"] for row in rows if row["unique"] is not None]
    if any(ranked) and (feature["kind"] in ("text", "media") or (unique and max(unique) <= FEW_VALUES)):
        drawn = _bars(feature["name"], rows, ranked)
    else:
        drawn = _histograms(feature["name"], rows, [_buckets(split) for split in splits])
    pairs = [(row, svg) for row, svg in zip(rows, drawn) if svg]
    return [{"split": row["split"], "svg": svg, "caption": _caption(row)} for row, svg in pairs]


def _bars(name: str, rows: Sequence[dict[str, Any]], ranked: Sequence[Sequence[tuple[str, float]]]) -> list[str]:
    """Draw the share of the values that are the most frequent ones on average over the splits."""
    shares = [{value: 100 * count / row["values"] for value, count in pairs} for row, pairs in zip(rows, ranked)]
    total: collections.Counter[str] = collections.Counter()
    for share in shares:
        total.update(share)
    top = [value for value, _ in total.most_common(TOP)]
    highest = max((share.get(value, 0.0) for share in shares for value in top), default=0.0)
    return [
        bar_chart(
            [Bar(value, share.get(value, 0.0)) for value in top],
            title=f"{name}, {row['split']}: share of the most frequent values",
            label="% of values",
            highest=highest,
            color=number % 6 + 1,
            width=300,
            row_height=17,
        )
        for number, (row, share) in enumerate(zip(rows, shares))
    ]


def _histograms(name: str, rows: Sequence[dict[str, Any]], histograms: Sequence[Sequence[Bucket]]) -> list[str]:
    ends = [end for buckets in histograms for low, high, _ in buckets for end in (low, high)]
    within = (min(ends, default=0.0), max(ends, default=0.0))
    if not ends or not math.isfinite(within[1] - within[0]):
        return [""] * len(rows)
    shared = [_rebinned(buckets, within, max(map(len, histograms))) for buckets in histograms]
    highest = max((share for buckets in shared for *_, share in buckets), default=0.0)
    return [
        histogram(
            buckets,
            title=f"{name}, {row['split']}: histogram",
            counts=False,
            within=within if within[0] < within[1] else None,
            highest=highest,
            color=number % 6 + 1,
            width=300,
            height=88,
        )
        if buckets
        else ""
        for number, (row, buckets) in enumerate(zip(rows, shared))
    ]


def _rebinned(buckets: Sequence[Bucket], within: tuple[float, float], bins: int) -> list[Bucket]:
    """Return the shares, in percent, of `bins` buckets of equal width. Values are taken as uniform in each bucket."""
    import numpy as np

    total = sum(count for *_, count in buckets)
    if not total:
        return []
    low, high = within
    if low == high:
        return [(low, high, 100.0)]
    ends = [buckets[0][0], *(end for _, end, _ in buckets)]
    edges = np.linspace(low, high, bins + 1)
    below = np.interp(edges, ends, np.cumsum([0.0, *(100 * count / total for *_, count in buckets)]))
    below[0], below[-1] = 0.0, 100.0  # where all values of a split are equal, they lie on one edge
    return list(zip(edges.tolist(), edges[1:].tolist(), np.diff(below).tolist()))


def _caption(row: dict[str, Any]) -> str:
    """`train: 456 values, 6.98 to 28.1, mean 14.1, 0.7% missing`."""
    parts = [f"{number_text(row['unique'])} values" if row["unique"] is not None else None]
    if row["low"] is not None:
        low, high, mean = (number_text(row[key], 3) for key in ("low", "high", "mean"))
        parts += [f"{low} to {high}", f"mean {mean}"]
    parts.append(f"{row['missing_share']:.1%} missing" if row["missing"] else "none missing")
    return f"{row['split']}: {', '.join(filter(None, parts))}"


def _ranked(feature: Any) -> list[tuple[str, float]]:
    """Return the most frequent values, or formats of media, with their counts."""
    custom = {entry.name: entry for entry in feature.custom_stats}
    if "formats" in custom:
        histogram = custom["formats"].rank_histogram
    elif feature.WhichOneof("stats") == "string_stats":
        histogram = feature.string_stats.rank_histogram
    elif "top_values" in custom:
        histogram = custom["top_values"].rank_histogram
    else:
        return []
    return [(bucket.label, bucket.sample_count) for bucket in histogram.buckets]


def _buckets(feature: Any) -> list[Bucket]:
    """Return the buckets of the histogram with equal widths (type STANDARD, 0)."""
    for held in feature.num_stats.histograms:
        if held.type == 0:
            buckets = [(bucket.low_value, bucket.high_value, bucket.sample_count) for bucket in held.buckets]
            return [bucket for bucket in buckets if all(map(math.isfinite, bucket))]
    return []
