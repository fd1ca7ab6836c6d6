"""Domains of meaning: URLs, knowledge graph ids, times, and tokens of natural language."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from tensorflow_metadata.proto.v0 import schema_pb2

# The first and the last second of the years 1 to 9999, which `datetime` can represent, since 1970.
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
# The hour of PACKED_64_NANOS begins at this bit.
HOUR_BIT = 42
_PER_SECOND = {"UNIX_DAYS": 1 / 86_400, "UNIX_SECONDS": 1, "UNIX_MILLISECONDS": 10**3, "UNIX_MICROSECONDS": 10**6}
_MID = re.compile(r"/[mg]/[0-9a-z_]+")


def expected_texts(feature: Any) -> tuple[str, Callable[[str], bool]] | None:
    """Return words for the texts that the domain of a schema's feature expects, and whether a text is one; or None."""
    if feature.HasField("url_domain"):
        return "URLs", _is_url
    if feature.HasField("mid_domain"):
        return "knowledge graph ids such as /m/02mjmr", lambda text: _MID.fullmatch(text) is not None
    time = feature.time_domain if feature.HasField("time_domain") else feature.time_of_day_domain
    if time.HasField("string_format"):
        return f"times in the format {time.string_format}", lambda text: _is_time(text, time.string_format)
    return None


def expected_integers(feature: Any) -> tuple[str, float, float] | None:
    """Return words for the integers that the time domain of a schema's feature expects, and their bounds; or None."""
    if feature.time_domain.HasField("integer_format"):
        unit = schema_pb2.TimeDomain.IntegerTimeFormat.Name(feature.time_domain.integer_format)
        if unit in _PER_SECOND:
            return f"times in {unit}", FIRST_SECOND * _PER_SECOND[unit], LAST_SECOND * _PER_SECOND[unit]
    of_day = feature.time_of_day_domain
    if of_day.integer_format == schema_pb2.TimeOfDayDomain.PACKED_64_NANOS:
        return "times of day in PACKED_64_NANOS", 0, (24 << HOUR_BIT) - 1
    return None


def time_format_error(time: Any) -> str | None:
    """Return what is wrong with the format of a `TimeDomain` or `TimeOfDayDomain`, or None."""
    if not time.HasField("string_format"):
        return None
    try:
        datetime.strptime("", time.string_format)
    except ValueError as error:
        return f"the format {time.string_format!r}: {error}" if "match" not in str(error) else None
    return "an empty format"


def coverage(tokens: Iterable[tuple[str, float]], domain: Any, vocabulary: set[str] | None) -> tuple[float, float]:
    """Return the share of tokens that are known, and the mean length of these, in characters.

    Args:
        tokens: tokens with their counts. Integers are given as text.
        domain: a `NaturalLanguageDomain`. Its excluded tokens count neither way.
        vocabulary: the known tokens; None if all but `oov_string_tokens` are known.
    """
    bounds = domain.coverage
    excluded = {*bounds.excluded_string_tokens, *map(str, bounds.excluded_int_tokens)}
    counted = [(token, count) for token, count in tokens if token not in excluded]
    known = [
        (token, count)
        for token, count in counted
        if token not in bounds.oov_string_tokens and (vocabulary is None or token in vocabulary)
    ]
    total, of_known = (sum(count for _, count in some) for some in (counted, known))
    length = sum(len(token) * count for token, count in known) / of_known if of_known else 0.0
    return (of_known / total if total else 1.0), length


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme and parts.netloc) and not re.search(r"\s", text)


def _is_time(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return True
