"""The Data section: statistics of each feature by split, anomalies, skew and drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kerasline.components.charts import Bar, bar_chart, histogram, number_text
from kerasline.pipeline.report.gather import Gathered, Output

# Only this many features get charts. All are in the table.
CHARTED, TOP, FEW_VALUES = 60, 6, 10


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
    """Draw a chart per split. Histograms of all splits share one range, so that they can be compared."""
    ends = [end for row in feature["rows"] if row["low"] is not None for end in (row["low"], row["high"])]
    within = (min(ends), max(ends)) if ends and min(ends) < max(ends) else None
    charts = []
    for number, (row, held) in enumerate(zip(feature["rows"], by_split.values())):
        title = f"{feature['name']}, {row['split']}"
        ranked = _ranked(held)
        few = row["unique"] is not None and row["unique"] <= FEW_VALUES
        if ranked and (row["kind"] in ("text", "media") or few):
            bars = [Bar(label, count) for label, count in ranked[:TOP]]
            name = f"{title}: most frequent values"
            svg = bar_chart(bars, title=name, color=number % 6 + 1, width=300, row_height=17)
        else:
            buckets = _buckets(held)
            if not buckets:
                continue
            svg = histogram(
                buckets,
                title=f"{title}: histogram",
                counts=False,
                within=within,
                color=number % 6 + 1,
                width=300,
                height=88,
            )
        charts.append({"split": row["split"], "svg": svg, "caption": _caption(row)})
    return charts


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


def _buckets(feature: Any) -> list[tuple[float, float, float]]:
    """Return the buckets of the histogram with equal widths (type STANDARD, 0)."""
    for held in feature.num_stats.histograms:
        if held.type == 0:
            return [(bucket.low_value, bucket.high_value, bucket.sample_count) for bucket in held.buckets]
    return []
