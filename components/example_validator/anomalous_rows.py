"""Rows that cause anomalies, with their place, and rows that do not fulfil the user's conditions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.component import Context
from kerasline.components.data.arrow_types import is_list
from kerasline.components.data.fold import fold
from kerasline.components.data.media import sniff
from kerasline.components.data.row_expressions import RowExpression
from kerasline.components.data.row_groups import row_groups
from kerasline.components.data.shards import rows_per_batch
from kerasline.components.example_validator.schema_anomalies import Anomaly, number_of
from kerasline.components.example_validator.semantic_domains import expected_integers, expected_texts
from kerasline.components.statistics_gen.feature_statistics import is_utf8, values_per_row

# Number of rows listed for each anomaly: the first ones.
MOST_ROWS = 5
MOST_CHARACTERS = 80  # of a listed value
_ROW = "\0row"  # name of a column beside the data's own


@dataclass
class RowSample:
    """The number of rows and the first of them: `file`, `row` (its number in the file, from 0) and `value`."""

    count: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def merge(self, other: RowSample) -> RowSample:
        return RowSample(self.count + other.count, [*self.rows, *other.rows][:MOST_ROWS])


@dataclass(frozen=True)
class _Piece:
    """A row group: its split, its file as in messages, its path, its number and its first row in the file."""

    split: str
    name: str
    path: str
    group: int
    first: int


def with_rows(
    anomalies: Sequence[Anomaly], conditions: Mapping[str, str], examples: Examples, schema: Any, context: Context
) -> list[Anomaly]:
    """Return the anomalies with the first rows that cause each, and an anomaly for each condition that rows violate.

    Args:
        conditions: conditions on rows by name, see `RowExpression`. A row violates one that is false, not one that is
            unknown because a value is missing, as SQL's CHECK.

    Raises:
        ParameterError, DataError: a condition cannot be read, or does not fit the data.
    """
    features = {feature.name: _resolved(feature, schema) for feature in schema.feature}
    located = [one for one in anomalies if one.kind in _FINDERS and one.feature in features]
    expressions = {
        name: RowExpression(f"NOT ({text})", f"ExampleValidator.custom_validation.{name}")
        for name, text in conditions.items()
    }
    splits = [split for split in examples.splits if expressions or any(one.split == split for one in located)]
    pieces = [piece for split in splits for piece in _pieces(examples, split)]
    work = functools.partial(_sample, anomalies=located, expressions=expressions, features=features)
    samples = fold(pieces, work, _merged, context) or {}
    found = [replace(one, rows=tuple(samples[one].rows)) if one in samples else one for one in anomalies]
    for split in splits:
        for name, expression in expressions.items():
            sample = samples.get((split, name), RowSample())
            if sample.count:
                columns = expression.columns
                seen = f"{sample.count} of {examples.rows(split)} rows do not fulfil {name!r}: {conditions[name]}"
                fix = "fix the data, or the condition in ExampleValidator.custom_validation"
                feature = columns[0] if len(columns) == 1 else "*"
                found.append(Anomaly("CUSTOM_VALIDATION", seen, fix, "error", split, feature, tuple(sample.rows)))
    return found


def _resolved(feature: Any, schema: Any) -> Any:
    """Return a feature of the schema with its domain instead of the name of a shared one."""
    shared = [domain for domain in schema.string_domain if domain.name == feature.domain]
    if shared:
        feature = type(feature).FromString(feature.SerializeToString())
        feature.string_domain.CopyFrom(shared[0])
    return feature


def _pieces(examples: Examples, split: str) -> Iterator[_Piece]:
    starts: dict[str, int] = {}
    for shard, group, first, _ in row_groups(examples, split):
        name = Path(shard).relative_to(examples.path).as_posix()
        yield _Piece(split, name, shard, group, first - starts.setdefault(shard, first))


def _merged(ours: dict[Any, RowSample], theirs: dict[Any, RowSample]) -> dict[Any, RowSample]:
    return {key: ours.get(key, RowSample()).merge(theirs.get(key, RowSample())) for key in {**ours, **theirs}}


def _sample(
    piece: _Piece,
    anomalies: Sequence[Anomaly],
    expressions: Mapping[str, RowExpression],
    features: Mapping[str, Any],
) -> dict[Any, RowSample]:
    here = [one for one in anomalies if one.split == piece.split]
    columns = dict.fromkeys([one.feature for one in here] + [c for e in expressions.values() for c in e.columns])
    found: dict[Any, RowSample] = {}
    first = piece.first
    with pq.ParquetFile(piece.path) as file:
        known = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(rows_per_batch(file.metadata), row_groups=[piece.group], columns=known):
            batch = batch.append_column(_ROW, pa.array(np.arange(first, first + batch.num_rows)))
            for one in here:
                bad = _FINDERS[one.kind](batch.column(one.feature), features[one.feature])
                rows = batch.select([_ROW, one.feature]).filter(pa.array(bad))
                found[one] = found.get(one, RowSample()).merge(_described(piece, rows))
            for name, expression in expressions.items():
                rows = expression.filter(batch).select([_ROW, *expression.columns])
                key = piece.split, name
                found[key] = found.get(key, RowSample()).merge(_described(piece, rows))
            first += batch.num_rows
    return found


def _described(piece: _Piece, rows: pa.RecordBatch) -> RowSample:
    sample = []
    for row in rows.slice(0, MOST_ROWS).to_pylist():
        number = row.pop(_ROW)
        value = next(iter(row.values())) if len(row) == 1 else row
        text = value if isinstance(value, (int, float, bool)) or value is None else str(value)[:MOST_CHARACTERS]
        sample.append({"file": piece.name, "row": number, "value": text})
    return RowSample(rows.num_rows, sample)


# Returns which rows of a column are bad, by its feature in the schema, whose shared domain is resolved.
_Finder = Callable[[pa.Array, Any], np.ndarray]


def _missing(column: pa.Array, expected: Any) -> np.ndarray:
    return _as_bools(column.is_null(nan_is_null=pa.types.is_floating(column.type)))


def _counts(is_bad: Callable[[np.ndarray, Any], np.ndarray]) -> _Finder:
    """Return a finder of rows by their number of values. Rows without any do not count."""

    def found(column: pa.Array, expected: Any) -> np.ndarray:
        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        present = _as_bools(column.is_valid())
        counts = np.ones(len(column))
        if is_list(column.type):
            counts[present] = values_per_row(column.drop_null()).to_numpy()
        return present & is_bad(counts, expected)

    return found


def _values(is_bad: Callable[[pa.Array, Any], pa.Array]) -> _Finder:
    """Return a finder of rows with a bad value."""

    def found(column: pa.Array, expected: Any) -> np.ndarray:
        count, rows = len(column), np.arange(len(column))
        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        while is_list(column.type):
            rows, column = rows[pc.list_parent_indices(column).to_numpy()], column.flatten()
        present = _as_bools(column.is_valid())
        bad = _as_bools(is_bad(column.drop_null(), expected).fill_null(False))
        return np.bincount(rows[present][bad], minlength=count) > 0

    return found


def _distinct_values(is_bad: Callable[[Any, Any], bool]) -> _Finder:
    """Return a finder of rows with a bad value, by a function of Python, which is called for the distinct values."""

    def found(values: pa.Array, expected: Any) -> pa.Array:
        distinct = values.unique()
        bad = pa.array([is_bad(value, expected) for value in distinct.to_pylist()], pa.bool_())
        return pc.is_in(values, value_set=distinct.filter(bad))

    return _values(found)


def _beyond(bound: str) -> _Finder:
    """Return a finder of numbers, or of texts of numbers, below (`min`) or above (`max`) their domain."""

    def is_beyond(value: Any, expected: Any) -> bool:
        if times := expected_integers(expected):
            limit = times[1] if bound == "min" else times[2]
        else:
            limit = getattr(getattr(expected, expected.WhichOneof("domain_info")), bound)
        number = number_of(_text(value), expected.HasField("int_domain")) if isinstance(value, (str, bytes)) else value
        return number is not None and (number < limit if bound == "min" else number > limit)

    return _distinct_values(is_beyond)


def _is_no_number(value: Any, expected: Any) -> bool:
    return number_of(_text(value), expected.HasField("int_domain")) is None


def _is_no_category(value: Any, expected: Any) -> bool:
    texts = expected_texts(expected)
    return not texts[1](_text(value)) if texts else _text(value) not in expected.string_domain.value


def _is_no_boolean(value: Any, expected: Any) -> bool:
    domain = expected.bool_domain
    return value not in (0, 1) and _text(value) not in {domain.true_value, domain.false_value} - {""}


def _is_no_utf8(value: Any, expected: Any) -> bool:
    return isinstance(value, bytes) and not is_utf8(value)


def _is_no_image(value: Any, expected: Any) -> bool:
    media = sniff(value) if isinstance(value, bytes) else None
    return media is None or media.kind != "image"


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _as_bools(values: pa.Array) -> np.ndarray:
    return values.to_numpy(zero_copy_only=False)


def _lengths(expected: Any) -> tuple[float, float]:
    """Return the fewest and the most values that a row may have. Lists of lists are not looked into."""
    counts, tokens = expected.value_count, expected.natural_language_domain.sequence_length_constraints
    most = [counts.max] if counts.HasField("max") else []
    most += [tokens.max_sequence_length] if tokens.HasField("max_sequence_length") else []
    return max(counts.min, tokens.min_sequence_length), min(most, default=math.inf)


def _size(expected: Any) -> int:
    return math.prod(dim.size for dim in expected.shape.dim)


_FINDERS: dict[str, _Finder] = {
    "FEATURE_TYPE_NOT_PRESENT": _missing,
    "FEATURE_TYPE_LOW_FRACTION_PRESENT": _missing,
    "FEATURE_TYPE_LOW_NUMBER_PRESENT": _missing,
    "FEATURE_TYPE_NO_VALUES": _counts(lambda counts, _: counts == 0),
    "FEATURE_TYPE_LOW_NUMBER_VALUES": _counts(lambda counts, expected: counts < _lengths(expected)[0]),
    "FEATURE_TYPE_HIGH_NUMBER_VALUES": _counts(lambda counts, expected: counts > _lengths(expected)[1]),
    "INVALID_FEATURE_SHAPE": _counts(lambda counts, expected: counts != _size(expected)),
    "INT_TYPE_SMALL_INT": _beyond("min"),
    "FLOAT_TYPE_SMALL_FLOAT": _beyond("min"),
    "INT_TYPE_BIG_INT": _beyond("max"),
    "FLOAT_TYPE_BIG_FLOAT": _beyond("max"),
    "INT_TYPE_NOT_INT_STRING": _distinct_values(_is_no_number),
    "FLOAT_TYPE_STRING_NOT_FLOAT": _distinct_values(_is_no_number),
    "FLOAT_TYPE_HAS_INF": _values(lambda values, _: pc.is_inf(values)),
    "FLOAT_TYPE_HAS_NAN": _values(lambda values, _: pc.is_nan(values)),
    "ENUM_TYPE_UNEXPECTED_STRING_VALUES": _distinct_values(_is_no_category),
    "ENUM_TYPE_INVALID_UTF8": _distinct_values(_is_no_utf8),
    "BOOL_TYPE_UNEXPECTED_STRING": _distinct_values(_is_no_boolean),
    "BOOL_TYPE_SMALL_INT": _distinct_values(_is_no_boolean),
    "BOOL_TYPE_BIG_INT": _distinct_values(_is_no_boolean),
    "BOOL_TYPE_UNEXPECTED_FLOAT": _distinct_values(_is_no_boolean),
    "LOW_SUPPORTED_IMAGE_FRACTION": _distinct_values(_is_no_image),
    "MAX_IMAGE_BYTE_SIZE_EXCEEDED": _values(
        lambda values, expected: pc.greater(pc.binary_length(values), expected.image_domain.max_image_byte_size)
    ),
}
