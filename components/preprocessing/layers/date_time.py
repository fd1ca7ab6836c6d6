"""Points in time as numbers: the year, the month, the day of the week, the hour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.preprocessing.layers.base import check

# Cyclic parts: the first value and the number of values. Months count 31 days, and years 366 days and 53 weeks, so that
# each value has the same angle in every month and year.
CYCLES = {
    "quarter": (1, 4),
    "month": (1, 12),
    "week": (1, 53),
    "day": (1, 31),
    "day_of_year": (1, 366),
    "weekday": (0, 7),
    "hour": (0, 24),
    "minute": (0, 60),
    "second": (0, 60),
}
PARTS = ("year", *CYCLES, "is_weekend", "epoch_days", "epoch_seconds")
DAY_SECONDS = 86_400
MONTH_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])  # without the leap day
# Number of units in a second.
UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
SOURCES = ("iso", *UNITS_PER_SECOND, "days")
# 0001-01-01 and 9999-12-31: the years that ISO 8601 writes with four digits, except 0000.
FIRST_DAY, LAST_DAY = -719_162, 2_932_896
ISO_8601 = r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?([Zz]|[+-]\d{2}(:?\d{2})?)?)?"
LONGEST = len("2026-11-24T01:38:35.123456789+01:00")


@keras.saving.register_keras_serializable("kerasline")
class DateTimeParts(keras.layers.Layer):
    """Splits points in time into parts, a column for each, in the proleptic Gregorian calendar and UTC.

    Texts are ISO 8601: `2026-11-24`, `2026-11-24 01:38`, `2026-11-24T01:38:35.5+01:00`. Date and time are separated by
    `T` or a space. Seconds, up to nine digits of their fraction, and the zone are optional. Without a zone, or with
    `Z`, the time is UTC; an offset is subtracted. Numbers count from 1970 in the unit of `source`. Fractional days are
    rounded to the nearest second.

    Args:
        parts: list of `year`, `quarter` (1 to 4), `month`, `week` (of ISO 8601, 1 to 53), `day`, `day_of_year` (1 to
            366), `weekday` (Monday is 0), `hour`, `minute`, `second`, `is_weekend` (1 on Saturdays and Sundays),
            `epoch_days` and `epoch_seconds` (since 1970). Defaults to month, day, weekday and hour. A float32 holds
            `epoch_days` exactly but current `epoch_seconds` only in multiples of 128: pass `dtype="float64"` if that is
            too coarse.
        source: `"iso"` for texts, or the unit of numbers: `"s"`, `"ms"`, `"us"`, `"ns"` or `"days"`. Defaults to
            `"iso"`.
        cyclic: bool. Replace each cyclic part by two columns, sine and cosine of 2 pi (part - first value) / period.
            The periods are: quarter 4, month 12, week 53, day 31, day_of_year 366, weekday 7, hour 24, minute and
            second 60. Defaults to `False`.

    Inputs:
        Texts or numbers of shape (rows,) or (rows, 1).

    Outputs:
        Floats of shape (rows, columns) and the layer's dtype, float32 by default. All parts are integers: fractions of
        a second or a day are rounded down. A row is NaN if its input is missing ("", -1 in integers, NaN), is not of a
        form above, is not a valid date or time (leap seconds are not), or is outside of the years 1 to 9999.

    Attributes:
        columns: the names of the columns: the parts, with `_sin` and `_cos` appended for cyclic ones.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> layer = kl.layers.DateTimeParts(["year", "hour"])
    >>> layer(np.array(["2026-11-24T01:38:35", "yesterday"])).numpy().tolist()
    [[2026.0, 1.0], [nan, nan]]
    """

    def __init__(
        self,
        parts: Sequence[str] = ("month", "day", "weekday", "hour"),
        source: str = "iso",
        cyclic: bool = False,
        **options: Any,
    ) -> None:
        # Autocasting would turn float64 inputs into float32.
        super().__init__(**{"autocast": False, **options})
        self.supports_jit = False  # XLA has no texts
        parts = [parts] if isinstance(parts, str) else list(parts)
        known = bool(parts) and all(part in PARTS for part in parts)
        check("DateTimeParts", known, "parts", parts, f"some of {', '.join(PARTS)}")
        check("DateTimeParts", source in SOURCES, "source", source, f"one of {', '.join(SOURCES)}")
        self._parts, self._source, self._cyclic = tuple(parts), source, bool(cyclic)

    @property
    def columns(self) -> list[str]:
        angles = CYCLES if self._cyclic else ()
        ends = {part: ("_sin", "_cos") if part in angles else ("",) for part in self._parts}
        return [part + end for part in self._parts for end in ends[part]]

    def build(self, input_shape: Any) -> None:
        shape = tuple(input_shape)
        fits = len(shape) > 0 and shape[1:] in ((), (1,))
        check("DateTimeParts", fits, "inputs", shape, "shape (rows,) or (rows, 1)")

    def call(self, moments: Any) -> tf.Tensor:
        moments = tf.convert_to_tensor(moments)
        _check_dtype(moments.dtype.name, self._source)
        known_rows, moments = moments.shape[0], tf.reshape(moments, [-1])
        if self._source == "iso":
            seconds, known = _seconds_from_texts(moments)
        else:
            seconds, known = _seconds_from_numbers(moments, self._source)
        moment = _Moment(seconds)
        table = tf.concat([self._columns_of(part, moment) for part in self._parts], axis=1)
        missing = tf.constant(np.nan, table.dtype)
        return tf.ensure_shape(tf.where(known[:, None], table, missing), [known_rows, len(self.columns)])

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        return input_shape[0], len(self.columns)

    def compute_output_spec(self, moments: Any) -> keras.KerasTensor:
        _check_dtype(moments.dtype, self._source)
        return keras.KerasTensor(self.compute_output_shape(moments.shape), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        config = {"parts": list(self._parts), "source": self._source, "cyclic": self._cyclic}
        return {**super().get_config(), **config}

    def _columns_of(self, part: str, moment: _Moment) -> tf.Tensor:
        """Return the columns of one part, (rows, 1) or (rows, 2)."""
        values = getattr(moment, part)()
        if not self._cyclic or part not in CYCLES:
            return tf.cast(values, self.compute_dtype)[:, None]
        first, period = CYCLES[part]
        angles = 2 * np.pi * np.arange(period) / period
        # A table of all angles is exact and the same on every device.
        circle = tf.constant(np.stack([np.sin(angles), np.cos(angles)], axis=1), self.compute_dtype)
        return tf.gather(circle, values - first)


class _Moment:
    """The parts of points in time, int64 (rows,), computed from seconds since 1970 in UTC, int64 (rows,)."""

    def __init__(self, seconds: tf.Tensor) -> None:
        self._seconds = seconds
        self._days = seconds // DAY_SECONDS
        self._of_day = seconds - self._days * DAY_SECONDS
        self._year, self._month, self._day = _civil_from_days(self._days)

    def year(self) -> tf.Tensor:
        return self._year

    def quarter(self) -> tf.Tensor:
        return (self._month + 2) // 3

    def month(self) -> tf.Tensor:
        return self._month

    def week(self) -> tf.Tensor:
        # A week belongs to the year of its Thursday (ISO 8601, 2.2.10).
        thursday = self._days - self.weekday() + 3
        year, _, _ = _civil_from_days(thursday)
        return (thursday - _days_from_civil(year, 1, 1)) // 7 + 1

    def day(self) -> tf.Tensor:
        return self._day

    def day_of_year(self) -> tf.Tensor:
        return self._days - _days_from_civil(self._year, 1, 1) + 1

    def weekday(self) -> tf.Tensor:
        return (self._days + 3) % 7  # 1970-01-01 was a Thursday

    def hour(self) -> tf.Tensor:
        return self._of_day // 3600

    def minute(self) -> tf.Tensor:
        return self._of_day // 60 % 60

    def second(self) -> tf.Tensor:
        return self._of_day % 60

    def is_weekend(self) -> tf.Tensor:
        return tf.cast(self.weekday() >= 5, tf.int64)

    def epoch_days(self) -> tf.Tensor:
        return self._days

    def epoch_seconds(self) -> tf.Tensor:
        return self._seconds


def _seconds_from_numbers(numbers: tf.Tensor, unit: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Return seconds since 1970, and where they are known. Elsewhere they are arbitrary."""
    if numbers.dtype.is_floating:
        numbers = tf.cast(numbers, tf.float64)
        # Round: a third of a day is 28,799.999999999996 seconds.
        seconds = tf.round(numbers * DAY_SECONDS) if unit == "days" else numbers / UNITS_PER_SECOND[unit]
        return _within(tf.floor(seconds), FIRST_DAY * DAY_SECONDS, (LAST_DAY + 1) * DAY_SECONDS - 1)
    missing = numbers == -1 if numbers.dtype.min else tf.zeros_like(numbers, tf.bool)
    numbers = tf.cast(numbers, tf.int64)
    if unit == "days":
        days, known = _within(numbers, FIRST_DAY, LAST_DAY)
        seconds = days * DAY_SECONDS
    else:
        seconds = numbers // UNITS_PER_SECOND[unit]
        seconds, known = _within(seconds, FIRST_DAY * DAY_SECONDS, (LAST_DAY + 1) * DAY_SECONDS - 1)
    return seconds, known & ~missing


def _seconds_from_texts(texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return seconds since 1970, and where they are known. Elsewhere they are arbitrary."""
    readable = tf.strings.regex_full_match(texts, ISO_8601)
    texts = tf.where(readable, texts, "1970-01-01")
    characters = tf.cast(tf.io.decode_raw(texts, tf.uint8, fixed_length=LONGEST), tf.int64)
    length = tf.cast(tf.strings.length(texts), tf.int64)

    def two_digits(place: int | tf.Tensor) -> tf.Tensor:
        if isinstance(place, int):
            pair = characters[:, place : place + 2]
        else:
            pair = tf.gather(characters, place[:, None] + [0, 1], axis=1, batch_dims=1)
        return 10 * pair[:, 0] + pair[:, 1] - 11 * ord("0")

    def where(condition: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        return tf.where(condition, number, tf.zeros_like(number))

    year, month, day = 100 * two_digits(0) + two_digits(2), two_digits(5), two_digits(8)
    has_time = length >= len("2026-11-24T01:38")
    hour, minute = where(has_time, two_digits(11)), where(has_time, two_digits(14))
    second = where(characters[:, 16] == ord(":"), two_digits(17))
    # After the minutes only a zone has a sign. Its minutes, if present, are the last two characters.
    tail = characters[:, 16:]
    signs = tf.cast(tail == ord("+"), tf.int64) - tf.cast(tail == ord("-"), tf.int64)
    sign, place = tf.reduce_sum(signs, axis=1), 16 + tf.argmax(tf.abs(signs), axis=1)
    has_zone_minutes = (sign != 0) & (length - place > len("+01"))
    zone_hour = where(sign != 0, two_digits(tf.minimum(place + 1, LONGEST - 2)))
    zone_minute = where(has_zone_minutes, two_digits(length - 2))

    month_days = tf.gather(MONTH_DAYS, tf.clip_by_value(month, 1, 12) - 1)
    leap = (month == 2) & (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    known = readable & (month >= 1) & (month <= 12) & (day >= 1)
    known &= day <= month_days + tf.cast(leap, tf.int64)
    known &= (hour < 24) & (minute < 60) & (second < 60) & (zone_hour < 24) & (zone_minute < 60)
    offset = sign * (zone_hour * 3600 + zone_minute * 60)
    seconds = _days_from_civil(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second - offset
    seconds, within = _within(seconds, FIRST_DAY * DAY_SECONDS, (LAST_DAY + 1) * DAY_SECONDS - 1)
    return seconds, known & within


def _within(numbers: tf.Tensor, first: int, last: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the numbers as int64, 0 outside of the range, and where they are within it."""
    known = (numbers >= first) & (numbers <= last)
    return tf.cast(tf.where(known, numbers, tf.zeros_like(numbers)), tf.int64), known


# Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil and civil_from_days
# (https://howardhinnant.github.io/date_algorithms.html). Years begin in March, so that the leap day is the last day. An
# era is 400 years, 146,097 days, after which the calendar repeats.
def _days_from_civil(year: tf.Tensor, month: tf.Tensor | int, day: tf.Tensor | int) -> tf.Tensor:
    """Return days since 1970-01-01."""
    year = year - tf.cast(tf.less_equal(month, 2), tf.int64)
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def _civil_from_days(days: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return year, month and day from days since 1970-01-01."""
    days = days + 719_468
    era = days // 146_097
    of_era = days - era * 146_097
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * of_year + 2) // 153
    day = of_year - (153 * month_from_march + 2) // 5 + 1
    month = (month_from_march + 2) % 12 + 1
    return year_of_era + era * 400 + tf.cast(month <= 2, tf.int64), month, day


def _check_dtype(dtype: str, source: str) -> None:
    fits = (dtype == "string") == (source == "iso") and dtype != "bool"
    expected = "texts" if source == "iso" else "integers or floats"
    check("DateTimeParts", fits, f"inputs for source {source!r}", dtype, expected)
