"""What stands for a missing value in a model's inputs; `kerasline.components.data.feed` has the whole rule."""

from __future__ import annotations

import math
from typing import Any


def missing_value(dtype: str) -> Any:
    """What stands for a missing value of a dtype.

    Raises:
        ValueError: nothing does.
    """
    if dtype == "string":
        return b""
    if dtype.startswith("float") or dtype == "bfloat16":
        return math.nan
    if dtype.startswith("int"):
        return -1
    raise ValueError(f"values are missing, and a {dtype} has none that says so")
