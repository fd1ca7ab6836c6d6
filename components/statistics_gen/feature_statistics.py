"""The statistics of a feature, computed in one pass over any number of pieces and merged.

`statistics_proto` writes them. A new statistic is computed here and written there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.data.accumulators.moments import Moments
from kerasline.components.data.accumulators.quantiles import Quantiles, interpolated
from kerasline.components.data.accumulators.value_counts import ValueCounts
from kerasline.components.data.arrow_types import is_list
from kerasline.components.data.media import may_be_media, sniff
from kerasline.components.statistics_gen.sound_measures import sound_measures
from kerasline.components.statistics_gen.weighted_statistics import WeightedSummary

# Quantiles are exact up to this many numbers. Beyond, the error of a rank is at most log2(n / 4096) / 4096: 0.2% for
# 1.5 million numbers (see `Quantiles`).
QUANTILE_LEVEL = 4096


@dataclass
class NumberSummary:
    """The distribution of finite numbers. Infinities are only counted. NaN must be removed before."""

    moments: Moments = field(default_factory=Moments)
    zeros: int = 0
    non_finite: int = 0
    minimum: float = np.inf
    maximum: float = -np.inf
    quantiles: Quantiles = field(default_factory=lambda: Quantiles(QUANTILE_LEVEL))

    def add(self, values: np.ndarray) -> NumberSummary:
        """Add float64 numbers without NaN, shape (n,)."""
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
        """Return the values at ranks in (0, 1], or no values if there are no numbers."""
        return self.quantiles.at(np.asarray(ranks)).tolist()

    @property
    def median(self) -> float:
        """The median: of an even count, the mean of the two middle numbers. NaN if there are no numbers."""
        return float(interpolated(self.quantiles, np.array([0.5]))[0])

    def cumulative_shares(self, bounds: Sequence[float]) -> list[float]:
        """Return the share of the finite numbers up to each bound. There must be at least one number."""
        return self.quantiles.cumulative_shares(np.asarray(bounds)).tolist()


@dataclass
class MediaSummary:
    """The formats and sizes of the images and audio clips in a column of bytes.

    Attributes:
        formats: number of values by format.
        sizes: distributions by name, of `Media.size` and, for WAV files, of `sound_measures`.
    """

    formats: Counter[str] = field(default_factory=Counter)
    sizes: dict[str, NumberSummary] = field(default_factory=dict)

    NAMES = {"image": ("height", "width"), "audio": ("sample_rate", "channels", "frames")}

    @property
    def count(self) -> int:
        return self.formats.total()

    def add(self, values: pa.Array) -> pa.Array:
        """Add the images and audio clips among the values. Return the other values."""
        found: dict[str, list[float]] = {}
        is_media = may_be_media(values).to_numpy(zero_copy_only=False).copy()
        for number in np.flatnonzero(is_media):
            content = values[number].as_py()
            media = sniff(content)
            is_media[number] = media is not None
            if media is None:
                continue
            self.formats[media.format] += 1
            sizes = dict(zip(self.NAMES[media.kind], media.size or ()))
            for name, size in {**sizes, **(sound_measures(content) if media.format == "WAV" else {})}.items():
                found.setdefault(name, []).append(size)
        for name, numbers in found.items():
            self.sizes.setdefault(name, NumberSummary()).add(np.array(numbers, np.float64))
        return values.filter(pa.array(~is_media))

    def merge(self, other: MediaSummary) -> MediaSummary:
        self.formats += other.formats
        for name, summary in other.sizes.items():
            self.sizes[name] = self.sizes[name].merge(summary) if name in self.sizes else summary
        return self


@dataclass(frozen=True)
class ListLengths:
    """Numbers of values in the lists of one level: of all lists, the fewest and the most; and lists that are null."""

    lists: int = 0
    missing: int = 0
    values: int = 0
    fewest: int = 0
    most: int = 0

    def merge(self, other: ListLengths) -> ListLengths:
        some = [one for one in (self, other) if one.lists]
        return ListLengths(
            self.lists + other.lists,
            self.missing + other.missing,
            self.values + other.values,
            min((one.fewest for one in some), default=0),
            max((one.most for one in some), default=0),
        )


@dataclass
class FeatureSummary:
    """The statistics of one feature.

    Attributes:
        kind: INT, FLOAT or STRING. NONE if all values so far are null.
        rows: number of rows.
        missing: number of rows without a value: null, or NaN in a column of floats.
        values: number of values in the other rows. Lists and tensors have several in a row.
        nan: number of NaN. In lists they are values, elsewhere they also count as missing.
        invalid_utf8: number of byte strings that are not UTF-8.
        numbers: distribution of numeric values.
        counts: counts of the distinct values. Images and audio clips, which are entire files, are not among them.
        lengths: distribution of the lengths of strings, in bytes.
        valency: distribution of the number of values in a row, for lists and tensors.
        levels: numbers of values in the lists of each level, for lists of lists, the outermost first.
        media: the images and audio clips in a column of bytes.
        weighted: the statistics in which rows have weights.
        shape: shape of the tensor in each row, for a column of tensors.
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
    levels: list[ListLengths] = field(default_factory=list)
    media: MediaSummary | None = None
    shape: tuple[int, ...] | None = None
    weighted: WeightedSummary | None = None

    @classmethod
    def of(cls, column: pa.Array, weights: np.ndarray | None = None) -> FeatureSummary:
        """Return the statistics of one column of one batch.

        Args:
            weights: float64 (rows,), or None for no weighted statistics.
        """
        weighted = None if weights is None else WeightedSummary.of(column, weights)
        shape = tuple(column.type.shape) if isinstance(column, pa.FixedShapeTensorArray) else None
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
        summary.nan, summary.shape, summary.weighted = nan, shape, weighted
        if listed:
            lengths = values_per_row(present)
            summary.valency = NumberSummary().add(lengths.cast(pa.float64()).to_numpy())
            if is_list(column.type.value_type):
                summary.levels = _levels(column)
        else:
            summary.missing += nan
        summary._add_values(values.drop_null())
        return summary

    def merge(self, other: FeatureSummary) -> FeatureSummary:
        if self.kind == "NONE":
            self.kind = other.kind
        for name in ("rows", "missing", "values", "nan", "invalid_utf8"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.levels = (
            [mine.merge(theirs) for mine, theirs in zip(self.levels, other.levels)] or self.levels or other.levels
        )
        self.numbers.merge(other.numbers)
        self.counts.merge(other.counts)
        for name in ("lengths", "valency", "media", "weighted"):
            ours, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, ours.merge(theirs) if ours and theirs else ours or theirs)
        return self

    @property
    def min_values(self) -> int:
        """The smallest number of values in a row that has any."""
        if self.valency is None or not self.valency.moments.count:
            return int(self.rows > self.missing)
        return int(self.valency.minimum)

    @property
    def max_values(self) -> int:
        """The largest number of values in a row."""
        if self.valency is None or not self.valency.moments.count:
            return int(self.rows > self.missing)
        return int(self.valency.maximum)

    @property
    def is_media(self) -> bool:
        """Whether most values are images or audio clips."""
        return bool(self.media and self.lengths and 2 * self.media.count > self.lengths.moments.count)

    def _add_values(self, values: pa.Array) -> None:
        if self.kind == "NONE" or not len(values):
            return
        if self.kind != "STRING":
            # Adding 0 turns -0.0 into 0.0, which it equals.
            self.counts.add(pc.add(values, 0) if self.kind == "FLOAT" else values)
            plain = values.cast(pa.float64(), safe=False)
            self.numbers.add(plain.to_numpy(zero_copy_only=False))
            return
        lengths = pc.binary_length(values).cast(pa.float64())
        self.lengths = NumberSummary().add(lengths.to_numpy())
        if pa.types.is_binary(values.type):
            self.media = MediaSummary()
            values = self.media.add(values)
        self.counts.add(values)
        self.invalid_utf8 = _invalid_utf8(values)


def _levels(lists: pa.Array) -> list[ListLengths]:
    """Return the numbers of values in the lists of each level, the outermost first."""
    found = []
    while is_list(lists.type):
        present = lists.drop_null()
        if pa.types.is_fixed_size_list(present.type):
            fewest = most = present.type.list_size if len(present) else 0
        else:
            fewest, most = pc.min_max(pc.list_value_length(present)).as_py().values()
        inner = present.flatten()
        found.append(ListLengths(len(present), len(lists) - len(present), len(inner), fewest or 0, most or 0))
        lists = inner
    return found


def values_per_row(lists: pa.Array) -> pa.Array:
    """Return the number of values in each row of lists, over all levels of nesting. A null has none, or is null."""
    kind = lists.type
    if pa.types.is_fixed_size_list(kind):
        return pa.array(np.full(len(lists), kind.list_size))
    lengths = pc.list_value_length(lists).cast(pa.int64())
    if not is_list(kind.value_type):
        return lengths
    inner, outer = (part.fill_null(0).to_numpy() for part in (values_per_row(lists.flatten()), lengths))
    ends = np.cumsum(outer)
    total = np.concatenate([[0], np.cumsum(inner)])
    return pa.array(total[ends] - total[ends - outer])


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
            if not is_utf8(value.as_py())
        )


def is_utf8(value: bytes) -> bool:
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
