"""Mergeable statistics of columns: one pass over the rows, in any number of pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.data.accumulators.moments import Moments
from kerasline.components.data.accumulators.quantiles import Quantiles
from kerasline.components.data.accumulators.value_counts import ValueCounts
from kerasline.components.data.media import sniff
from kerasline.components.data.unify import is_list

# Quantiles are exact up to so many numbers; then a rank is off by log2(n / 4096) / 4096 at most:
# 0.2% for 1.5 million numbers (see `Quantiles`).
QUANTILE_LEVEL = 4096


@dataclass
class NumberSummary:
    """The distribution of numbers, NaN left out and infinities counted apart."""

    moments: Moments = field(default_factory=Moments)
    zeros: int = 0
    non_finite: int = 0
    minimum: float = np.inf
    maximum: float = -np.inf
    quantiles: Quantiles = field(default_factory=lambda: Quantiles(QUANTILE_LEVEL))

    def add(self, values: np.ndarray) -> NumberSummary:
        """Takes in float64 numbers without NaN, shape (n,)."""
        finite = values[np.isfinite(values)]
        self.non_finite += len(values) - len(finite)
        if len(finite):
            self.moments.add(finite)
            self.zeros += len(finite) - int(np.count_nonzero(finite))
            self.minimum = min(self.minimum, float(finite.min()))
            self.maximum = max(self.maximum, float(finite.max()))
            self.quantiles.add(finite)
        return self

    def merge(self, other: NumberSummary) -> NumberSummary:
        self.moments.merge(other.moments)
        self.zeros += other.zeros
        self.non_finite += other.non_finite
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.quantiles.merge(other.quantiles)
        return self

    def at(self, ranks: Sequence[float]) -> list[float]:
        """The values at ranks in (0, 1]; none where there are no numbers."""
        return self.quantiles.at(np.asarray(ranks)).tolist()

    def shares_up_to(self, bounds: Sequence[float]) -> list[float]:
        """The share of the finite numbers up to each bound; there is at least one number."""
        return self.quantiles.shares_up_to(np.asarray(bounds)).tolist()


@dataclass
class MediaSummary:
    """Formats and sizes of images or clips in a column of bytes (see `Media.size`)."""

    formats: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    sizes: dict[str, NumberSummary] = field(default_factory=dict)

    NAMES = {"image": ("height", "width"), "audio": ("sample_rate", "channels", "frames")}

    def add(self, values: pa.Array) -> MediaSummary:
        found: dict[str, list[int]] = {}
        for value in values:
            media = sniff(value.as_py())
            if media is None:
                self.unknown += 1
                continue
            self.formats[media.format] += 1
            for name, size in zip(self.NAMES[media.kind], media.size or ()):
                found.setdefault(name, []).append(size)
        for name, sizes in found.items():
            self.sizes.setdefault(name, NumberSummary()).add(np.array(sizes, np.float64))
        return self

    def merge(self, other: MediaSummary) -> MediaSummary:
        self.formats += other.formats
        self.unknown += other.unknown
        for name, summary in other.sizes.items():
            self.sizes[name] = self.sizes[name].merge(summary) if name in self.sizes else summary
        return self


@dataclass
class ColumnSummary:
    """All that is kept of one column.

    Attributes:
        kind: INT, FLOAT or STRING; NONE while only nulls were seen.
        missing: rows without a value: null, or NaN in a float.
        values: how many values the present rows hold: their number, or more for lists and tensors.
        lengths: of texts and byte strings, in bytes; of lists and tensors see `valency`.
        valency: how many values a present row holds, for lists and tensors.
        invalid_utf8: byte strings that are no text.
        nan: NaN, which within lists are values, and elsewhere count as missing too.
    """

    kind: str
    rows: int = 0
    missing: int = 0
    values: int = 0
    nan: int = 0
    invalid_utf8: int = 0
    numbers: NumberSummary = field(default_factory=NumberSummary)
    counts: ValueCounts = field(default_factory=ValueCounts)
    lengths: NumberSummary | None = None
    valency: NumberSummary | None = None
    media: MediaSummary | None = None

    @classmethod
    def of(cls, column: pa.Array) -> ColumnSummary:
        """The summary of one column of one batch."""
        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        listed = is_list(column.type)
        present = column.drop_null()
        values = present
        while is_list(values.type):
            values = values.flatten()
        nan = pc.sum(pc.is_nan(values)).as_py() or 0 if pa.types.is_floating(values.type) else 0
        if nan:
            values = values.filter(pc.invert(pc.is_nan(values)))
        summary = cls(_kind(values.type), len(column), len(column) - len(present), len(values))
        summary.nan = nan
        if listed:
            lengths = _value_counts_a_row(present)
            summary.valency = NumberSummary().add(lengths.cast(pa.float64()).to_numpy())
        else:
            summary.missing += nan
        summary._add_values(values.drop_null())
        return summary

    def merge(self, other: ColumnSummary) -> ColumnSummary:
        if self.kind == "NONE":
            self.kind = other.kind
        for name in ("rows", "missing", "values", "nan", "invalid_utf8"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.numbers.merge(other.numbers)
        self.counts.merge(other.counts)
        for name in ("lengths", "valency", "media"):
            ours, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, ours.merge(theirs) if ours and theirs else ours or theirs)
        return self

    @property
    def least_values(self) -> int:
        """The fewest values that a present row holds."""
        if self.valency is None or not self.valency.moments.count:
            return int(self.rows > self.missing)
        return int(self.valency.minimum)

    @property
    def most_values(self) -> int:
        if self.valency is None or not self.valency.moments.count:
            return int(self.rows > self.missing)
        return int(self.valency.maximum)

    def _add_values(self, values: pa.Array) -> None:
        if self.kind == "NONE" or not len(values):
            return
        if self.kind != "STRING":
            # A sum with 0 makes -0.0 what it equals.
            self.counts.add(pc.add(values, 0) if self.kind == "FLOAT" else values)
            plain = values.cast(pa.float64(), safe=False)
            self.numbers.add(plain.to_numpy(zero_copy_only=False))
            return
        lengths = pc.binary_length(values).cast(pa.float64())
        self.lengths = NumberSummary().add(lengths.to_numpy())
        if pa.types.is_binary(values.type) and sniff(values[0].as_py()) is not None:
            self.media = MediaSummary().add(values)  # whole files: counting them would keep them all
        else:
            self.counts.add(values)
            self.invalid_utf8 = _invalid_utf8(values)


def _value_counts_a_row(lists: pa.Array) -> pa.Array:
    """How many values each row of lists holds, through all levels."""
    kind = lists.type
    if pa.types.is_fixed_size_list(kind):
        return pa.array(np.full(len(lists), kind.list_size))
    lengths = pc.list_value_length(lists).cast(pa.int64())
    if not is_list(kind.value_type):
        return lengths
    inner = pc.fill_null(_value_counts_a_row(lists.flatten()), 0).to_numpy()
    ends = np.cumsum(lengths.to_numpy())
    total = np.concatenate([[0], np.cumsum(inner)])
    return pa.array(total[ends] - total[ends - lengths.to_numpy()])


def _invalid_utf8(values: pa.Array) -> int:
    if not pa.types.is_binary(values.type):
        return 0
    try:
        values.cast(pa.string())
        return 0
    except pa.ArrowInvalid:
        distinct = values.value_counts()
        return sum(
            count.as_py()
            for value, count in zip(distinct.field("values"), distinct.field("counts"))
            if not _is_utf8(value.as_py())
        )


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
        return True
    except UnicodeDecodeError:
        return False


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_null(kind):
        return "NONE"
    if pa.types.is_floating(kind):
        return "FLOAT"
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "INT"
    return "STRING"
