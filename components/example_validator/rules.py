"""The rules of a schema, and where a data set's statistics break them.

The kinds are those of tensorflow-metadata's `AnomalyInfo.Type`; each function here holds one
feature, or data set, against one part of the schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

_STAGES_LEFT_OUT = ("PLANNED", "ALPHA", "DEPRECATED", "DEBUG_ONLY", "DISABLED")


@dataclass(frozen=True)
class Anomaly:
    """One broken rule.

    Attributes:
        kind: a name of `AnomalyInfo.Type`.
        seen: what is wrong, with figures and examples. fix: what to do about it.
        severity: error, warning, or ignore.
        feature: `*` where it is about the whole data set.
    """

    kind: str
    seen: str
    fix: str
    severity: str = "error"
    split: str = ""
    feature: str = "*"

    def __str__(self) -> str:
        what = "" if self.feature == "*" else f"feature {self.feature!r}: "
        return f"{self.split}: {what}{self.seen}; {self.fix}"


@dataclass(frozen=True)
class Feature:
    """A feature as the schema wants it and as it was seen."""

    wanted: Any
    seen: Any
    rows: int

    @property
    def kind(self) -> str:
        """INT, FLOAT or STRING."""
        return statistics_pb2.FeatureNameStatistics.Type.Name(self.seen.type)

    @property
    def stats(self) -> Any:
        return self.seen.string_stats if self.kind == "STRING" else self.seen.num_stats

    @property
    def common(self) -> Any:
        return self.stats.common_stats

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """The most frequent values with their counts: texts, and integers as texts."""
        histogram = self.stats.rank_histogram if self.kind == "STRING" else self.custom("top_values")
        buckets = getattr(histogram, "rank_histogram", histogram)
        return [(b.label, b.sample_count) for b in buckets.buckets] if buckets is not None else []

    def custom(self, name: str) -> Any:
        return next((custom for custom in self.seen.custom_stats if custom.name == name), None)


def find_anomalies(dataset: Any, schema: Any, environment: str = "") -> Iterator[Anomaly]:
    """Every rule of the schema that a data set breaks.

    Args:
        dataset: a `DatasetFeatureStatistics`.
        schema: a `Schema`.
        environment: `TRAINING`, `SERVING`, ...: features that the schema has for other
            environments alone are not wanted.
    """
    for anomaly in _of_dataset(dataset, schema):
        yield replace(anomaly, split=dataset.name)
    if not dataset.num_examples:
        return
    seen = {feature.path.step[0]: feature for feature in dataset.features}
    domains = {domain.name: domain for domain in schema.string_domain}
    for wanted in schema.feature:
        for anomaly in _of_feature(wanted, seen, dataset, domains, _is_wanted(wanted, schema, environment)):
            yield replace(anomaly, split=dataset.name, feature=wanted.name)
    for name in sorted(set(seen) - {feature.name for feature in schema.feature}):
        yield Anomaly(
            "SCHEMA_NEW_COLUMN",
            "a new column, which the schema does not know",
            "add it to the schema, or leave it out",
            "warning",
            dataset.name,
            name,
        )


def _is_wanted(feature: Any, schema: Any, environment: str) -> bool:
    if feature.deprecated or schema_pb2.LifecycleStage.Name(feature.lifecycle_stage) in _STAGES_LEFT_OUT:
        return False
    if not environment or environment in feature.in_environment:
        return True
    listed = not feature.in_environment and not schema.default_environment
    return (listed or environment in schema.default_environment) and (environment not in feature.not_in_environment)


def _of_dataset(dataset: Any, schema: Any) -> Iterator[Anomaly]:
    rows, bounds = dataset.num_examples, schema.dataset_constraints
    if not rows:
        yield Anomaly("DATASET_LOW_NUM_EXAMPLES", "the split is empty", "give it rows")
    elif rows < bounds.min_examples_count:
        yield Anomaly(
            "DATASET_LOW_NUM_EXAMPLES", f"{rows} rows, at least {bounds.min_examples_count} wanted", "give it more"
        )
    if bounds.HasField("max_examples_count") and rows > bounds.max_examples_count:
        yield Anomaly(
            "DATASET_HIGH_NUM_EXAMPLES",
            f"{rows} rows, at most {bounds.max_examples_count} wanted",
            "see where the others come from",
        )


def _of_feature(
    wanted: Any, seen: Mapping[str, Any], dataset: Any, domains: Mapping[str, Any], is_wanted: bool
) -> Iterator[Anomaly]:
    if not wanted.name:
        yield Anomaly("FEATURE_MISSING_NAME", "the schema has a feature without a name", "name it")
        return
    if not is_wanted:
        return
    if wanted.name not in seen:
        if wanted.presence.min_fraction > 0 or wanted.presence.min_count > 0:
            yield Anomaly(
                "SCHEMA_MISSING_COLUMN",
                "the column is missing",
                f"give it, or take it out of the schema; the data has {', '.join(sorted(seen))}",
            )
        return
    feature = Feature(wanted, seen[wanted.name], dataset.num_examples)
    yield from _presence(feature)
    if not feature.common.num_non_missing:
        return
    mismatch = list(_type(feature))
    yield from mismatch
    if mismatch:
        return
    yield from _valency(feature)
    yield from _unique(feature)
    yield from _numbers(feature)
    yield from _texts(feature, domains)
    yield from _images(feature)


def _presence(feature: Feature) -> Iterator[Anomaly]:
    wanted, common = feature.wanted.presence, feature.common
    share = common.num_non_missing / feature.rows
    fix = "mend the data, or lower presence in the schema"
    missing = f"missing in {common.num_missing} of {feature.rows} rows ({1 - share:.1%})"
    if not common.num_non_missing and (wanted.min_fraction > 0 or wanted.min_count > 0):
        yield Anomaly("FEATURE_TYPE_NOT_PRESENT", missing, fix)
    elif share < wanted.min_fraction:
        yield Anomaly(
            "FEATURE_TYPE_LOW_FRACTION_PRESENT",
            f"{missing}, present in a share of {wanted.min_fraction:.4g} wanted",
            fix,
        )
    elif common.num_non_missing < wanted.min_count:
        yield Anomaly(
            "FEATURE_TYPE_LOW_NUMBER_PRESENT",
            f"present in {common.num_non_missing} rows, {wanted.min_count} wanted",
            fix,
        )


def _type(feature: Feature) -> Iterator[Anomaly]:
    wanted, kind = schema_pb2.FeatureType.Name(feature.wanted.type), feature.kind
    if wanted == "TYPE_UNKNOWN":
        if feature.wanted.WhichOneof("domain_info") is None:
            yield Anomaly("FEATURE_MISSING_TYPE", "the schema names no type for it", f"set type: {kind}")
        return
    # Whole numbers will do where fractions are allowed.
    if {"STRING": "BYTES"}.get(kind, kind) == wanted or (kind, wanted) == ("INT", "FLOAT"):
        return
    if kind == "STRING":
        such = ", ".join(repr(value) for value, _ in feature.ranked[:3])
    else:
        such = f"{feature.stats.min:g} to {feature.stats.max:g}"
    yield Anomaly(
        "UNEXPECTED_DATA_TYPE", f"{wanted} wanted, {kind} found (such as {such})", "mend the data, or the schema's type"
    )


def _valency(feature: Feature) -> Iterator[Anomaly]:
    common, fix = feature.common, "mend the data, or the schema's value_count"
    found = f"{common.min_num_values} to {common.max_num_values} values a row"
    if not common.tot_num_values:
        yield Anomaly("FEATURE_TYPE_NO_VALUES", "its lists are all empty", fix)
        return
    if feature.wanted.HasField("value_count"):
        bounds = feature.wanted.value_count
        if common.min_num_values < bounds.min:
            yield Anomaly("FEATURE_TYPE_LOW_NUMBER_VALUES", f"{found}, at least {bounds.min} wanted", fix)
        if bounds.max and common.max_num_values > bounds.max:
            yield Anomaly("FEATURE_TYPE_HIGH_NUMBER_VALUES", f"{found}, at most {bounds.max} wanted", fix)
    if feature.wanted.HasField("shape"):
        size = 1
        for dimension in feature.wanted.shape.dim:
            size *= dimension.size
        if not common.min_num_values == common.max_num_values == size:
            yield Anomaly("INVALID_FEATURE_SHAPE", f"{found}, {size} wanted", "mend the data, or the schema's shape")


def _unique(feature: Feature) -> Iterator[Anomaly]:
    if not feature.wanted.HasField("unique_constraints"):
        return
    bounds = feature.wanted.unique_constraints
    custom = feature.custom("unique")
    unique = feature.stats.unique if feature.kind == "STRING" else int(custom.num) if custom else 0
    fix = "mend the data, or the schema's unique_constraints"
    if unique < bounds.min:
        yield Anomaly("FEATURE_TYPE_LOW_UNIQUE", f"{unique} different values, at least {bounds.min} wanted", fix)
    if bounds.max and unique > bounds.max:
        yield Anomaly("FEATURE_TYPE_HIGH_UNIQUE", f"{unique} different values, at most {bounds.max} wanted", fix)


def _numbers(feature: Feature) -> Iterator[Anomaly]:
    wanted, fix = feature.wanted, "mend the data, or the schema's domain"
    if wanted.WhichOneof("domain_info") in ("int_domain", "float_domain"):
        domain = getattr(wanted, wanted.WhichOneof("domain_info"))
        kind = "INT_TYPE_{}_INT" if wanted.HasField("int_domain") else "FLOAT_TYPE_{}_FLOAT"
        if feature.kind == "STRING":
            yield from _texts_of_numbers(feature, domain)
        elif domain.HasField("min") and feature.stats.min < domain.min:
            yield Anomaly(
                kind.format("SMALL"), f"the least value is {feature.stats.min:g}, at least {domain.min:g} wanted", fix
            )
        if feature.kind != "STRING" and domain.HasField("max") and feature.stats.max > domain.max:
            yield Anomaly(
                kind.format("BIG"), f"the greatest value is {feature.stats.max:g}, at most {domain.max:g} wanted", fix
            )
    if feature.kind != "STRING":
        yield from _finiteness(feature)


def _finiteness(feature: Feature) -> Iterator[Anomaly]:
    infinite = max((h.num_undefined for h in feature.stats.histograms), default=0)
    if infinite:
        yield Anomaly("FLOAT_TYPE_HAS_INF", f"{infinite} values are infinite", "mend the data")
    nan = max((h.num_nan for h in feature.stats.histograms), default=0)
    if nan and feature.wanted.float_domain.disallow_nan:
        yield Anomaly("FLOAT_TYPE_HAS_NAN", f"{nan} values are NaN", "mend the data, or its float_domain")


def _texts_of_numbers(feature: Feature, domain: Any) -> Iterator[Anomaly]:
    """Texts that should all be numbers within a domain."""
    is_int = feature.wanted.HasField("int_domain")
    kinds = (
        ("INT_TYPE_NOT_INT_STRING", "INT_TYPE_SMALL_INT", "INT_TYPE_BIG_INT")
        if is_int
        else ("FLOAT_TYPE_STRING_NOT_FLOAT", "FLOAT_TYPE_SMALL_FLOAT", "FLOAT_TYPE_BIG_FLOAT")
    )
    wrong: dict[str, list[str]] = {}
    for text, _ in feature.ranked:
        try:
            number = int(text) if is_int else float(text)
        except ValueError:
            wrong.setdefault(kinds[0], []).append(text)
            continue
        if domain.HasField("min") and number < domain.min:
            wrong.setdefault(kinds[1], []).append(text)
        if domain.HasField("max") and number > domain.max:
            wrong.setdefault(kinds[2], []).append(text)
    for kind, texts in wrong.items():
        yield Anomaly(
            kind,
            f"{len(texts)} different values are no number of its domain: {', '.join(map(repr, texts[:3]))}",
            "mend the data, or the schema's domain",
        )


def _texts(feature: Feature, domains: Mapping[str, Any]) -> Iterator[Anomaly]:
    wanted = feature.wanted
    domain = wanted.string_domain if wanted.HasField("string_domain") else domains.get(wanted.domain)
    if wanted.domain and domain is None:
        yield Anomaly("INVALID_SCHEMA_SPECIFICATION", f"the schema has no string_domain {wanted.domain!r}", "add it")
    if wanted.HasField("bool_domain"):
        yield from _booleans(feature)
    if domain is None:
        return
    if feature.kind == "FLOAT":
        yield Anomaly("DOMAIN_INVALID_FOR_TYPE", "numbers cannot have a string_domain", "take it out of the schema")
        return
    if feature.kind == "STRING" and feature.stats.invalid_utf8_count:
        yield Anomaly(
            "ENUM_TYPE_INVALID_UTF8",
            f"{feature.stats.invalid_utf8_count} values are no UTF-8",
            "mend the data's encoding",
        )
    known = set(domain.value)
    strange = [(value, count) for value, count in feature.ranked if value not in known]
    share = sum(count for _, count in strange) / max(feature.common.tot_num_values, 1)
    constraints = wanted.distribution_constraints
    least = constraints.min_domain_mass if wanted.HasField("distribution_constraints") else 1.0
    if strange and share > 1 - least:
        such = ", ".join(f"{value!r} ({count:g} rows)" for value, count in strange[:3])
        yield Anomaly(
            "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
            f"{share:.1%} of the values are not in its domain: {such}",
            "mend the data, or add them to the domain in the schema",
        )


def _booleans(feature: Feature) -> Iterator[Anomaly]:
    domain = feature.wanted.bool_domain
    fix = "mend the data, or the schema's bool_domain"
    if feature.kind == "STRING":
        known = {domain.true_value, domain.false_value} - {""}
        if not known:
            yield Anomaly(
                "BOOL_TYPE_INVALID_CONFIG", "texts, but its bool_domain has no true_value or false_value", fix
            )
        strange = [value for value, _ in feature.ranked if value not in known]
        if known and strange:
            yield Anomaly(
                "BOOL_TYPE_UNEXPECTED_STRING",
                f"values such as {strange[0]!r}, {' or '.join(sorted(known))} wanted",
                fix,
            )
        return
    if feature.stats.min < 0:
        yield Anomaly("BOOL_TYPE_SMALL_INT", f"the least value is {feature.stats.min:g}, 0 or 1 wanted", fix)
    if feature.stats.max > 1:
        yield Anomaly("BOOL_TYPE_BIG_INT", f"the greatest value is {feature.stats.max:g}, 0 or 1 wanted", fix)
    if feature.kind == "FLOAT":
        strange = [
            e
            for h in feature.stats.histograms
            for b in h.buckets
            for e in (b.low_value, b.high_value)
            if h.type == statistics_pb2.Histogram.QUANTILES and e not in (0, 1)
        ]
        if strange and 0 <= feature.stats.min and feature.stats.max <= 1:
            yield Anomaly("BOOL_TYPE_UNEXPECTED_FLOAT", f"values such as {strange[0]:g}, 0 or 1 wanted", fix)


def _images(feature: Feature) -> Iterator[Anomaly]:
    if not feature.wanted.HasField("image_domain"):
        return
    domain = feature.wanted.image_domain
    formats, unknown = feature.custom("formats"), feature.custom("unknown_format")
    images = sum(b.sample_count for b in formats.rank_histogram.buckets) if formats else 0
    share = images / feature.common.tot_num_values
    if share < domain.minimum_supported_image_fraction:
        bad = int(unknown.num) if unknown else feature.common.tot_num_values
        yield Anomaly(
            "LOW_SUPPORTED_IMAGE_FRACTION",
            f"{bad} of {feature.common.tot_num_values} values are no images",
            "mend the data, or the schema's image_domain",
        )
    largest = feature.custom("max_length")
    if domain.max_image_byte_size and largest and largest.num > domain.max_image_byte_size:
        yield Anomaly(
            "MAX_IMAGE_BYTE_SIZE_EXCEEDED",
            f"the largest has {largest.num:g} bytes, at most {domain.max_image_byte_size} wanted",
            "shrink it, or raise the bound in the schema",
        )
