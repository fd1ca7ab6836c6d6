"""Accepting anomalies: changing a schema so that it allows what was observed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2

from kerasline.components.core.artifacts import Schema, Statistics
from kerasline.components.core.errors import DataError, check_known
from kerasline.components.example_validator.composite_features import composite_anomalies
from kerasline.components.example_validator.drift_anomalies import (
    CONTROL_NAMES,
    ROW_COUNT_COMPARATORS,
    THRESHOLDS,
    Distance,
    compare,
    controls_of,
    row_ratio,
)
from kerasline.components.example_validator.schema_anomalies import (
    Anomaly,
    Feature,
    find_anomalies,
    nested_levels,
    unexpected_values,
)
from kerasline.components.example_validator.schema_structure import flattened
from kerasline.components.example_validator.semantic_domains import coverage, expected_integers, expected_texts
from kerasline.components.schema_gen.component import infer, read_schema
from kerasline.components.statistics_gen.statistics_proto import image_count


def update_schema(
    schema: Schema | str | Path,
    statistics: Statistics | str | Path,
    accept: Collection[str] = (),
    environment: str = "",
    *,
    serving_statistics: Statistics | str | Path | None = None,
    previous_statistics: Statistics | str | Path | None = None,
    previous_version_statistics: Statistics | str | Path | None = None,
) -> schema_pb2.Schema:
    """Return a schema that allows what some statistics show.

    A new column is added as `SchemaGen` would infer it. A missing one is deprecated, and so is a sparse or weighted
    feature whose columns do not belong together. Bounds, categories and presence are widened as far as necessary, in
    all splits. A domain of another kind than the values is removed, and so are domains of URLs, ids and times that do
    not fit. Features of structs become features named `struct.feature`.

    Args:
        schema: the schema, or its file.
        statistics: the statistics, or their folder.
        accept: features, whose anomalies are all accepted, and kinds of anomalies, such as `SCHEMA_NEW_COLUMN`. By
            default all are accepted.
        environment: the environment of the data; see `ExampleValidator`.
        serving_statistics, previous_statistics, previous_version_statistics: data to compare with, as for
            `ExampleValidator`, or their folders. The thresholds of skew and drift, and the bounds of the ratio of the
            numbers of rows, are widened to what is observed, in the fourth decimal.

    Raises:
        ParameterError: a name in `accept` has no anomaly.
        DataError: the schema cannot be read, or an anomaly cannot be accepted, such as a split without rows.

    Example:

    >>> examples = kl.InMemoryExampleGen({"kind": ["cat", "cow"]}, splits={"train": 1}).execute(folder / "a").examples
    >>> statistics = kl.StatisticsGen(examples).execute(folder / "b").statistics
    >>> _ = (folder / "s.pbtxt").write_text('feature { name: "kind" type: BYTES string_domain { value: "cat" } }')
    >>> list(kl.update_schema(folder / "s.pbtxt", statistics, accept=["kind"]).feature[0].string_domain.value)
    ['cat', 'cow']
    """
    proto = schema.proto() if isinstance(schema, Schema) else read_schema(Path(schema))
    controls = {
        "skew_comparator": serving_statistics,
        "drift_comparator": previous_statistics,
        "num_examples_version_comparator": previous_version_statistics,
    }
    opened = {name: _opened(given) for name, given in controls.items() if given is not None}
    accept_anomalies(proto, _opened(statistics), accept, environment, opened)
    return proto


def _opened(statistics: Statistics | str | Path) -> Statistics:
    return statistics if isinstance(statistics, Statistics) else Statistics(Path(statistics))


def accept_anomalies(
    schema: schema_pb2.Schema,
    statistics: Statistics,
    accept: Collection[str] = (),
    environment: str = "",
    controls: Mapping[str, Statistics] | None = None,
) -> list[Anomaly]:
    """Change a schema in place and return the accepted anomalies; see `update_schema`.

    Args:
        controls: statistics to compare with, by `"skew_comparator"`, `"drift_comparator"` or
            `"num_examples_version_comparator"`.
    """
    datasets = list(statistics.proto().datasets)
    schema.CopyFrom(flattened(schema))
    every = [anomaly for dataset in datasets for anomaly in _violations(dataset, schema, environment)]
    compared = list(_differences(datasets, schema, controls or {}))
    every += [anomaly for anomaly, _ in compared]
    names = {name for anomaly in every for name in (anomaly.feature, anomaly.kind)}
    check_known("update_schema: accept", "no anomaly of", accept, names)
    accepted: list[Anomaly] = []
    for dataset in datasets:
        # To accept an anomaly, such as another type, may reveal another one.
        while chosen := [one for one in _violations(dataset, schema, environment) if _is_chosen(one, accept)]:
            for anomaly in chosen:
                if anomaly in accepted or anomaly.kind not in _CHANGES:
                    raise _unacceptable(anomaly)
                _CHANGES[anomaly.kind](schema, dataset, anomaly.feature, environment)
            accepted += chosen
    for anomaly, change in compared:
        if _is_chosen(anomaly, accept):
            if change is None:
                raise _unacceptable(anomaly)
            change()
            accepted.append(anomaly)
    return accepted


def _violations(dataset: Any, schema: Any, environment: str) -> Iterator[Anomaly]:
    yield from find_anomalies(dataset, schema, environment)
    yield from composite_anomalies(dataset, schema, environment)


def _is_chosen(anomaly: Anomaly, accept: Collection[str]) -> bool:
    return not accept or anomaly.feature in accept or anomaly.kind in accept


def _unacceptable(anomaly: Anomaly) -> DataError:
    return DataError(f"{anomaly.kind} cannot be accepted into a schema: {anomaly}")


def _differences(
    datasets: Iterable[Any], schema: Any, controls: Mapping[str, Statistics]
) -> Iterator[tuple[Anomaly, Callable[[], None] | None]]:
    """Yield the anomalies between the data and others, each with the change that accepts it, if there is one."""
    for comparator, other in controls.items():
        for dataset in datasets:
            for control in controls_of(dataset, comparator, other.proto().datasets) if dataset.num_examples else ():
                for found in compare(dataset, control, schema, comparator, CONTROL_NAMES[comparator]):
                    if isinstance(found, Distance):
                        if found.is_high:
                            bounds = getattr(_expected(schema, found.feature), comparator)
                            yield found.anomaly(), functools.partial(_raise_threshold, bounds, found)
                    elif found.feature == "*":
                        bounds = getattr(schema.dataset_constraints, ROW_COUNT_COMPARATORS[comparator])
                        yield found, functools.partial(_widen_ratio, bounds, row_ratio(dataset, control))
                    else:
                        yield found, None


def _raise_threshold(bounds: Any, distance: Distance) -> None:
    bound = getattr(bounds, THRESHOLDS[distance.measure])
    bound.threshold = max(bound.threshold, math.ceil(distance.value * 1e4) / 1e4)


def _widen_ratio(bounds: Any, ratio: float) -> None:
    bounds.min_fraction_threshold = min(bounds.min_fraction_threshold, _rounded_down(ratio))
    if bounds.HasField("max_fraction_threshold"):
        bounds.max_fraction_threshold = max(bounds.max_fraction_threshold, math.ceil(ratio * 1e4) / 1e4)


def _rounded_down(value: float) -> float:
    return math.floor(value * 1e4) / 1e4


def _expected(schema: Any, name: str) -> Any:
    return next(feature for feature in schema.feature if feature.name == name)


def _inferred(dataset: Any, name: str) -> Any:
    return _expected(infer(dataset), name)


def _new_column(schema: Any, dataset: Any, name: str, environment: str) -> None:
    """Add a feature, or add the environment to a feature of others."""
    if name not in {feature.name for feature in schema.feature}:
        schema.feature.append(_inferred(dataset, name))
        return
    feature = _expected(schema, name)
    if environment in feature.not_in_environment:
        feature.not_in_environment.remove(environment)
    else:
        feature.in_environment.append(environment)


def _missing_column(schema: Any, dataset: Any, name: str, environment: str) -> None:
    _expected(schema, name).lifecycle_stage = schema_pb2.DEPRECATED


def _composite(schema: Any, dataset: Any, name: str, environment: str) -> None:
    """Deprecate a sparse or weighted feature."""
    composites = (*schema.sparse_feature, *schema.weighted_feature)
    next(one for one in composites if one.name == name).lifecycle_stage = schema_pb2.DEPRECATED


def _type(schema: Any, dataset: Any, name: str, environment: str) -> None:
    """Replace type and domain by inferred ones."""
    expected, inferred = _expected(schema, name), _inferred(dataset, name)
    expected.type = inferred.type
    _remove_domain(schema, dataset, name, environment)
    if domain := inferred.WhichOneof("domain_info"):
        getattr(expected, domain).CopyFrom(getattr(inferred, domain))


def _remove_domain(schema: Any, dataset: Any, name: str, environment: str) -> None:
    expected = _expected(schema, name)
    if domain := expected.WhichOneof("domain_info"):
        expected.ClearField(domain)


def _dataset_bounds(schema: Any, dataset: Any, name: str, environment: str) -> None:
    bounds = schema.dataset_constraints
    bounds.min_examples_count = min(bounds.min_examples_count, dataset.num_examples)
    if bounds.HasField("max_examples_count"):
        bounds.max_examples_count = max(bounds.max_examples_count, dataset.num_examples)


_Change = Callable[[Any, Any, str, str], None]


def _of_feature(change: Callable[[Any, Feature], None]) -> _Change:
    """Return a change of a feature, which receives it in the schema, and as a whole with its statistics."""

    def changed(schema: Any, dataset: Any, name: str, environment: str) -> None:
        expected = _expected(schema, name)
        observed = next(feature for feature in dataset.features if feature.path.step[0] == name)
        change(expected, Feature(expected, observed, dataset.num_examples))

    return changed


def _presence(expected: Any, feature: Feature) -> None:
    present = feature.common.num_non_missing
    expected.presence.min_count = min(expected.presence.min_count, present)
    expected.presence.min_fraction = min(expected.presence.min_fraction, present / feature.rows)


def _value_count(expected: Any, feature: Feature) -> None:
    """Widen the bounds of the number of values. A shape becomes bounds."""
    common, bounds = feature.common, expected.value_count
    has_max = bounds.HasField("max") or expected.HasField("shape")
    low, high = (bounds.min, bounds.max) if expected.HasField("value_count") else (common.min_num_values, 0)
    expected.value_count.min = min(low, common.min_num_values)
    if has_max:
        expected.value_count.max = max(high, common.max_num_values)


def _lengths(expected: Any, feature: Feature) -> None:
    """Widen the bounds that a feature has: of its values in a row, of nested lists, or of tokens."""
    if expected.HasField("value_counts"):
        for level, counts in zip(nested_levels(feature), expected.value_counts.value_count):
            counts.min = min(counts.min, level.min_num_values)
            if counts.HasField("max"):
                counts.max = max(counts.max, level.max_num_values)
    elif expected.HasField("value_count") or expected.HasField("shape"):
        _value_count(expected, feature)
    if expected.HasField("natural_language_domain"):
        tokens, common = expected.natural_language_domain.sequence_length_constraints, feature.common
        if tokens.HasField("min_sequence_length"):
            tokens.min_sequence_length = min(tokens.min_sequence_length, common.min_num_values)
        if tokens.HasField("max_sequence_length"):
            tokens.max_sequence_length = max(tokens.max_sequence_length, common.max_num_values)


def _remove_nesting(expected: Any, feature: Feature) -> None:
    expected.ClearField("value_counts")


def _unique(expected: Any, feature: Feature) -> None:
    bounds = expected.unique_constraints
    bounds.min = min(bounds.min, feature.unique)
    if bounds.HasField("max"):
        bounds.max = max(bounds.max, feature.unique)


def _numbers(expected: Any, feature: Feature) -> None:
    """Widen the bounds of numbers. Bounds of the numbers in texts, and domains of times, are removed."""
    if expected_integers(expected):
        expected.ClearField(expected.WhichOneof("domain_info"))
        return
    domain = getattr(expected, expected.WhichOneof("domain_info"))
    whole = expected.HasField("int_domain")
    if feature.kind == "STRING":
        domain.Clear()
        return
    if domain.HasField("min"):
        low = math.floor(feature.stats.min) if whole else feature.stats.min
        domain.min = min(domain.min, low)
    if domain.HasField("max"):
        high = math.ceil(feature.stats.max) if whole else feature.stats.max
        domain.max = max(domain.max, high)


def _allow_nan(expected: Any, feature: Feature) -> None:
    expected.float_domain.disallow_nan = False


def _allow_infinity(expected: Any, feature: Feature) -> None:
    expected.float_domain.disallow_inf = False


def _coverage(schema: Any, dataset: Any, name: str, environment: str) -> None:
    """Lower the bounds of the share and the length of known tokens."""
    domain = _expected(schema, name).natural_language_domain
    vocabulary = next((set(one.value) for one in schema.string_domain if one.name == domain.vocabulary), None)

    def lower(expected: Any, feature: Feature) -> None:
        share, length = map(_rounded_down, coverage(feature.ranked, domain, vocabulary))
        bounds = domain.coverage
        bounds.min_coverage = min(bounds.min_coverage, share)
        bounds.min_avg_token_length = min(bounds.min_avg_token_length, length)

    _of_feature(lower)(schema, dataset, name, environment)


def _values(schema: Any, dataset: Any, name: str, environment: str) -> None:
    expected = _expected(schema, name)
    if expected_texts(expected):
        _remove_domain(schema, dataset, name, environment)
        return
    shared = {domain.name: domain for domain in schema.string_domain}
    domain = expected.string_domain if expected.HasField("string_domain") else shared[expected.domain]
    observed = next(feature for feature in dataset.features if feature.path.step[0] == name)
    values = unexpected_values(Feature(expected, observed, dataset.num_examples), domain)
    domain.value.extend(sorted(value for value, _ in values))


def _images(expected: Any, feature: Feature) -> None:
    domain, largest = expected.image_domain, feature.custom("max_length")
    share = image_count(feature.observed) / feature.common.tot_num_values
    domain.minimum_supported_image_fraction = min(domain.minimum_supported_image_fraction, share)
    if domain.max_image_byte_size and largest is not None:
        domain.max_image_byte_size = max(domain.max_image_byte_size, int(largest.num))


_CHANGES: dict[str, _Change] = {
    "SCHEMA_NEW_COLUMN": _new_column,
    "SCHEMA_MISSING_COLUMN": _missing_column,
    "DATASET_LOW_NUM_EXAMPLES": _dataset_bounds,
    "DATASET_HIGH_NUM_EXAMPLES": _dataset_bounds,
    "ENUM_TYPE_UNEXPECTED_STRING_VALUES": _values,
    "FLOAT_TYPE_HAS_NAN": _of_feature(_allow_nan),
    "FLOAT_TYPE_HAS_INF": _of_feature(_allow_infinity),
    **dict.fromkeys(("FEATURE_COVERAGE_TOO_LOW", "FEATURE_COVERAGE_TOO_SHORT_AVG_TOKEN_LENGTH"), _coverage),
    **dict.fromkeys(
        (
            "SPARSE_FEATURE_MISSING_VALUE",
            "SPARSE_FEATURE_MISSING_INDEX",
            "SPARSE_FEATURE_LENGTH_MISMATCH",
            "WEIGHTED_FEATURE_MISSING_VALUE",
            "WEIGHTED_FEATURE_MISSING_WEIGHT",
            "WEIGHTED_FEATURE_LENGTH_MISMATCH",
        ),
        _composite,
    ),
    **dict.fromkeys(
        ("FEATURE_TYPE_NOT_PRESENT", "FEATURE_TYPE_LOW_FRACTION_PRESENT", "FEATURE_TYPE_LOW_NUMBER_PRESENT"),
        _of_feature(_presence),
    ),
    **dict.fromkeys(
        ("FEATURE_TYPE_LOW_NUMBER_VALUES", "FEATURE_TYPE_HIGH_NUMBER_VALUES", "INVALID_FEATURE_SHAPE"),
        _of_feature(_lengths),
    ),
    "VALUE_NESTEDNESS_MISMATCH": _of_feature(_remove_nesting),
    **dict.fromkeys(("FEATURE_TYPE_LOW_UNIQUE", "FEATURE_TYPE_HIGH_UNIQUE"), _of_feature(_unique)),
    **dict.fromkeys(
        ("INT_TYPE_SMALL_INT", "INT_TYPE_BIG_INT", "FLOAT_TYPE_SMALL_FLOAT", "FLOAT_TYPE_BIG_FLOAT"),
        _of_feature(_numbers),
    ),
    **dict.fromkeys(("LOW_SUPPORTED_IMAGE_FRACTION", "MAX_IMAGE_BYTE_SIZE_EXCEEDED"), _of_feature(_images)),
    "UNEXPECTED_DATA_TYPE": _type,
    "FEATURE_MISSING_TYPE": _type,
    **dict.fromkeys(
        (
            "INT_TYPE_NOT_INT_STRING",
            "FLOAT_TYPE_STRING_NOT_FLOAT",
            "DOMAIN_INVALID_FOR_TYPE",
            "ENUM_TYPE_INVALID_UTF8",
            "BOOL_TYPE_INVALID_CONFIG",
            "BOOL_TYPE_UNEXPECTED_STRING",
            "BOOL_TYPE_SMALL_INT",
            "BOOL_TYPE_BIG_INT",
            "BOOL_TYPE_UNEXPECTED_FLOAT",
            "INVALID_SCHEMA_SPECIFICATION",
        ),
        _remove_domain,
    ),
}
