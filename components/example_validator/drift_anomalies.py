"""Skew and drift: distances between two data sets, feature by feature, that exceed the schema's thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from kerasline.components.example_validator.schema_anomalies import ROUNDING, Anomaly, Feature

L_INFINITY, JENSEN_SHANNON, NORMALIZED_DIFFERENCE = "L-infinity", "Jensen-Shannon", "normalized absolute difference"
# The kind of anomaly of each measure, and what it is called in messages.
_KINDS = {
    L_INFINITY: ("COMPARATOR_L_INFTY_HIGH", "L-infinity distance"),
    JENSEN_SHANNON: ("COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH", "Jensen-Shannon divergence"),
    NORMALIZED_DIFFERENCE: ("COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH", "normalized absolute difference"),
}
# The field of a comparator that has the threshold of each measure.
THRESHOLDS = {
    L_INFINITY: "infinity_norm",
    JENSEN_SHANNON: "jensen_shannon_divergence",
    NORMALIZED_DIFFERENCE: "normalized_abs_difference",
}
# What the data are compared with, in messages, by the comparator of the schema.
CONTROL_NAMES = {
    "skew_comparator": "serving data",
    "drift_comparator": "the previous span",
    "num_examples_version_comparator": "the previous version",
}
# The field of `dataset_constraints` that bounds the ratio of the numbers of rows, by the comparator of the schema.
ROW_COUNT_COMPARATORS = {
    "drift_comparator": "num_examples_drift_comparator",
    "num_examples_version_comparator": "num_examples_version_comparator",
}
DEFAULT, QUANTILES, STANDARD = (
    schema_pb2.HistogramSelection.Type.Value(n) for n in ("DEFAULT", "QUANTILES", "STANDARD")
)
MAX_CELLS = 100  # integers with more values are compared by histogram: of many, each value is rare


@dataclass(frozen=True)
class Distance:
    """A distance between the values of a feature in two data sets.

    Attributes:
        split, feature: where it was measured.
        control: the other data set, such as "the previous span".
        measure: `L_INFINITY`, `JENSEN_SHANNON` or `NORMALIZED_DIFFERENCE`.
        value: the distance.
        threshold: the largest distance that the schema allows.
        by_chance: the expected distance of two samples of these sizes if nothing changed.
        details: what the distance comes from.
    """

    split: str
    feature: str
    control: str
    measure: str
    value: float
    threshold: float
    by_chance: float
    details: str

    @property
    def is_high(self) -> bool:
        return self.value > self.threshold + ROUNDING and self.value > self.by_chance

    def anomaly(self) -> Anomaly:
        kind, name = _KINDS[self.measure]
        return Anomaly(
            kind,
            f"{name} {self.value:.4g} from {self.control}{self.details}; expected at most {self.threshold:g}",
            "find out what changed, or raise the threshold in the schema",
            split=self.split,
            feature=self.feature,
        )


def controls_of(dataset: Any, comparator: str, controls: Iterable[Any]) -> list[Any]:
    """Return the data sets with which to compare one: all serving data, and the split of the same name of a span."""
    return [control for control in controls if comparator == "skew_comparator" or control.name == dataset.name]


def compare(
    dataset: Any, control: Any, schema: Any, comparator: str, control_name: str
) -> Iterator[Anomaly | Distance]:
    """Yield the distances between two data sets, and an anomaly for each that could not be computed.

    Args:
        dataset, control: `DatasetFeatureStatistics`. Distances are measured from `control`.
        schema: the thresholds are in the features' `skew_comparator` or `drift_comparator`, and those of the numbers of
            rows in `dataset_constraints`.
        comparator: a key of `CONTROL_NAMES`.
        control_name: what to call `control`, such as "the serving data".
    """
    if comparator in ROW_COUNT_COMPARATORS:
        yield from _compare_row_counts(dataset, control, schema, ROW_COUNT_COMPARATORS[comparator], control_name)
    if comparator == "num_examples_version_comparator":
        return
    features, control_features = ({f.path.step[0]: f for f in d.features} for d in (dataset, control))
    for expected in schema.feature:
        if not expected.HasField(comparator):
            continue
        ours, theirs = (
            Feature(expected, found[expected.name], side.num_examples) if expected.name in found else None
            for found, side in ((features, dataset), (control_features, control))
        )
        for found in _of_feature(ours, theirs, getattr(expected, comparator), control_name):
            yield replace(found, split=dataset.name, feature=expected.name)


def l_infinity(ours: Feature, theirs: Feature) -> tuple[float, str] | None:
    """Return the largest difference between the shares of a value, and that value.

    Values beyond those that the statistics list are ignored. Floats and data without values have no categories, so the
    result is None.
    """
    shares = [_shares(side) for side in (ours, theirs)]
    if not all(shares):
        return None
    return _largest_gap(*shares)


def normalized_difference(ours: Feature, theirs: Feature) -> tuple[float, str] | None:
    """Return the largest difference between the counts of a value by the number of all values, and that value.

    Unlike `l_infinity`, it is not 0 where one data set is a multiple of the other. None where that is None.
    """
    counts = [dict(side.ranked) for side in (ours, theirs)]
    if not all(counts):
        return None
    gap, value = _largest_gap(*counts)
    return gap / (ours.common.tot_num_values + theirs.common.tot_num_values), value


def _largest_gap(ours: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[float, str]:
    gaps = {value: abs(ours.get(value, 0.0) - theirs.get(value, 0.0)) for value in {*ours, *theirs}}
    value = max(sorted(gaps), key=lambda value: gaps[value])
    return gaps[value], value


def jensen_shannon(ours: Feature, theirs: Feature, histogram_type: int = DEFAULT) -> tuple[float, int] | None:
    """Return the Jensen-Shannon divergence to base 2, and the number of cells that it compares.

    It is 0 for equal distributions and 1 for disjoint ones; see Lin, IEEE Transactions on Information Theory 37, 1991.
    Texts are compared by value, as are integers that the schema declares categorical and integers with up to
    `MAX_CELLS` values. Other numbers are compared by their histograms, with uniform density in each bucket and NaN as
    a separate cell.

    Args:
        histogram_type: type of `HistogramSelection`. STANDARD: buckets of equal width, divided at the bounds of both.
            QUANTILES: the cells are the quantiles of `theirs`. By default STANDARD, unless one bucket holds more than
            half of the numbers, as of heavy-tailed numbers.

    Returns:
        None if one side has no values, or its statistics do not list them.
    """
    if not _is_categorical(ours, theirs):
        parts = _binned(ours, theirs, histogram_type)
        if parts is None:
            return None
        p, q = parts
    else:
        one, other = _shares(ours), _shares(theirs)
        if not one or not other:
            return None
        values = sorted(one | other)
        p, q = (np.array([side.get(value, 0.0) for value in values]) for side in (one, other))
    return _divergence(p, q), int(np.count_nonzero(p + q))


def _is_categorical(ours: Feature, theirs: Feature) -> bool:
    """Return whether to compare each value: texts, and integers that are or may well be categories."""
    kinds = {ours.kind, theirs.kind}
    if "FLOAT" in kinds:
        return False
    few = all(len(side.ranked) <= MAX_CELLS and _lists_all_values(side) for side in (ours, theirs))
    return kinds != {"INT"} or ours.expected.int_domain.is_categorical or few


def _lists_all_values(feature: Feature) -> bool:
    return sum(count for _, count in feature.ranked) >= feature.common.tot_num_values - 0.5


def _of_feature(ours: Feature | None, theirs: Feature | None, bounds: Any, name: str) -> Iterator[Anomaly | Distance]:
    if theirs is None or not theirs.common.num_non_missing:
        yield Anomaly("COMPARATOR_CONTROL_DATA_MISSING", f"{name} has no values of it to compare with", "add some")
        return
    if ours is None or not ours.common.num_non_missing:
        yield Anomaly("COMPARATOR_TREATMENT_DATA_MISSING", f"no values to compare with {name}", "add some")
        return
    sizes = ours.common.tot_num_values, theirs.common.tot_num_values
    no_values = "the statistics list no values of it", "use jensen_shannon_divergence for fractions"
    if bounds.HasField("infinity_norm"):
        found = l_infinity(ours, theirs)
        if found is None:
            yield _not_computed(f"the L-infinity distance from {name}", *no_values)
        else:
            distance, value = found
            share = (_shares(ours).get(value, 0.0) * sizes[0] + _shares(theirs).get(value, 0.0) * sizes[1]) / sum(sizes)
            variance = max(share * (1 - share), 0.0) * (1 / sizes[0] + 1 / sizes[1])
            chance = math.sqrt(2 / math.pi * variance)  # the mean of a half-normal distribution
            threshold = bounds.infinity_norm.threshold
            yield Distance("", "", name, L_INFINITY, distance, threshold, chance, f", largest for {value!r}")
    if bounds.HasField("normalized_abs_difference"):
        found = normalized_difference(ours, theirs)
        if found is None:
            yield _not_computed(f"the normalized absolute difference from {name}", *no_values)
        else:
            distance, value = found
            # The difference of two counts with the same mean, which are Poisson, has twice its variance.
            count = sum(dict(side.ranked).get(value, 0.0) for side in (ours, theirs))
            chance = math.sqrt(2 / math.pi * count) / sum(sizes)
            threshold = bounds.normalized_abs_difference.threshold
            details = f", largest for {value!r}"
            yield Distance("", "", name, NORMALIZED_DIFFERENCE, distance, threshold, chance, details)
    if bounds.HasField("jensen_shannon_divergence"):
        measured = jensen_shannon(ours, theirs, bounds.jensen_shannon_divergence.source.type)
        if measured is None:
            fix = "compute the statistics with kerasline's StatisticsGen"
            yield _not_computed(
                f"the Jensen-Shannon divergence from {name}", "the statistics have no distribution", fix
            )
        else:
            distance, cells = measured
            chance = _divergence_by_chance(cells, *sizes)
            threshold = bounds.jensen_shannon_divergence.threshold
            yield Distance("", "", name, JENSEN_SHANNON, distance, threshold, chance, f" ({_ranges(ours, theirs)})")


def _not_computed(distance: str, why: str, fix: str) -> Anomaly:
    return Anomaly("STATS_NOT_AVAILABLE", f"{distance} cannot be computed: {why}", fix, "warning")


def _divergence_by_chance(cells: int, size: int, other_size: int) -> float:
    """Return the expected divergence of two samples of the same distribution.

    8 ln(2) / (1/n + 1/m) times the divergence of samples of n and m values has a chi-squared distribution with
    cells - 1 degrees of freedom, whose mean is their number.
    """
    return (cells - 1) / (8 * math.log(2)) * (1 / size + 1 / other_size)


def row_ratio(dataset: Any, control: Any) -> float:
    """Return the number of rows of a data set by that of another."""
    return dataset.num_examples / max(control.num_examples, 1)


def _compare_row_counts(dataset: Any, control: Any, schema: Any, comparator: str, name: str) -> Iterator[Anomaly]:
    """Yield an anomaly if the ratio of the numbers of rows is outside of the schema's bounds.

    Args:
        dataset, control: `DatasetFeatureStatistics`.
        comparator: name of the field of `dataset_constraints`.
        name: what to call `control`, such as "the previous version".
    """
    if not schema.dataset_constraints.HasField(comparator):
        return
    bounds = getattr(schema.dataset_constraints, comparator)
    ratio = row_ratio(dataset, control)
    seen = f"{dataset.num_examples} rows, {ratio:.3g} times the number of {name}"
    if ratio < bounds.min_fraction_threshold:
        fix = f"expected a ratio of at least {bounds.min_fraction_threshold:g}"
        yield Anomaly("COMPARATOR_LOW_NUM_EXAMPLES", seen, fix, split=dataset.name)
    if bounds.HasField("max_fraction_threshold") and ratio > bounds.max_fraction_threshold:
        fix = f"expected a ratio of at most {bounds.max_fraction_threshold:g}"
        yield Anomaly("COMPARATOR_HIGH_NUM_EXAMPLES", seen, fix, split=dataset.name)


def _shares(feature: Feature) -> dict[str, float]:
    total = sum(count for _, count in feature.ranked)
    return {value: count / total for value, count in feature.ranked} if total else {}


def _binned(ours: Feature, theirs: Feature, histogram_type: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the counts of both sides in the same cells. The last cell is NaN."""
    if histogram_type == DEFAULT:
        standard = [_buckets(side, STANDARD)[2] for side in (ours, theirs)]
        is_unresolved = any(len(counts) > 1 and counts.max() > counts.sum() / 2 for counts in standard)
        histogram_type = QUANTILES if is_unresolved else STANDARD
    kind = STANDARD if histogram_type == STANDARD else QUANTILES
    sides = [_buckets(side, kind) for side in (ours, theirs)]
    nans = [max((h.num_nan for h in side.stats.histograms), default=0) for side in (ours, theirs)]
    if not all(counts.sum() + nan for (_, _, counts), nan in zip(sides, nans)):
        return None
    if histogram_type == STANDARD:
        edges = np.unique(np.concatenate([part for low, high, _ in sides for part in (low, high)]))
        found = [_spread(edges, *side) for side in sides]
    else:
        edges = np.unique(sides[1][0][1:])  # of the control, whose cells hold equal counts
        found = [np.diff(_cumulative(edges, *side), prepend=0, append=side[2].sum()) for side in sides]
    p, q = (np.append(counts, nan) for counts, nan in zip(found, nans))
    return p / p.sum(), q / q.sum()


def _cumulative(points: np.ndarray, low: np.ndarray, high: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the number of values up to each point. Values are uniform within a bucket; one of width 0 is one value."""
    width = np.where(high > low, high - low, 1)
    share = np.where(high > low, (points[:, None] - low) / width, points[:, None] >= low)
    return (np.clip(share, 0, 1) * counts).sum(axis=1)


def _buckets(feature: Feature, histogram_type: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    histogram = statistics_pb2.Histogram
    kind = histogram.QUANTILES if histogram_type == QUANTILES else histogram.STANDARD
    histograms = [h for h in getattr(feature.stats, "histograms", ()) if h.type == kind]
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
