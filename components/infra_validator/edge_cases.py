"""Edge cases: real rows in which a feature is missing, unknown or extreme, according to the schema and the dtypes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kerasline.components.data.missing import has_missing_value, missing_value
from kerasline.components.infra_validator.cases import Rows
from kerasline.components.models.signatures import TensorSpec

LONG_TEXT_LENGTH, LONG_LIST_LENGTH = 10_000, 1_000
UNKNOWN_TEXT = "a value that was never seen"
TEXTS = {
    "an unknown value": UNKNOWN_TEXT.encode(),
    "a very long text": b"long " * (LONG_TEXT_LENGTH // 5),
    "a text of many scripts": "Žluťoučký \u0644\u0648\u0646 \u989c\u8272 \U0001f427 e\u0301\u202e".encode(),
    "a text with NUL and line breaks": b"a\x00b\r\nc",
    "bytes that are not UTF-8": b"\xff\xfe\x00\xd8",
}


def edge_cases(inputs: Mapping[str, TensorSpec], real: Rows, schema: Any | None) -> dict[str, dict[str, np.ndarray]]:
    """Make edge cases from a real row.

    Args:
        inputs: the inputs of the model by name.
        real: one real row.
        schema: a `Schema` proto, or None.

    Returns:
        Rows by a description of the edge case, arrays (1, ...).
    """
    features = {feature.name: feature for feature in schema.feature} if schema is not None else {}
    cases = {}
    for name, spec in inputs.items():
        for description, value in _edge_values(spec, real[name], features.get(name)):
            cases[f"{name}: {description}"] = {**real, name: value}
    optional = [name for name in inputs if name not in features or features[name].presence.min_fraction < 1]
    for description, names in (("every optional feature", optional), ("every feature", list(inputs))):
        missing = {name: _missing(inputs[name], real[name]) for name in names}
        cases[f"{description} missing"] = {
            **real,
            **{name: value for name, value in missing.items() if value is not None},
        }
    return cases


def _edge_values(spec: TensorSpec, real: np.ndarray, feature: Any | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield distinct values of an input with their descriptions, arrays (1, ...)."""
    missing = _missing(spec, real)
    if missing is not None:
        yield "missing", missing
    seen = {missing.tobytes()} if missing is not None and missing.dtype != object else set()
    for description, value in _scalars(spec, feature):
        filled = np.full_like(real, value)
        if filled.dtype == object or filled.tobytes() not in seen:
            seen |= {filled.tobytes()} if filled.dtype != object else set()
            yield description, filled
    if spec.shape is not None and spec.shape[1:] == (None,):
        yield "an empty list", real[:, :0]
        length = max(int(feature.value_count.max) if feature is not None else 0, LONG_LIST_LENGTH)
        default = UNKNOWN_TEXT.encode() if spec.is_string else 0
        yield "a long list", np.resize(real if real.size else np.full((1, 1), default, real.dtype), (1, length))


def _missing(spec: TensorSpec, real: np.ndarray) -> np.ndarray | None:
    return np.full_like(real, missing_value(spec.dtype_name)) if has_missing_value(spec.dtype_name) else None


def _scalars(spec: TensorSpec, feature: Any | None) -> Iterator[tuple[str, Any]]:
    if spec.is_string:
        domain = list(feature.string_domain.value) if feature is not None else []
        yield from ((f"the schema's {value!r}", value.encode()) for value in domain[:1] + domain[1:][-1:])
        yield from TEXTS.items()
    elif spec.dtype_name == "bool":
        yield from (("true", True), ("false", False))
    else:
        yield "zero", 0
        yield from _bounds(spec, feature)
        yield from _extremes(spec)


def _bounds(spec: TensorSpec, feature: Any | None) -> Iterator[tuple[str, Any]]:
    """Yield the schema's minimum and maximum and values beyond them, as far as the dtype can represent them."""
    domain = None
    if feature is not None and feature.WhichOneof("domain_info") in ("int_domain", "float_domain"):
        domain = getattr(feature, feature.WhichOneof("domain_info"))
    if domain is None:
        return
    minimum, maximum = (getattr(domain, end) if domain.HasField(end) else None for end in ("min", "max"))
    if minimum is None or maximum is None:
        distance = max(1, abs(minimum or maximum or 0))
    else:
        distance = max(1, maximum - minimum)
    values = (
        ("the schema's minimum", minimum),
        ("the schema's maximum", maximum),
        ("below the schema's minimum", None if minimum is None else minimum - distance),
        ("above the schema's maximum", None if maximum is None else maximum + distance),
    )
    lowest, highest = _limits(spec)
    for description, value in values:
        if value is not None and np.isfinite(value) and lowest <= value <= highest:
            yield description, value


def _extremes(spec: TensorSpec) -> Iterator[tuple[str, Any]]:
    lowest, highest = _limits(spec)
    yield "the highest number", highest
    yield "the lowest number", lowest
    if not _is_integer(spec):
        import ml_dtypes

        yield "the smallest number above zero", ml_dtypes.finfo(spec.dtype).smallest_subnormal
        yield "minus zero", -0.0
        yield "infinity", np.inf
        yield "minus infinity", -np.inf


def _limits(spec: TensorSpec) -> tuple[Any, Any]:
    import ml_dtypes

    limits = np.iinfo(spec.dtype) if _is_integer(spec) else ml_dtypes.finfo(spec.dtype)
    return limits.min, limits.max


def _is_integer(spec: TensorSpec) -> bool:
    return spec.dtype_name.startswith(("int", "uint"))
