"""Numbers formatted for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def number_text(value: Any, digits: int = 4) -> str:
    """Format a value for people.

    Args:
        value: a number; a bool, which becomes "yes" or "no"; or any other value, see `value_text`. None, NaN and
            infinities become a dash.
        digits: number of significant digits of a float.

    Example:

    >>> [number_text(value) for value in (1234, 0.92541, 1.2e-7, True)]
    ['1,234', '0.9254', '1.2e-7', 'yes']
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (int, float)):
        return value_text(value, digits)
    if not math.isfinite(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if value and not 1e-4 <= abs(value) < 1e9:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def finite(value: Any) -> bool:
    """Return whether a value is a number that an axis can show: not so large that differences overflow."""
    return isinstance(value, (int, float)) and abs(value) <= 1e300


def value_text(value: Any, digits: int = 12) -> str:
    """Format a value of any type for people: lists and dicts with commas, as in `units 32, rates (0.1, 0.2)`.

    Args:
        value: a value of JSON, or any other, returned as `str(value)`.
        digits: number of significant digits of a float.

    Example:

    >>> value_text({"units": 32, "splits": ["train", "eval"]})
    'units 32, splits (train, eval)'
    """
    if isinstance(value, (bool, int, float)) or value is None:
        return "none" if value is None else number_text(value, digits)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_nested(item, digits)}" for name, item in value.items()) or "none"
    if isinstance(value, (list, tuple, set)):
        return ", ".join(_nested(item, digits) for item in value) or "none"
    return str(value)


def _nested(value: Any, digits: int) -> str:
    text = value_text(value, digits)
    return f"({text})" if isinstance(value, (Mapping, list, tuple, set)) and value else text
