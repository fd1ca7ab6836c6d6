"""Skew and drift: distances between two data sets, feature by feature, that exceed the schema's thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from tensorflow_metadata.proto.v0 import statistics_pb2

from kerasline.components.example_validator.schema_anomalies import Anomaly, Feature


def compare(dataset: Any, control: Any, schema: Any, comparator: str, control_name: str) -> Iterator[Anomaly]:
    """Yield an anomaly for each distance between two data sets that the schema does not allow.

    Args:
        dataset, control: `DatasetFeatureStatistics`. Distances are measured from `control`.
        schema: the thresholds are in the features' `skew_comparator` or `drift_comparator`.
        comparator: the name of that field.
        control_name: what to call `control`, such as "the serving data".
    """
    for anomaly in _row_count_anomalies(dataset, control, schema, comparator, control_name):
        yield replace(anomaly, split=dataset.name)
    features, control_features = ({f.path.step[0]: f for f in d.features} for d in (dataset, control))
    for expected in schema.feature:
        if not expected.HasField(comparator):
            continue
        ours, theirs = (
            Feature(expected, found[expected.name], side.num_examples) if expected.name in found else None
            for found, side in ((features, dataset), (control_features, control))
        )
        for anomaly in _of_feature(ours, theirs, getattr(expected, comparator), control_name):
            yield replace(anomaly, split=dataset.name, feature=expected.name)


def l_infinity(ours: Feature, theirs: Feature) -> tuple[float, str] | None:
    """Return the largest difference between the shares of a value, and that value.

    Values beyond those that the statistics list are ignored. Floats and data without values have no categories, so the
    result is None.
    """
    shares = [_shares(side) for side in (ours, theirs)]
    if not all(shares):
        return None
    gaps = {value: abs(shares[0].get(value, 0.0) - shares[1].get(value, 0.0)) for value in shares[0] | shares[1]}
    value = max(sorted(gaps), key=lambda value: gaps[value])
    return gaps[value], value


def jensen_shannon(ours: Feature, theirs: Feature) -> float | None:
    """Return the Jensen-Shannon divergence to base 2: 0 for equal distributions, 1 for disjoint ones.

    See Lin, IEEE Transactions on Information Theory 37, 1991. Categories are compared by value. Floats are compared by
    their histograms, divided at the bounds of both, with uniform density in each bucket and NaN as a separate bucket.
    None if one side has no values.
    """
    if "FLOAT" in (ours.kind, theirs.kind):
        parts = _binned(ours, theirs)
        if parts is None:
            return None
        p, q = parts
    else:
        one, other = _shares(ours), _shares(theirs)
        if not one or not other:
            return None
        values = sorted(one | other)
        p, q = (np.array([side.get(value, 0.0) for value in values]) for side in (one, other))
    return _divergence(p, q)


def _of_feature(ours: Feature | None, theirs: Feature | None, bounds: Any, name: str) -> Iterator[Anomaly]:
    if theirs is None or not theirs.common.num_non_missing:
        yield Anomaly("COMPARATOR_CONTROL_DATA_MISSING", f"{name} has no values of it to compare with", "add some")
        return
    if ours is None or not ours.common.num_non_missing:
        yield Anomaly("COMPARATOR_TREATMENT_DATA_MISSING", f"no values to compare with {name}", "add some")
        return
    fix = "find out what changed, or raise the threshold in the schema"
    if bounds.HasField("infinity_norm"):
        found = l_infinity(ours, theirs)
        if found and found[0] > bounds.infinity_norm.threshold:
            yield Anomaly(
                "COMPARATOR_L_INFTY_HIGH",
                f"L-infinity distance {found[0]:.4g} from {name}, largest for {found[1]!r}; expected at most "
                f"{bounds.infinity_norm.threshold:g}",
                fix,
            )
    if bounds.HasField("jensen_shannon_divergence"):
        distance = jensen_shannon(ours, theirs)
        limit = bounds.jensen_shannon_divergence.threshold
        if distance is not None and distance > limit:
            yield Anomaly(
                "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH",
                f"Jensen-Shannon divergence {distance:.4g} from {name} ({_ranges(ours, theirs)}); expected at most "
                f"{limit:g}",
                fix,
            )


def _row_count_anomalies(dataset: Any, control: Any, schema: Any, comparator: str, name: str) -> Iterator[Anomaly]:
    constraints = schema.dataset_constraints
    if comparator != "drift_comparator" or not constraints.HasField("num_examples_drift_comparator"):
        return
    bounds = constraints.num_examples_drift_comparator
    share = dataset.num_examples / max(control.num_examples, 1)
    seen = f"{dataset.num_examples} rows, {share:.3g} times the number of {name}"
    if share < bounds.min_fraction_threshold:
        yield Anomaly(
            "COMPARATOR_LOW_NUM_EXAMPLES", seen, f"expected a ratio of at least {bounds.min_fraction_threshold:g}"
        )
    if bounds.HasField("max_fraction_threshold") and share > bounds.max_fraction_threshold:
        yield Anomaly(
            "COMPARATOR_HIGH_NUM_EXAMPLES", seen, f"expected a ratio of at most {bounds.max_fraction_threshold:g}"
        )


def _shares(feature: Feature) -> dict[str, float]:
    total = sum(count for _, count in feature.ranked)
    return {value: count / total for value, count in feature.ranked} if total else {}


def _binned(ours: Feature, theirs: Feature) -> tuple[np.ndarray, np.ndarray] | None:
    sides = [_buckets(side) for side in (ours, theirs)]
    edges = np.unique(np.concatenate([part for low, high, _ in sides for part in (low, high)]))
    if not len(edges):
        return None
    found = []
    for side, (low, high, counts) in zip((ours, theirs), sides):
        nan = max((h.num_nan for h in side.stats.histograms), default=0)
        found.append(np.append(_spread(edges, low, high, counts), nan))
        if not found[-1].sum():
            return None
    return found[0] / found[0].sum(), found[1] / found[1].sum()


def _buckets(feature: Feature) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    standard = statistics_pb2.Histogram.STANDARD
    histograms = [h for h in getattr(feature.stats, "histograms", ()) if h.type == standard]
    buckets = [b for h in histograms[:1] for b in h.buckets]
    low, high, count = (np.array([getattr(b, n) for b in buckets]) for n in ("low_value", "high_value", "sample_count"))
    return low, high, count


def _spread(edges: np.ndarray, low: np.ndarray, high: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Distribute the counts of buckets uniformly over the finer buckets between `edges`, and over the edges."""
    points, cells = np.zeros(len(edges)), np.zeros(len(edges) - 1)
    for start, end, count in zip(low, high, counts):
        first, last = np.searchsorted(edges, [start, end])
        if first == last:  # a bucket of width 0 has one value
            points[first] += count
        else:
            cells[first:last] += count * np.diff(edges[first : last + 1]) / (end - start)
    return np.concatenate([points, cells])


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    middle = (p + q) / 2
    halves = [(side[side > 0] * np.log2(side[side > 0] / middle[side > 0])).sum() for side in (p, q)]
    return float(max(sum(halves) / 2, 0.0))


def _ranges(ours: Feature, theirs: Feature) -> str:
    if "STRING" in (ours.kind, theirs.kind):
        return ", ".join(repr(value) for value, _ in ours.ranked[:3])
    return (
        f"mean {ours.stats.mean:.4g} against {theirs.stats.mean:.4g}, "
        f"range {ours.stats.min:.4g} to {ours.stats.max:.4g} against {theirs.stats.min:.4g} to {theirs.stats.max:.4g}"
    )
