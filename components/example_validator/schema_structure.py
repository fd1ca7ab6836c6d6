"""A schema by itself: features inside structs, contradictions, and parts that nothing checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2

from kerasline.components.example_validator.schema_anomalies import Anomaly
from kerasline.components.example_validator.semantic_domains import time_format_error

# Parts of a feature that are not checked.
UNCHECKED_PARTS = (
    "video_domain",
    "content_chunk_domain",
    "group_presence",
    "sequence_metadata",
    "validation_derived_source",
)
# Domains that need texts (BYTES), or texts or integers.
_OF_TEXTS = ("string_domain", "url_domain", "mid_domain", "image_domain", "audio_domain")
_OF_TEXTS_OR_INTEGERS = ("int_domain", "bool_domain", "natural_language_domain", "time_domain", "time_of_day_domain")


def flattened(schema: Any) -> Any:
    """Return a copy of a schema in which the features of structs are features named `struct.feature`.

    ExampleGen writes a struct as such columns. Features inside inherit the environments and the lifecycle.
    """
    flat = schema_pb2.Schema()
    flat.CopyFrom(schema)
    del flat.feature[:]
    for feature in schema.feature:
        _flatten(feature, "", flat)
    return flat


def _flatten(feature: Any, prefix: str, flat: Any) -> None:
    name = f"{prefix}{feature.name}"
    if not feature.HasField("struct_domain"):
        if schema_pb2.FeatureType.Name(feature.type) != "STRUCT":
            copy = flat.feature.add()
            copy.CopyFrom(feature)
            copy.name = name if feature.name else ""
        return
    for inner in feature.struct_domain.feature:
        copy = schema_pb2.Feature()
        copy.CopyFrom(inner)
        if not (inner.in_environment or inner.not_in_environment):
            copy.in_environment.extend(feature.in_environment)
            copy.not_in_environment.extend(feature.not_in_environment)
        for part in ("deprecated", "lifecycle_stage"):
            if feature.HasField(part) and not getattr(inner, part):
                setattr(copy, part, getattr(feature, part))
        _flatten(copy, f"{name}.", flat)
    for sparse in feature.struct_domain.sparse_feature:
        moved = flat.sparse_feature.add()
        moved.CopyFrom(sparse)
        for part in (moved, moved.value_feature, *moved.index_feature):
            part.name = f"{name}.{part.name}"


def unchecked_parts(schema: Any, *, compares_versions: bool = False) -> Iterator[Anomaly]:
    """Yield a warning for each part of a schema that nothing checks.

    Args:
        schema: a schema, also with structs.
        compares_versions: whether the statistics of a previous version are given.
    """
    for struct in schema.feature:
        yield from _unchecked_struct_parts(struct, struct.name)
    schema = flattened(schema)
    domains = {domain.name for domain in schema.string_domain}
    for feature in schema.feature:
        for part in UNCHECKED_PARTS:
            if part in {field.name for field, _ in feature.ListFields()}:
                yield _unchecked(part, feature.name)
        language = feature.natural_language_domain
        parts = {
            "vocabulary": language.vocabulary and language.vocabulary not in domains,
            "token_constraints": language.token_constraints,
            "sequence_length_constraints.excluded_int_value": language.sequence_length_constraints.excluded_int_value,
            "sequence_length_constraints.excluded_string_value": (
                language.sequence_length_constraints.excluded_string_value
            ),
        }
        for part, value in parts.items():
            if value:
                yield _unchecked(f"natural_language_domain.{part}", feature.name)
    for sparse in schema.sparse_feature:
        for part in ("dense_shape", "is_sorted"):
            if sparse.HasField(part):
                yield _unchecked(f"sparse_feature.{part}", sparse.name)
    if schema.dataset_constraints.HasField("num_examples_version_comparator") and not compares_versions:
        yield _unchecked(
            "dataset_constraints.num_examples_version_comparator",
            "*",
            "connect ExampleValidator.previous_version_statistics, or remove it from the schema",
        )


def _unchecked_struct_parts(feature: Any, name: str) -> Iterator[Anomaly]:
    """Yield a warning for each constraint of a struct itself: only the columns inside have statistics."""
    if not feature.HasField("struct_domain"):
        return
    for part in ("presence", "value_count", "value_counts", "shape"):
        if feature.HasField(part):
            yield _unchecked(f"{part} of a struct", name)
    for inner in feature.struct_domain.feature:
        yield from _unchecked_struct_parts(inner, f"{name}.{inner.name}")


def _unchecked(
    part: str, feature: str, fix: str = "express it by a part that docs/DATA.md lists, or remove it from the schema"
) -> Anomaly:
    return Anomaly("UNKNOWN_TYPE", f"the schema's {part} is not checked", fix, "warning", "schema", feature)


def contradictions(schema: Any) -> Iterator[Anomaly]:
    """Yield an anomaly for each part of a schema that no data can satisfy, or that refers to nothing.

    Args:
        schema: a schema without structs, see `flattened`.
    """
    for feature in schema.feature:
        for kind, seen in (*_ranges(feature), *_domains(feature), *_comparators(feature)):
            yield _contradiction(kind, seen, feature.name)
        both = sorted(set(feature.in_environment) & set(feature.not_in_environment))
        if both:
            seen = f"it is both in and not in the environment {both[0]!r}"
            yield _contradiction("INVALID_SCHEMA_SPECIFICATION", seen, feature.name)
    names = Counter(feature.name for feature in schema.feature if feature.name)
    for name in sorted(name for name, count in names.items() if count > 1):
        yield _contradiction("INVALID_SCHEMA_SPECIFICATION", "the schema has two features of this name", name)
    domains = Counter(domain.name for domain in schema.string_domain)
    for name in sorted(name for name, count in domains.items() if count > 1):
        yield _contradiction("INVALID_SCHEMA_SPECIFICATION", f"two string_domains are named {name!r}", "*")
    yield from _dataset(schema.dataset_constraints)
    for sparse in schema.sparse_feature:
        parts = [("value_feature", sparse.value_feature.name)]
        parts += [("index_feature", index.name) for index in sparse.index_feature] or [("index_feature", "")]
        yield from _references(sparse.name, parts, names, "SPARSE_FEATURE_NAME_COLLISION")
    for weighted in schema.weighted_feature:
        parts = [(part, ".".join(getattr(weighted, part).step)) for part in ("feature", "weight_feature")]
        yield from _references(weighted.name, parts, names, "WEIGHTED_FEATURE_NAME_COLLISION")


def _contradiction(kind: str, seen: str, feature: str) -> Anomaly:
    return Anomaly(kind, seen, "fix the schema", "error", "schema", feature)


def _ranges(feature: Any) -> Iterator[tuple[str, str]]:
    """Yield the bounds of which the lower is above the upper, and shares that are none."""
    bounded = [("value_count", feature.value_count), ("unique_constraints", feature.unique_constraints)]
    bounded += [("value_counts", one) for one in feature.value_counts.value_count]
    bounded += [(name, getattr(feature, name)) for name in ("int_domain", "float_domain")]
    lengths = feature.natural_language_domain.sequence_length_constraints
    for name, bounds in bounded:
        yield from _range(name, bounds, "min", "max")
    yield from _range("sequence_length_constraints", lengths, "min_sequence_length", "max_sequence_length")
    shares = [
        ("presence.min_fraction", feature.presence.min_fraction),
        ("distribution_constraints.min_domain_mass", feature.distribution_constraints.min_domain_mass),
        ("natural_language_domain.coverage.min_coverage", feature.natural_language_domain.coverage.min_coverage),
    ]
    for name, share in shares:
        if not 0 <= share <= 1:
            yield "INVALID_SCHEMA_SPECIFICATION", f"{name} is {share:g}, expected a share from 0 to 1"


def _range(name: str, bounds: Any, low: str, high: str) -> Iterator[tuple[str, str]]:
    if bounds.HasField(low) and bounds.HasField(high) and getattr(bounds, low) > getattr(bounds, high):
        values = f"{low} {getattr(bounds, low):g} and {high} {getattr(bounds, high):g}"
        yield "INVALID_SCHEMA_SPECIFICATION", f"{name} has {values}, which no value satisfies"


def _domains(feature: Any) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the domain of a feature."""
    kind, domain = schema_pb2.FeatureType.Name(feature.type), feature.WhichOneof("domain_info")
    of_texts = domain in _OF_TEXTS and kind in ("INT", "FLOAT") and not (domain == "string_domain" and kind == "INT")
    if of_texts or (domain in _OF_TEXTS_OR_INTEGERS and kind == "FLOAT" and domain != "bool_domain"):
        yield "DOMAIN_INVALID_FOR_TYPE", f"a feature of type {kind} cannot have the domain {domain}"
    repeated = [value for value, count in Counter(feature.string_domain.value).items() if count > 1]
    if repeated:
        yield "INVALID_DOMAIN_SPECIFICATION", f"its string_domain lists {repeated[0]!r} twice"
    both = {feature.bool_domain.true_value, feature.bool_domain.false_value}
    if len(both) == 1 and both != {""}:
        yield "BOOL_TYPE_INVALID_CONFIG", f"true_value and false_value are both {both.pop()!r}"
    for name in ("time_domain", "time_of_day_domain"):
        time = getattr(feature, name)
        if feature.HasField(name) and (error := time_format_error(time)):
            yield "INVALID_DOMAIN_SPECIFICATION", f"its {name} has {error}"


def _comparators(feature: Any) -> Iterator[tuple[str, str]]:
    for comparator in ("skew_comparator", "drift_comparator"):
        for measure, bound in getattr(feature, comparator).ListFields():
            if not 0 <= bound.threshold <= 1:
                seen = f"{comparator}.{measure.name} has the threshold {bound.threshold:g}, expected 0 to 1"
                yield "INVALID_SCHEMA_SPECIFICATION", seen


def _dataset(constraints: Any) -> Iterator[Anomaly]:
    found = [*_range("dataset_constraints", constraints, "min_examples_count", "max_examples_count")]
    for name in ("num_examples_drift_comparator", "num_examples_version_comparator"):
        found += _range(name, getattr(constraints, name), "min_fraction_threshold", "max_fraction_threshold")
    for kind, seen in found:
        yield _contradiction(kind, seen, "*")


def _references(name: str, parts: list[tuple[str, str]], names: Counter[str], collision: str) -> Iterator[Anomaly]:
    """Yield what is wrong with the features that a sparse or a weighted feature consists of."""
    if name in names:
        yield _contradiction(collision, "a feature of the schema has the same name", name)
    for part, referred in parts:
        if referred not in names:
            seen = f"its {part} {referred!r} is no feature of the schema" if referred else f"it has no {part}"
            yield _contradiction("INVALID_SCHEMA_SPECIFICATION", seen, name)
