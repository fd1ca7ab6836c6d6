"""How far two data sets are apart, feature by feature: skew and drift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from tensorflow_metadata.proto.v0 import statistics_pb2

from kerasline.components.example_validator.rules import Anomaly, Feature


def compare(dataset: Any, control: Any, schema: Any, comparator: str, control_name: str) -> Iterator[Anomaly]:
    """Where a data set is further from another than the schema allows.

    Args:
        dataset, control: `DatasetFeatureStatistics`; distances are from `control`.
        schema: its features' `skew_comparator` or `drift_comparator` have the thresholds.
        comparator: the name of that field.
        control_name: what to call the other one, such as "the serving data".
    """
    for anomaly in _numbers_of_rows(dataset, control, schema, comparator, control_name):
        yield replace(anomaly, split=dataset.name)
    ours, theirs = ({f.path.step[0]: f for f in d.features} for d in (dataset, control))
    for wanted in schema.feature:
        if not wanted.HasField(comparator):
            continue
        pair = [
            Feature(wanted, found[wanted.name], side.num_examples) if wanted.name in found else None
            for found, side in ((ours, dataset), (theirs, control))
        ]
        for anomaly in _of_feature(*pair, getattr(wanted, comparator), control_name):
            yield replace(anomaly, split=dataset.name, feature=wanted.name)


def l_infinity(ours: Feature, theirs: Feature) -> tuple[float, str] | None:
    """The largest difference of a value's share, and that value; for categories.

    None where there are no categories: fractions, or data without values. Where a column has more
    values than its statistics list, those beyond the list are left out.
    """
    shares = [_shares(side) for side in (ours, theirs)]
    if not all(shares):
        return None
    gaps = {value: abs(shares[0].get(value, 0.0) - shares[1].get(value, 0.0)) for value in shares[0] | shares[1]}
    value = max(sorted(gaps), key=gaps.get)
    return gaps[value], value


def jensen_shannon(ours: Feature, theirs: Feature) -> float | None:
    """The Jensen-Shannon divergence with logarithms to base 2: 0 for equal, 1 for disjoint ones.

    (Lin, IEEE Transactions on Information Theory 37, 1991.) Categories are compared by value;
    fractions by their histograms, cut at the bounds of both, as if even within a bucket, with NaN
    as a bucket of its own. None where one has no values.
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
        yield Anomaly("COMPARATOR_CONTROL_DATA_MISSING", f"{name} has no values of it to compare with", "give some")
        return
    if ours is None or not ours.common.num_non_missing:
        yield Anomaly("COMPARATOR_TREATMENT_DATA_MISSING", f"no values to compare with {name}", "give some")
        return
    fix = "see what changed, or raise the threshold in the schema"
    if bounds.HasField("infinity_norm"):
        found = l_infinity(ours, theirs)
        if found and found[0] > bounds.infinity_norm.threshold:
            yield Anomaly(
                "COMPARATOR_L_INFTY_HIGH",
                f"L-infinity distance {found[0]:.4g} from {name}, most of all in {found[1]!r}, at most "
                f"{bounds.infinity_norm.threshold:g} allowed",
                fix,
            )
    if bounds.HasField("jensen_shannon_divergence"):
        distance = jensen_shannon(ours, theirs)
        limit = bounds.jensen_shannon_divergence.threshold
        if distance is not None and distance > limit:
            yield Anomaly(
                "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH",
                f"Jensen-Shannon divergence {distance:.4g} from {name} ({_ranges(ours, theirs)}), at most "
                f"{limit:g} allowed",
                fix,
            )


def _numbers_of_rows(dataset: Any, control: Any, schema: Any, comparator: str, name: str) -> Iterator[Anomaly]:
    constraints = schema.dataset_constraints
    if comparator != "drift_comparator" or not constraints.HasField("num_examples_drift_comparator"):
        return
    bounds = constraints.num_examples_drift_comparator
    share = dataset.num_examples / max(control.num_examples, 1)
    seen = f"{dataset.num_examples} rows, {share:.3g} times those of {name}"
    if share < bounds.min_fraction_threshold:
        yield Anomaly("COMPARATOR_LOW_NUM_EXAMPLES", seen, f"at least {bounds.min_fraction_threshold:g} wanted")
    if bounds.HasField("max_fraction_threshold") and share > bounds.max_fraction_threshold:
        yield Anomaly("COMPARATOR_HIGH_NUM_EXAMPLES", seen, f"at most {bounds.max_fraction_threshold:g} wanted")


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
    return tuple(np.array([getattr(b, name) for b in buckets]) for name in ("low_value", "high_value", "sample_count"))


def _spread(edges: np.ndarray, low: np.ndarray, high: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Counts of buckets, laid out evenly over finer ones and over the edges themselves."""
    points, cells = np.zeros(len(edges)), np.zeros(len(edges) - 1)
    for start, end, count in zip(low, high, counts):
        first, last = np.searchsorted(edges, [start, end])
        if first == last:  # a bucket without width: one value
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
