"""Numbers formatted for people."""

from __future__ import annotations

import math
from typing import Any


def number_text(value: Any, digits: int = 4) -> str:
    """Format a value for people.

    Args:
        value: a number; a bool, which becomes "yes" or "no"; or any other value, returned as `str(value)`. None, NaN
            and infinities become a dash.
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
        return str(value)
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
