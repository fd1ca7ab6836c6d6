"""ExampleValidator: where the data breaks its schema, and whether that stops the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from components.artifacts import Anomalies, Schema, Statistics
from components.base import Component, Context, Input, Output, Parameter
from components.errors import DataError

SHOWN = 5


@dataclass(frozen=True)
class Anomaly:
    """One broken rule. `kind`: a name of AnomalyInfo.Type. `told`: what was seen, and the fix."""

    split: str
    feature: str
    kind: str
    told: str
    severity: str = "ERROR"

    def __str__(self) -> str:
        return f"{self.split}: feature {self.feature!r}: {self.told}"


class ExampleValidator(Component):
    """Holds every split's statistics against the schema.

    Parameters:
        fail_on: the least severity that stops the run.

    Raises:
        DataError: anomalies of that severity, naming split, feature, what was seen and the fix.
    """

    statistics: Input[Statistics]
    schema: Input[Schema]
    anomalies: Output[Anomalies]
    fail_on: Parameter[Literal["error", "warning", "never"]] = "error"

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        schema = inputs.schema.proto()
        found = list(find_anomalies(inputs.statistics.proto(), schema))
        outputs.anomalies.write(_as_proto(found, schema))
        stops = {"error": ("ERROR",), "warning": ("ERROR", "WARNING"), "never": ()}[self.fail_on]
        grave = [anomaly for anomaly in found if anomaly.severity in stops]
        if grave:
            more = f"; and {len(grave) - SHOWN} more" if len(grave) > SHOWN else ""
            raise DataError("; ".join(str(anomaly) for anomaly in grave[:SHOWN]) + more)
        return {"anomalies": len(found) - _warnings(found), "warnings": _warnings(found)}


def find_anomalies(statistics: Any, schema: Any) -> Iterator[Anomaly]:
    """Every rule of the schema that a split breaks, split by split and feature by feature."""
    domains = {domain.name: domain for domain in schema.string_domain}
    for dataset in statistics.datasets:
        if not dataset.num_examples:
            yield Anomaly(dataset.name, "*", "DATASET_LOW_NUM_EXAMPLES", "the split is empty")
            continue
        seen = {feature.path.step[0]: feature for feature in dataset.features}
        for feature in schema.feature:
            if feature.name not in seen:
                if feature.presence.min_fraction > 0 or feature.presence.min_count > 0:
                    yield Anomaly(
                        dataset.name, feature.name, "SCHEMA_MISSING_COLUMN",
                        f"the column is missing; the data has {', '.join(sorted(seen))}",
                    )  # fmt: skip
                continue
            for kind, told in _feature_anomalies(feature, seen[feature.name], dataset, domains):
                yield Anomaly(dataset.name, feature.name, kind, told)
        for name in sorted(set(seen) - {feature.name for feature in schema.feature}):
            told = "a new column, which the schema does not know; add it, or leave it out"
            yield Anomaly(dataset.name, name, "SCHEMA_NEW_COLUMN", told, "WARNING")


def _feature_anomalies(
    feature: Any, seen: Any, dataset: Any, domains: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

    kind = statistics_pb2.FeatureNameStatistics.Type.Name(seen.type)
    wanted = schema_pb2.FeatureType.Name(feature.type)
    stats = seen.string_stats if kind == "STRING" else seen.num_stats
    common = stats.common_stats
    present = common.num_non_missing / dataset.num_examples
    if present < feature.presence.min_fraction or common.num_non_missing < feature.presence.min_count:
        wanted_share = f"{feature.presence.min_fraction:.4g}"
        yield "FEATURE_TYPE_LOW_FRACTION_PRESENT", (
            f"missing in {common.num_missing} of {dataset.num_examples} rows ({1 - present:.1%}), "
            f"present in a share of {wanted_share} wanted; mend the data or lower presence in the schema"
        )
    if not common.num_non_missing:
        return
    if not _fits(kind, wanted):
        examples = ", ".join(repr(value.value) for value in list(stats.top_values)[:3]) if kind == "STRING" else f"{stats.min:g} to {stats.max:g}"  # fmt: skip
        yield "UNEXPECTED_DATA_TYPE", (
            f"{wanted} wanted, {kind} found (such as {examples}); mend the data or the schema's type"
        )
        return
    if feature.HasField("value_count") and not (
        feature.value_count.min <= common.min_num_values
        and (not feature.value_count.max or common.max_num_values <= feature.value_count.max)
    ):
        yield "FEATURE_TYPE_HIGH_NUMBER_VALUES", (
            f"{common.min_num_values} to {common.max_num_values} values a row, "
            f"{feature.value_count.min} to {feature.value_count.max} wanted"
        )
    if kind == "STRING":
        yield from _domain_anomalies(feature, stats, domains)
    else:
        yield from _range_anomalies(feature, stats)


def _fits(kind: str, wanted: str) -> bool:
    """Whole numbers will do where fractions are allowed."""
    return {"STRING": "BYTES"}.get(kind, kind) == wanted or (kind, wanted) == ("INT", "FLOAT")


def _domain_anomalies(
    feature: Any, stats: Any, domains: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    domain = feature.string_domain if feature.HasField("string_domain") else domains.get(feature.domain)
    if domain is None:
        return
    known = set(domain.value)
    strange = [b for b in stats.rank_histogram.buckets if b.label not in known]
    rows = sum(bucket.sample_count for bucket in strange)
    share = rows / max(stats.common_stats.tot_num_values, 1)
    least = feature.distribution_constraints.min_domain_mass if feature.HasField("distribution_constraints") else 1.0  # fmt: skip
    if strange and share > 1 - least:
        examples = ", ".join(f"{b.label!r} ({b.sample_count:g} rows)" for b in strange[:3])
        yield "ENUM_TYPE_UNEXPECTED_STRING_VALUES", (
            f"{share:.1%} of the values are not in its domain: {examples}; "
            "mend the data or add them to the domain in the schema"
        )


def _range_anomalies(feature: Any, stats: Any) -> Iterator[tuple[str, str]]:
    for field in ("int_domain", "float_domain"):
        if not feature.HasField(field):
            continue
        domain = getattr(feature, field)
        if domain.HasField("min") and stats.min < domain.min:
            yield "OUT_OF_RANGE_LOW", f"the least value is {stats.min:g}, at least {domain.min:g} wanted"
        if domain.HasField("max") and stats.max > domain.max:
            yield "OUT_OF_RANGE_HIGH", f"the greatest value is {stats.max:g}, at most {domain.max:g} wanted"
    infinite = max((h.num_undefined for h in stats.histograms), default=0)
    if infinite:
        yield "FLOAT_TYPE_NOT_FLOAT", f"{infinite} values are infinite; mend the data"


_PROTO_KINDS = {
    "OUT_OF_RANGE_LOW": "FLOAT_TYPE_SMALL_FLOAT",
    "OUT_OF_RANGE_HIGH": "FLOAT_TYPE_BIG_FLOAT",
    "FLOAT_TYPE_NOT_FLOAT": "FLOAT_TYPE_HAS_INF",
}


def _as_proto(found: list[Anomaly], schema: Any) -> Any:
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    info = anomalies_pb2.AnomalyInfo
    proto = anomalies_pb2.Anomalies(baseline=schema)
    for anomaly in found:
        entry = proto.anomaly_info[anomaly.feature]
        entry.path.step[:] = [anomaly.feature]
        entry.severity = max(entry.severity, info.Severity.Value(anomaly.severity))
        kind = _PROTO_KINDS.get(anomaly.kind, anomaly.kind)
        entry.reason.add(
            type=info.Type.Value(kind), short_description=anomaly.told, description=str(anomaly)
        )
        entry.description = "; ".join(reason.description for reason in entry.reason)
        entry.short_description = entry.reason[0].short_description
    return proto


def _warnings(found: list[Anomaly]) -> int:
    return sum(anomaly.severity == "WARNING" for anomaly in found)
