"""The representation of missing values in model inputs. `model_inputs` states the whole rule."""

from __future__ import annotations

import math
from typing import Any


def missing_value(dtype: str) -> Any:
    """Return the value that represents a missing one: b"" for strings, NaN for floats, -1 for signed integers.

    Raises:
        ValueError: the dtype cannot represent a missing value.
    """
    if dtype == "string":
        return b""
    if dtype.startswith("float") or dtype == "bfloat16":
        return math.nan
    if dtype.startswith("int"):
        return -1
    raise ValueError(f"values are missing, and {dtype} cannot represent a missing value")


def has_missing_value(dtype: str) -> bool:
    """Return whether the dtype can represent a missing value."""
    return dtype == "string" or dtype.startswith(("float", "bfloat", "int"))
