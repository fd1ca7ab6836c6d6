"""Anomalies: violations of a schema by the statistics of a data set.

The kinds of anomalies are those of tensorflow-metadata's `AnomalyInfo.Type`. Each function below compares one feature,
or the data set, with one part of the schema. Add a kind of anomaly as a function that `_of_feature` calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from kerasline.components.example_validator.semantic_domains import coverage, expected_integers, expected_texts
from kerasline.components.statistics_gen.statistics_proto import image_count, sound_count

# Shares of rows are quotients, and thresholds decimal fractions: 8 of 10 rows are a share of 0.8 up to this.
ROUNDING = 1e-9
UNCHECKED_STAGES = ("PLANNED", "ALPHA", "DEPRECATED", "DEBUG_ONLY", "DISABLED")
# Largest share of samples at full scale in a sound that is not clipped.
MOST_CLIPPED = 0.01


@dataclass(frozen=True)
class Anomaly:
    """One violation of a schema.

    Attributes:
        kind: a name of `AnomalyInfo.Type`.
        seen: the violation, with observed values and examples.
        fix: how to fix it.
        severity: error, warning or ignore.
        split: name of the data set.
        feature: name of the feature, or `*` for the whole data set.
        rows: some of the rows that cause it: `file`, `row` (from 0) and `value`.
    """

    kind: str
    seen: str
    fix: str
    severity: str = "error"
    split: str = ""
    feature: str = "*"
    rows: tuple[dict[str, Any], ...] = ()

    def __str__(self) -> str:
        feature = "" if self.feature == "*" else f"feature {self.feature!r}: "
        first = f" (first in {self.rows[0]['file']}, row {self.rows[0]['row']})" if self.rows else ""
        return f"{self.split}: {feature}{self.seen}{first}; {self.fix}"


@dataclass(frozen=True)
class Feature:
    """A feature in the schema (`expected`) and in the statistics (`observed`), with the data set's number of rows."""

    expected: Any
    observed: Any
    rows: int

    @property
    def kind(self) -> str:
        """INT, FLOAT or STRING."""
        return statistics_pb2.FeatureNameStatistics.Type.Name(self.observed.type)

    @property
    def stats(self) -> Any:
        return self.observed.string_stats if self.kind == "STRING" else self.observed.num_stats

    @property
    def common(self) -> Any:
        return self.stats.common_stats

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """The most frequent values with their counts. Integers are given as text."""
        histogram = self.stats.rank_histogram if self.kind == "STRING" else self.custom("top_values")
        buckets = getattr(histogram, "rank_histogram", histogram)
        return [(b.label, b.sample_count) for b in buckets.buckets] if buckets is not None else []

    @property
    def unique(self) -> int:
        """Number of distinct values."""
        custom = self.custom("unique")
        return self.stats.unique if self.kind == "STRING" else int(custom.num) if custom else 0

    def custom(self, name: str) -> Any:
        return next((custom for custom in self.observed.custom_stats if custom.name == name), None)

    def range_of(self, name: str) -> tuple[float, float] | None:
        """Return the lowest and the highest value of a histogram among the custom statistics."""
        custom = self.custom(name)
        buckets = custom.histogram.buckets if custom is not None else ()
        return (buckets[0].low_value, buckets[-1].high_value) if buckets else None


def find_anomalies(dataset: Any, schema: Any, environment: str = "") -> Iterator[Anomaly]:
    """Yield an anomaly for each violation of the schema.

    Args:
        dataset: a `DatasetFeatureStatistics`.
        schema: a `Schema` without structs, see `schema_structure.flattened`.
        environment: `TRAINING`, `SERVING`, ... Features that the schema has only for other environments are not
            expected.
    """
    for anomaly in _of_dataset(dataset, schema):
        yield replace(anomaly, split=dataset.name)
    if not dataset.num_examples:
        return
    observed = {feature.path.step[0]: feature for feature in dataset.features}
    domains = {domain.name: domain for domain in schema.string_domain}
    for expected in schema.feature:
        is_checked = not expected.deprecated and not _is_unchecked_stage(expected)
        is_expected = is_checked and is_in_environment(expected, schema, environment)
        if is_checked and not is_expected and expected.name in observed:
            yield Anomaly(
                "SCHEMA_NEW_COLUMN",
                f"the column is present, but the schema excludes it from environment {environment!r}",
                "remove it from the data, or list the environment in the schema",
                "warning",
                dataset.name,
                expected.name,
            )
        if is_expected or (is_checked and expected.name in observed):
            for anomaly in _of_feature(expected, observed, dataset, domains):
                yield replace(anomaly, split=dataset.name, feature=expected.name)
    for name in sorted(set(observed) - {feature.name for feature in schema.feature}):
        yield Anomaly(
            "SCHEMA_NEW_COLUMN",
            "a new column that the schema does not have",
            "add it to the schema, or remove it from the data",
            "warning",
            dataset.name,
            name,
        )


def environments(schema: Any) -> set[str]:
    """Return the environments that a schema names."""
    found = set(schema.default_environment)
    for feature in schema.feature:
        found |= {*feature.in_environment, *feature.not_in_environment}
    return found


def _is_unchecked_stage(feature: Any) -> bool:
    return schema_pb2.LifecycleStage.Name(feature.lifecycle_stage) in UNCHECKED_STAGES


def common_stats(observed: Any) -> Any:
    """Return the `CommonStatistics` of a feature's statistics."""
    return observed.string_stats.common_stats if observed.HasField("string_stats") else observed.num_stats.common_stats


def is_in_environment(feature: Any, schema: Any, environment: str) -> bool:
    """Return whether a schema expects a feature in an environment."""
    if not environment or environment in feature.in_environment:
        return True
    listed = not feature.in_environment and not schema.default_environment
    return (listed or environment in schema.default_environment) and (environment not in feature.not_in_environment)


def _of_dataset(dataset: Any, schema: Any) -> Iterator[Anomaly]:
    rows, bounds = dataset.num_examples, schema.dataset_constraints
    if not rows:
        yield Anomaly("DATASET_LOW_NUM_EXAMPLES", "the split is empty", "add rows")
    elif rows < bounds.min_examples_count:
        yield Anomaly(
            "DATASET_LOW_NUM_EXAMPLES", f"{rows} rows, expected at least {bounds.min_examples_count}", "add more rows"
        )
    if bounds.HasField("max_examples_count") and rows > bounds.max_examples_count:
        yield Anomaly(
            "DATASET_HIGH_NUM_EXAMPLES",
            f"{rows} rows, expected at most {bounds.max_examples_count}",
            "find out where the additional rows come from",
        )


def _of_feature(
    expected: Any, observed: Mapping[str, Any], dataset: Any, domains: Mapping[str, Any]
) -> Iterator[Anomaly]:
    if not expected.name:
        yield Anomaly("FEATURE_MISSING_NAME", "the schema has a feature without a name", "name it")
        return
    if expected.name not in observed:
        if expected.presence.min_fraction > 0 or expected.presence.min_count > 0:
            yield Anomaly(
                "SCHEMA_MISSING_COLUMN",
                "the column is missing",
                f"add it, or remove it from the schema; the data has {', '.join(sorted(observed))}",
            )
        return
    feature = Feature(expected, observed[expected.name], dataset.num_examples)
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
    yield from _meaning(feature)
    yield from _language(feature, domains)
    yield from _images(feature)
    yield from _sounds(feature)


def _presence(feature: Feature) -> Iterator[Anomaly]:
    expected, common = feature.expected.presence, feature.common
    share = common.num_non_missing / feature.rows
    fix = "fix the data, or lower presence in the schema"
    missing = f"missing in {common.num_missing} of {feature.rows} rows ({1 - share:.1%})"
    if not common.num_non_missing and (expected.min_fraction > 0 or expected.min_count > 0):
        yield Anomaly("FEATURE_TYPE_NOT_PRESENT", missing, fix)
        return
    if share < expected.min_fraction - ROUNDING:
        yield Anomaly(
            "FEATURE_TYPE_LOW_FRACTION_PRESENT",
            f"{missing}, expected a present share of at least {expected.min_fraction:.4g}",
            fix,
        )
    if common.num_non_missing < expected.min_count:
        yield Anomaly(
            "FEATURE_TYPE_LOW_NUMBER_PRESENT",
            f"present in {common.num_non_missing} rows, expected at least {expected.min_count}",
            fix,
        )


def _type(feature: Feature) -> Iterator[Anomaly]:
    expected, kind = schema_pb2.FeatureType.Name(feature.expected.type), feature.kind
    if expected == "TYPE_UNKNOWN":
        if feature.expected.WhichOneof("domain_info") is None:
            yield Anomaly("FEATURE_MISSING_TYPE", "the schema has no type for it", f"set type: {kind}")
        return
    # Integers are allowed in a FLOAT feature.
    if {"STRING": "BYTES"}.get(kind, kind) == expected or (kind, expected) == ("INT", "FLOAT"):
        return
    if kind == "STRING":
        examples = ", ".join(repr(value) for value, _ in feature.ranked[:3])
    else:
        examples = f"{feature.stats.min:g} to {feature.stats.max:g}"
    yield Anomaly(
        "UNEXPECTED_DATA_TYPE",
        f"expected {expected}, found {kind} (such as {examples})",
        "fix the data, or the schema's type",
    )


def _valency(feature: Feature) -> Iterator[Anomaly]:
    common, fix = feature.common, "fix the data, or the schema's value_count"
    found = f"{common.min_num_values} to {common.max_num_values} values a row"
    if not common.tot_num_values:
        yield Anomaly(
            "FEATURE_TYPE_NO_VALUES", "no row has a value: all its lists are empty, or have only nulls and NaN", fix
        )
        return
    if feature.expected.HasField("value_count"):
        bounds = feature.expected.value_count
        if common.min_num_values < bounds.min:
            yield Anomaly("FEATURE_TYPE_LOW_NUMBER_VALUES", f"{found}, expected at least {bounds.min}", fix)
        if bounds.HasField("max") and common.max_num_values > bounds.max:
            yield Anomaly("FEATURE_TYPE_HIGH_NUMBER_VALUES", f"{found}, expected at most {bounds.max}", fix)
    if feature.expected.HasField("value_counts"):
        yield from _nesting(feature)
    if feature.expected.HasField("shape"):
        size = 1
        for dimension in feature.expected.shape.dim:
            size *= dimension.size
        if not common.min_num_values == common.max_num_values == size:
            yield Anomaly("INVALID_FEATURE_SHAPE", f"{found}, expected {size}", "fix the data, or the schema's shape")


def _nesting(feature: Feature) -> Iterator[Anomaly]:
    """Compare the number of values at each level of nested lists."""
    expected, levels = feature.expected.value_counts.value_count, nested_levels(feature)
    fix = "fix the data, or the schema's value_counts"
    if len(levels) != len(expected):
        seen = f"lists of {len(levels)} levels, expected {len(expected)}"
        yield Anomaly("VALUE_NESTEDNESS_MISMATCH", seen, fix)
        return
    for number, (level, bounds) in enumerate(zip(levels, expected), 1):
        if not level.num_non_missing:
            continue
        found = f"{level.min_num_values} to {level.max_num_values} values in a list of level {number}"
        if level.min_num_values < bounds.min:
            yield Anomaly("FEATURE_TYPE_LOW_NUMBER_VALUES", f"{found}, expected at least {bounds.min}", fix)
        if bounds.HasField("max") and level.max_num_values > bounds.max:
            yield Anomaly("FEATURE_TYPE_HIGH_NUMBER_VALUES", f"{found}, expected at most {bounds.max}", fix)


def nested_levels(feature: Feature) -> list[Any]:
    """Return statistics of the lists of each level, the outermost first."""
    return list(feature.common.presence_and_valency_stats) or [feature.common]


def _unique(feature: Feature) -> Iterator[Anomaly]:
    if not feature.expected.HasField("unique_constraints"):
        return
    bounds = feature.expected.unique_constraints
    unique, fix = feature.unique, "fix the data, or the schema's unique_constraints"
    if unique < bounds.min:
        yield Anomaly("FEATURE_TYPE_LOW_UNIQUE", f"{unique} distinct values, expected at least {bounds.min}", fix)
    if bounds.HasField("max") and unique > bounds.max:
        yield Anomaly("FEATURE_TYPE_HIGH_UNIQUE", f"{unique} distinct values, expected at most {bounds.max}", fix)


def _numbers(feature: Feature) -> Iterator[Anomaly]:
    expected, fix = feature.expected, "fix the data, or the schema's domain"
    if expected.WhichOneof("domain_info") in ("int_domain", "float_domain"):
        domain = getattr(expected, expected.WhichOneof("domain_info"))
        kind = "INT_TYPE_{}_INT" if expected.HasField("int_domain") else "FLOAT_TYPE_{}_FLOAT"
        if feature.kind == "STRING":
            yield from _texts_of_numbers(feature, domain)
        elif domain.HasField("min") and feature.stats.min < domain.min:
            yield Anomaly(
                kind.format("SMALL"),
                f"the smallest value is {feature.stats.min:g}, expected at least {domain.min:g}",
                fix,
            )
        if feature.kind != "STRING" and domain.HasField("max") and feature.stats.max > domain.max:
            yield Anomaly(
                kind.format("BIG"), f"the largest value is {feature.stats.max:g}, expected at most {domain.max:g}", fix
            )
    if feature.kind != "STRING":
        yield from _finiteness(feature)


def _finiteness(feature: Feature) -> Iterator[Anomaly]:
    infinite = max((h.num_undefined for h in feature.stats.histograms), default=0)
    domain = feature.expected.float_domain
    if infinite and (domain.disallow_inf or not domain.HasField("disallow_inf")):
        fix = "fix the data, or set disallow_inf: false in its float_domain"
        yield Anomaly("FLOAT_TYPE_HAS_INF", f"{infinite} values are infinite", fix)
    nan = max((h.num_nan for h in feature.stats.histograms), default=0)
    if nan and feature.expected.float_domain.disallow_nan:
        yield Anomaly("FLOAT_TYPE_HAS_NAN", f"{nan} values are NaN", "fix the data, or its float_domain")


def _texts_of_numbers(feature: Feature, domain: Any) -> Iterator[Anomaly]:
    """Compare text that must consist of numbers with the domain of the numbers."""
    is_int = feature.expected.HasField("int_domain")
    kinds = (
        ("INT_TYPE_NOT_INT_STRING", "INT_TYPE_SMALL_INT", "INT_TYPE_BIG_INT")
        if is_int
        else ("FLOAT_TYPE_STRING_NOT_FLOAT", "FLOAT_TYPE_SMALL_FLOAT", "FLOAT_TYPE_BIG_FLOAT")
    )
    wrong: dict[str, list[str]] = {}
    for text, _ in feature.ranked:
        number = number_of(text, is_int)
        if number is None:
            wrong.setdefault(kinds[0], []).append(text)
            continue
        if domain.HasField("min") and number < domain.min:
            wrong.setdefault(kinds[1], []).append(text)
        if domain.HasField("max") and number > domain.max:
            wrong.setdefault(kinds[2], []).append(text)
    for kind, texts in wrong.items():
        yield Anomaly(
            kind,
            f"{len(texts)} distinct values are not numbers in its domain: {', '.join(map(repr, texts[:3]))}",
            "fix the data, or the schema's domain",
        )


def number_of(text: str, is_int: bool) -> float | None:
    """Return the number that a text is, or None. Python also reads `1_000` and digits of other scripts, data do not."""
    if not text.isascii() or "_" in text or text != text.strip():
        return None
    try:
        return int(text) if is_int else float(text)
    except ValueError:
        return None


def _texts(feature: Feature, domains: Mapping[str, Any]) -> Iterator[Anomaly]:
    expected = feature.expected
    domain = expected.string_domain if expected.HasField("string_domain") else domains.get(expected.domain)
    if expected.domain and domain is None:
        yield Anomaly("INVALID_SCHEMA_SPECIFICATION", f"the schema has no string_domain {expected.domain!r}", "add it")
    if expected.HasField("bool_domain"):
        yield from _booleans(feature)
    if domain is None:
        return
    if feature.kind == "FLOAT":
        yield Anomaly("DOMAIN_INVALID_FOR_TYPE", "numbers cannot have a string_domain", "remove it from the schema")
        return
    if feature.kind == "STRING" and feature.stats.invalid_utf8_count:
        yield Anomaly(
            "ENUM_TYPE_INVALID_UTF8",
            f"{feature.stats.invalid_utf8_count} values are not UTF-8",
            "fix the encoding of the data",
        )
    yield from _outside_domain(feature, unexpected_values(feature, domain))


def _outside_domain(
    feature: Feature, unexpected: list[tuple[str, float]], words: str = "not in its domain"
) -> Iterator[Anomaly]:
    """Yield an anomaly if more values are outside of a domain than `distribution_constraints` allow.

    Args:
        unexpected: these values, with their counts.
        words: what is wrong with them.
    """
    share = sum(count for _, count in unexpected) / max(feature.common.tot_num_values, 1)
    constraints = feature.expected.distribution_constraints
    min_share = constraints.min_domain_mass if feature.expected.HasField("distribution_constraints") else 1.0
    if unexpected and share > 1 - min_share + ROUNDING:
        examples = ", ".join(f"{value!r} ({count:g} rows)" for value, count in unexpected[:3])
        yield Anomaly(
            "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
            f"{share:.1%} of the values are {words}: {examples}",
            "fix the data, or the domain in the schema",
        )


def unexpected_values(feature: Feature, domain: Any) -> list[tuple[str, float]]:
    """Return the most frequent values that are not in a `StringDomain`, with their counts."""
    known = set(domain.value)
    return [(value, count) for value, count in feature.ranked if value not in known]


def _booleans(feature: Feature) -> Iterator[Anomaly]:
    domain = feature.expected.bool_domain
    fix = "fix the data, or the schema's bool_domain"
    if feature.kind == "STRING":
        known = {domain.true_value, domain.false_value} - {""}
        if not known:
            yield Anomaly(
                "BOOL_TYPE_INVALID_CONFIG", "it has text, but its bool_domain has no true_value or false_value", fix
            )
        unexpected = [value for value, _ in feature.ranked if value not in known]
        if known and unexpected:
            yield Anomaly(
                "BOOL_TYPE_UNEXPECTED_STRING",
                f"values such as {unexpected[0]!r}, expected {' or '.join(sorted(known))}",
                fix,
            )
        return
    if feature.stats.min < 0:
        yield Anomaly("BOOL_TYPE_SMALL_INT", f"the smallest value is {feature.stats.min:g}, expected 0 or 1", fix)
    if feature.stats.max > 1:
        yield Anomaly("BOOL_TYPE_BIG_INT", f"the largest value is {feature.stats.max:g}, expected 0 or 1", fix)
    if feature.kind == "FLOAT":
        unexpected = [
            e
            for h in feature.stats.histograms
            for b in h.buckets
            for e in (b.low_value, b.high_value)
            if h.type == statistics_pb2.Histogram.QUANTILES and e not in (0, 1)
        ]
        if unexpected and 0 <= feature.stats.min and feature.stats.max <= 1:
            yield Anomaly("BOOL_TYPE_UNEXPECTED_FLOAT", f"values such as {unexpected[0]:g}, expected 0 or 1", fix)


def _meaning(feature: Feature) -> Iterator[Anomaly]:
    """Compare values with the domains of URLs, knowledge graph ids and times."""
    name = feature.expected.WhichOneof("domain_info")
    texts, integers = expected_texts(feature.expected), expected_integers(feature.expected)
    expected = texts or integers
    if expected and feature.kind != ("STRING" if texts else "INT"):
        seen = f"values of type {feature.kind}, but its {name} expects {expected[0]}"
        yield Anomaly("DOMAIN_INVALID_FOR_TYPE", seen, f"fix the data, or the schema's {name}")
    elif texts:
        words, is_expected = texts
        unexpected = [(value, count) for value, count in feature.ranked if not is_expected(value)]
        yield from _outside_domain(feature, unexpected, f"no {words}")
    elif integers:
        words, least, most = integers
        for kind, value, is_wrong in (
            ("INT_TYPE_SMALL_INT", feature.stats.min, feature.stats.min < least),
            ("INT_TYPE_BIG_INT", feature.stats.max, feature.stats.max > most),
        ):
            if is_wrong:
                seen = f"the value {value:.17g} is none of the expected {words}"
                yield Anomaly(kind, seen, f"fix the data, or the schema's {name}")


def _language(feature: Feature, domains: Mapping[str, Any]) -> Iterator[Anomaly]:
    """Compare tokens with a `NaturalLanguageDomain`."""
    if not feature.expected.HasField("natural_language_domain"):
        return
    domain, fix = feature.expected.natural_language_domain, "fix the data, or the schema's natural_language_domain"
    if feature.kind == "FLOAT":
        yield Anomaly("DOMAIN_INVALID_FOR_TYPE", "fractions, expected texts or integer tokens", fix)
        return
    vocabulary = set(domains[domain.vocabulary].value) if domain.vocabulary in domains else None
    share, length = coverage(feature.ranked, domain, vocabulary)
    if share < domain.coverage.min_coverage - ROUNDING:
        seen = f"{share:.1%} of the tokens are known, expected at least {domain.coverage.min_coverage:.1%}"
        yield Anomaly("FEATURE_COVERAGE_TOO_LOW", seen, fix)
    if length < domain.coverage.min_avg_token_length - ROUNDING:
        seen = f"tokens have {length:.4g} characters on average, expected {domain.coverage.min_avg_token_length:.4g}"
        yield Anomaly("FEATURE_COVERAGE_TOO_SHORT_AVG_TOKEN_LENGTH", seen, fix)
    bounds, common = domain.sequence_length_constraints, feature.common
    if bounds.excluded_int_value or bounds.excluded_string_value:
        return
    found = f"{common.min_num_values} to {common.max_num_values} tokens a row"
    if bounds.HasField("min_sequence_length") and common.min_num_values < bounds.min_sequence_length:
        seen = f"{found}, expected at least {bounds.min_sequence_length}"
        yield Anomaly("FEATURE_TYPE_LOW_NUMBER_VALUES", seen, fix)
    if bounds.HasField("max_sequence_length") and common.max_num_values > bounds.max_sequence_length:
        seen = f"{found}, expected at most {bounds.max_sequence_length}"
        yield Anomaly("FEATURE_TYPE_HIGH_NUMBER_VALUES", seen, fix)


def _images(feature: Feature) -> Iterator[Anomaly]:
    if not feature.expected.HasField("image_domain"):
        return
    domain = feature.expected.image_domain
    images = image_count(feature.observed)
    share = images / feature.common.tot_num_values
    if share < domain.minimum_supported_image_fraction - ROUNDING:
        bad = feature.common.tot_num_values - images
        yield Anomaly(
            "LOW_SUPPORTED_IMAGE_FRACTION",
            f"{bad} of {feature.common.tot_num_values} values are not images",
            "fix the data, or the schema's image_domain",
        )
    largest = feature.custom("max_length")
    if domain.max_image_byte_size and largest and largest.num > domain.max_image_byte_size:
        yield Anomaly(
            "MAX_IMAGE_BYTE_SIZE_EXCEEDED",
            f"the largest has {largest.num:g} bytes, expected at most {domain.max_image_byte_size}",
            "reduce its size, or raise the bound in the schema",
        )


def _sounds(feature: Feature) -> Iterator[Anomaly]:
    if not feature.expected.HasField("audio_domain"):
        return
    total, sounds = feature.common.tot_num_values, sound_count(feature.observed)
    if sounds < total:
        fix = "fix the data, or the schema's audio_domain"
        yield Anomaly("UNEXPECTED_DATA_TYPE", f"{total - sounds} of {total} values are not sound", fix)
    rates = feature.range_of("sample_rate")
    if rates is not None and rates[0] < rates[1]:
        seen = f"sampling rates are from {rates[0]:g} to {rates[1]:g} samples per second, expected one"
        yield Anomaly("UNEXPECTED_DATA_TYPE", seen, "resample the sound: set ExampleGen.sample_rate")
    clipped, silent = feature.range_of("clipped"), feature.range_of("silent")
    if clipped is not None and clipped[1] > MOST_CLIPPED:
        seen = f"in a sound {clipped[1]:.1%} of the samples are at full scale: it is clipped"
        yield Anomaly("CUSTOM_VALIDATION", seen, "record such sound at a lower level, or remove it", "warning")
    if silent is not None and silent[1] == 1:
        yield Anomaly("CUSTOM_VALIDATION", "a sound is silent", "remove such sound, or record it again", "warning")
