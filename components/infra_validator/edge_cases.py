"""Rows at the edge: a real row in which a feature is missing, was never seen, or is extreme.

What is an edge comes from the schema, where there is one, and from the dtype. What the right answer is, the model
in process says: that it refuses a row is an answer too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kerasline.components.data.missing import missing_value
from kerasline.components.infra_validator.answer import Rows
from kerasline.components.infra_validator.signature import Spec

LONG_TEXT, LONG_LIST = 10_000, 1_000
NEVER_SEEN = "a value that was never seen"
TEXTS = {
    "a value never seen": NEVER_SEEN.encode(),
    "a very long text": b"long " * (LONG_TEXT // 5),
    "a text of many scripts": "Žluťoučký \u0644\u0648\u0646 \u989c\u8272 \U0001f427 e\u0301\u202e".encode(),
    "a text with NUL and line ends": b"a\x00b\r\nc",
    "bytes that are no text": b"\xff\xfe\x00\xd8",
}


def edge_cases(inputs: Mapping[str, Spec], real: Rows, schema: Any | None) -> dict[str, dict[str, np.ndarray]]:
    """Rows by what is odd about them, arrays (1, ...).

    Args:
        real: one real row.
        schema: a `Schema` proto, or None.
    """
    wanted = {feature.name: feature for feature in schema.feature} if schema is not None else {}
    found = {}
    for name, spec in inputs.items():
        for what, value in _odd(spec, real[name], wanted.get(name)):
            found[f"{name}: {what}"] = {**real, name: value}
    optional = [name for name in inputs if name not in wanted or wanted[name].presence.min_fraction < 1]
    for what, names in (("every optional feature", optional), ("every feature", list(inputs))):
        gone = {name: value for name in names if (value := _missing(inputs[name], real[name])) is not None}
        found[f"{what} missing"] = {**real, **gone}
    return found


def _odd(spec: Spec, real: np.ndarray, wanted: Any | None) -> Iterator[tuple[str, np.ndarray]]:
    """Odd values of a feature, arrays (1, ...), each once."""
    missing = _missing(spec, real)
    if missing is not None:
        yield "missing", missing
    told = {missing.tobytes()} if missing is not None and missing.dtype != object else set()
    for what, value in _values(spec, wanted):
        filled = np.full_like(real, value)
        if filled.dtype == object or filled.tobytes() not in told:
            told |= {filled.tobytes()} if filled.dtype != object else set()
            yield what, filled
    if spec.shape[1:] == (None,):
        yield "an empty list", real[:, :0]
        longest = int(wanted.value_count.max) if wanted is not None else 0
        yield (
            "a long list",
            np.resize(real if real.size else np.full((1, 1), _plain(spec), real.dtype), (1, max(longest, LONG_LIST))),
        )


def _missing(spec: Spec, real: np.ndarray) -> np.ndarray | None:
    try:
        return np.full_like(real, missing_value(spec.dtype))
    except ValueError:  # no value of this dtype says so
        return None


def _values(spec: Spec, wanted: Any | None) -> Iterator[tuple[str, Any]]:
    if spec.dtype == "string":
        domain = list(wanted.string_domain.value) if wanted is not None else []
        yield from ((f"the schema's {value!r}", value.encode()) for value in domain[:1] + domain[1:][-1:])
        yield from TEXTS.items()
    elif spec.dtype == "bool":
        yield from (("true", True), ("false", False))
    else:
        yield "zero", 0
        yield from _bounds(spec, wanted)
        yield from _extremes(spec)


def _bounds(spec: Spec, wanted: Any | None) -> Iterator[tuple[str, Any]]:
    """The schema's least and most, and what lies beyond, where the dtype holds them."""
    domain = None
    if wanted is not None and wanted.WhichOneof("domain_info") in ("int_domain", "float_domain"):
        domain = getattr(wanted, wanted.WhichOneof("domain_info"))
    if domain is None:
        return
    least, most = (getattr(domain, end) if domain.HasField(end) else None for end in ("min", "max"))
    beyond = max(1, (most - least) if None not in (least, most) else abs(least or most or 0))
    ends = (
        ("the schema's least", least),
        ("the schema's most", most),
        ("less than the schema's least", None if least is None else least - beyond),
        ("more than the schema's most", None if most is None else most + beyond),
    )
    lowest, highest = _limits(spec)
    for what, value in ends:
        if value is not None and np.isfinite(value) and lowest <= value <= highest:
            yield what, value


def _extremes(spec: Spec) -> Iterator[tuple[str, Any]]:
    lowest, highest = _limits(spec)
    yield "the highest number", highest
    yield "the lowest number", lowest
    if not _is_whole(spec):
        import ml_dtypes

        yield "the smallest number above zero", ml_dtypes.finfo(spec.dtype).smallest_subnormal
        yield "minus zero", -0.0
        yield "infinity", np.inf
        yield "minus infinity", -np.inf


def _limits(spec: Spec) -> tuple[Any, Any]:
    if _is_whole(spec):
        return np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max
    import ml_dtypes

    return ml_dtypes.finfo(spec.dtype).min, ml_dtypes.finfo(spec.dtype).max


def _is_whole(spec: Spec) -> bool:
    return spec.dtype.startswith(("int", "uint"))


def _plain(spec: Spec) -> Any:
    return NEVER_SEEN.encode() if spec.dtype == "string" else 0
